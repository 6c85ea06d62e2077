package agents_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/adapters/postgres"
	"github.com/streamhouse/streamhouse/adapters/s3"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/test/e2e/chaos"
	"github.com/streamhouse/streamhouse/test/e2e/faultproxy"
	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

// What every fleet has.
const (
	topic      = "orders"
	partitions = 6
)

// fleet is a group of agents on one pair of stores, with a proxy on the way to
// each store and to each agent.
type fleet struct {
	*testing.T
	binary   string
	server   *servers.PostgresServer
	database string
	toServer *faultproxy.Postgres
	toBucket *faultproxy.HTTP
	metadata string // URLs, through the proxies
	segments string
	flags    []string // of serve, besides those that every agent has
	agents   []*agent
	store    *chaos.Reach // for what the tests do themselves; not through the proxies
}

// setKeys gives the keys of the shared bucket, which are always the same, to this
// process and those that it starts: its tests run beside each other.
func setKeys(a servers.S3Access) error {
	return errors.Join(os.Setenv("AWS_ACCESS_KEY_ID", a.AccessKey), os.Setenv("AWS_SECRET_ACCESS_KEY", a.SecretKey))
}

// newFleet makes the stores, the topic and no agent. With a server of its own
// the fleet may end it.
func newFleet(t *testing.T, server *servers.PostgresServer) *fleet {
	t.Helper()
	gateway, bucket := servers.Bucket(t)
	must(t, setKeys(gateway.S3Access))
	f := &fleet{T: t, binary: binary(t, ""), server: server, database: "postgres"}
	if server == nil {
		f.server = servers.SharedPostgres(t)
		f.database = f.server.Database(t)
	}
	f.toServer = faultproxy.NewPostgres(t, f.server.Addr())
	f.toBucket = faultproxy.NewHTTP(t, gateway.Endpoint, *seed)
	f.metadata = servers.URLVia(f.toServer.Addr(), "postgres", "", f.database)
	at := func(endpoint string) string {
		return fmt.Sprintf("s3://%s/log?endpoint=%s&path_style=true&region=%s", bucket, endpoint, gateway.Region)
	}
	f.segments = at(f.toBucket.URL())
	cfg, err := s3.ParseURL(at(gateway.Endpoint))
	must(t, err)
	segments, err := s3.Open(t.Context(), cfg)
	must(t, err)
	metadata, err := postgres.Open(t.Context(), f.server.URLFor("postgres", "", f.database), postgres.Options{})
	must(t, err)
	f.store = &chaos.Reach{Metadata: metadata, Segments: segments}
	t.Cleanup(func() {
		if err := f.store.Close(); err != nil {
			t.Error(err)
		}
	})
	_, err = metadata.CreateTopic(t.Context(), domain.TopicSpec{Name: topic, Partitions: partitions})
	must(t, err)
	return f
}

// fleetOf is a fleet on the shared servers with n agents that serve.
func fleetOf(t *testing.T, n int) *fleet {
	t.Helper()
	f := newFleet(t, nil)
	for range n {
		f.add().start()
	}
	return f
}

// addresses are where clients find the agents.
func (f *fleet) addresses() (all []string) {
	for _, a := range f.agents {
		all = append(all, a.address())
	}
	return all
}

// client is how a client finds the agents.
func (f *fleet) client() grpc.ClientConfig {
	cfg := grpc.DefaultClientConfig()
	cfg.Addresses = f.addresses()
	// A stopped agent and a cut edge are left soon: that is what is tested.
	cfg.StallAfter = 2 * time.Second
	return cfg
}

// reach is what a client of its own has: the addresses.
func (f *fleet) reach(ctx context.Context) (*chaos.Reach, error) {
	c, err := grpc.Dial(ctx, f.client())
	if err != nil {
		return nil, err
	}
	return &chaos.Reach{Agents: c}, nil
}

// run starts writers and readers of the topic.
func (f *fleet) run(lives time.Duration) *chaos.Run {
	f.Helper()
	return f.runOn(topic, lives)
}

func (f *fleet) runOn(topic string, lives time.Duration) *chaos.Run {
	f.Helper()
	f.Logf("seed %d, %s", *seed, *duration)
	return chaos.Start(f.T, chaos.Config{
		Open: f.reach, Topic: topic, Partitions: partitions, Writers: 5, Readers: 2,
		Pace: 40 * time.Millisecond, Burst: 20, Lives: lives, Seed: *seed,
	})
}

// someRecords waits until that many more were acknowledged.
func (f *fleet) someRecords(run *chaos.Run, n int64) {
	f.Helper()
	want := run.Acked.Load() + n
	eventually(f.T, "records are acknowledged", func() error {
		if got := run.Acked.Load(); got < want {
			return fmt.Errorf("%d of %d", got, want)
		}
		return nil
	})
}

// end drains all agents, and looks at what they leave.
func (f *fleet) end() {
	f.Helper()
	var draining sync.WaitGroup
	for _, a := range f.agents {
		draining.Go(a.drain)
	}
	draining.Wait()
	chaos.Inspect(f.T, f.store.Metadata, f.store.Segments)
}
