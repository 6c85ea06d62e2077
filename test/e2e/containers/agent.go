package containers

import (
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"
	networks "github.com/testcontainers/testcontainers-go/network"
	"github.com/testcontainers/testcontainers-go/wait"
)

// Where an agent listens in its container.
const (
	servePort = "7070/tcp"
	adminPort = "7071/tcp"
)

// healthLimit is how long an agent may take until its health check is content.
const healthLimit = time.Minute

// Network is where containers find each other by name; it ends with tb.
func Network(tb testing.TB) *testcontainers.DockerNetwork {
	tb.Helper()
	n, err := networks.New(tb.Context(), networks.WithLabels(runLabels()))
	if err != nil {
		tb.Fatal(needed, err)
	}
	testcontainers.CleanupNetwork(tb, n)
	return n
}

// Named puts a container into the network, where the others find it by the name.
func Named(n *testcontainers.DockerNetwork, name string) testcontainers.ContainerCustomizer {
	return networks.WithNetwork([]string{name}, n)
}

// AgentContainer is the image of deploy/Dockerfile as an agent.
type AgentContainer struct{ testcontainers.Container }

// Agent starts an agent with the command and the environment; it ends with tb.
// Agent returns when the health check of the image is content. On this machine the agent serves
// at the port of loopback, which it is to advertise.
func Agent(tb testing.TB, port int, command []string, environment map[string]string, more ...testcontainers.ContainerCustomizer) *AgentContainer {
	tb.Helper()
	image := os.Getenv("STREAMHOUSE_TEST_IMAGE")
	if image == "" {
		tb.Fatal(needed, "STREAMHOUSE_TEST_IMAGE is not set")
	}
	options := append([]testcontainers.ContainerCustomizer{
		testcontainers.WithCmd(command...), testcontainers.WithEnv(environment),
		testcontainers.WithExposedPorts(servePort, adminPort), testcontainers.WithHostConfigModifier(onLoopback(port)),
		testcontainers.WithWaitStrategy(wait.ForHealthCheck().WithStartupTimeout(healthLimit)), ofThisRun(), quiet(tb),
	}, more...)
	started, err := testcontainers.Run(tb.Context(), image, options...)
	testcontainers.CleanupContainer(tb, started)
	if err != nil {
		tb.Fatal(needed, err)
	}
	return &AgentContainer{started}
}

// onLoopback publishes the agent at the port, and its admin listener at any.
func onLoopback(port int) func(*container.HostConfig) {
	at := func(port int) []network.PortBinding {
		return []network.PortBinding{{HostIP: netip.AddrFrom4([4]byte{127, 0, 0, 1}), HostPort: strconv.Itoa(port)}}
	}
	return func(c *container.HostConfig) {
		c.PortBindings = network.PortMap{network.MustParsePort(servePort): at(port), network.MustParsePort(adminPort): at(0)}
	}
}

// Admin is the URL of the agent's admin listener.
func (c *AgentContainer) Admin(tb testing.TB) string {
	tb.Helper()
	url, err := c.PortEndpoint(tb.Context(), adminPort, "http")
	if err != nil {
		tb.Fatal(err)
	}
	return url
}

// Terminated sends SIGTERM, as `docker stop` does, and returns the exit code. An
// agent that takes longer than the limit is killed.
func (c *AgentContainer) Terminated(tb testing.TB, limit time.Duration) (code int) {
	tb.Helper()
	if err := c.Stop(tb.Context(), &limit); err != nil {
		tb.Fatal(err)
	}
	state, err := c.State(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return state.ExitCode
}
