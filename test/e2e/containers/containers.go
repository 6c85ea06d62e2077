// Package containers starts PostgreSQL, MinIO and agents in Docker containers
// for tests, which end with the test.
//
// Which images those are is said by STREAMHOUSE_TEST_POSTGRES_IMAGE and
// STREAMHOUSE_TEST_MINIO_IMAGE, else they are pulled, and by STREAMHOUSE_TEST_IMAGE. The tests are behind the build tag
// "containers" and fail without Docker: `make containers` runs them, with what images.sh prepares.
package containers

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver that asks whether a server answers
	"github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/modules/postgres"
	"github.com/testcontainers/testcontainers-go/wait"

	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

// readyLimit is how long a container may take until its server answers, and
// readyPoll how often it is asked.
const (
	readyLimit = time.Minute
	readyPoll  = 20 * time.Millisecond
)

const needed = "Docker and its images are needed, which `make containers` prepares: "

// PostgresContainer is a PostgreSQL server in a container.
type PostgresContainer struct{ *postgres.PostgresContainer }

// Postgres starts a server; it ends with tb.
func Postgres(tb testing.TB, more ...testcontainers.ContainerCustomizer) *PostgresContainer {
	tb.Helper()
	password := servers.NewS3Access().SecretKey
	url := func(host string, port network.Port) string {
		return fmt.Sprintf("postgres://streamhouse:%s@%s/streamhouse?sslmode=disable", password, net.JoinHostPort(host, port.Port()))
	}
	options := append([]testcontainers.ContainerCustomizer{
		postgres.WithDatabase("streamhouse"), postgres.WithUsername("streamhouse"), postgres.WithPassword(password),
		testcontainers.WithCmd("postgres"), // the library's own command turns fsync off
		// The library's own wait takes what the log said before a restart for what it says after it.
		testcontainers.WithWaitStrategy(wait.ForSQL("5432/tcp", "pgx", url).WithStartupTimeout(readyLimit).WithPollInterval(readyPoll)),
		ofThisRun(), quiet(tb),
	}, more...)
	started, err := postgres.Run(tb.Context(), cmp.Or(os.Getenv("STREAMHOUSE_TEST_POSTGRES_IMAGE"), "postgres:17"), options...)
	testcontainers.CleanupContainer(tb, started)
	if err != nil {
		tb.Fatal(needed, err)
	}
	return &PostgresContainer{started}
}

// URL is the way of the database's owner to it. A container that was stopped
// and started has another.
func (c *PostgresContainer) URL(tb testing.TB) string {
	tb.Helper()
	url, err := c.ConnectionString(tb.Context(), "sslmode=disable")
	if err != nil {
		tb.Fatal(err)
	}
	return url
}

// MinIOContainer is an S3 server in a container.
type MinIOContainer struct {
	testcontainers.Container
	keys servers.S3Access
}

// minioPort is where MinIO listens in its container.
const minioPort = "9000/tcp"

// MinIO starts a server; it ends with tb.
func MinIO(tb testing.TB, more ...testcontainers.ContainerCustomizer) *MinIOContainer {
	tb.Helper()
	keys := servers.NewS3Access()
	options := append([]testcontainers.ContainerCustomizer{
		testcontainers.WithExposedPorts(minioPort), testcontainers.WithCmd("server", "/data"),
		testcontainers.WithEnv(map[string]string{
			"MINIO_ROOT_USER": keys.AccessKey, "MINIO_ROOT_PASSWORD": keys.SecretKey, "MINIO_REGION": keys.Region, "MINIO_BROWSER": "off",
		}),
		testcontainers.WithWaitStrategy(answering(keys)), ofThisRun(), quiet(tb),
	}, more...)
	started, err := testcontainers.Run(tb.Context(), cmp.Or(os.Getenv("STREAMHOUSE_TEST_MINIO_IMAGE"), "minio/minio"), options...)
	testcontainers.CleanupContainer(tb, started)
	if err != nil {
		tb.Fatal(needed, err)
	}
	return &MinIOContainer{started, keys}
}

// answering waits until a server takes the keys. MinIO says that it is ready
// some moments before it does.
type answering servers.S3Access

// WaitUntilReady is called at each start of a container.
func (a answering) WaitUntilReady(ctx context.Context, target wait.StrategyTarget) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	for {
		host, err := target.Host(ctx)
		if err != nil {
			return err
		}
		access := servers.S3Access(a)
		if port, err := target.MappedPort(ctx, minioPort); err == nil { // a moment after the start it has none
			access.Endpoint = "http://" + net.JoinHostPort(host, port.Port())
			if access.Answers(ctx) {
				return nil
			}
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("MinIO does not answer: %w", ctx.Err())
		}
	}
}

// Access is how clients find the server. A container that was stopped and
// started has another endpoint.
func (c *MinIOContainer) Access(tb testing.TB) servers.S3Access {
	tb.Helper()
	endpoint, err := c.PortEndpoint(tb.Context(), minioPort, "http")
	if err != nil {
		tb.Fatal(err)
	}
	access := c.keys
	access.Endpoint = endpoint
	return access
}

// Restart stops a container as `docker restart` does and starts it again. Its
// server answers when Restart returns, on another port.
func Restart(ctx context.Context, c testcontainers.Container) error {
	if err := c.Stop(ctx, nil); err != nil {
		return err
	}
	return c.Start(ctx)
}

// ofThisRun marks a container, so that what a killed test leaves can be told
// from the containers of others.
func ofThisRun() testcontainers.CustomizeRequestOption {
	return testcontainers.WithLabels(runLabels())
}

func runLabels() map[string]string {
	return map[string]string{"streamhouse.run": os.Getenv("STREAMHOUSE_TEST_RUN")}
}

// quiet sends what the library says to the log of the test.
func quiet(tb testing.TB) testcontainers.LoggerOption {
	return testcontainers.WithLogger(logger{tb})
}

type logger struct{ testing.TB }

func (l logger) Printf(format string, args ...any) { l.Logf(strings.TrimSpace(format), args...) }
