package grpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// ClientConfig says how a Client works. Start from DefaultClientConfig and set
// Discovery or Addresses.
type ClientConfig struct {
	// Discovery lists the agents. Without it the agents at Addresses are asked.
	Discovery ports.AgentDiscovery
	// Addresses are agents to begin with, host:port each. With Discovery they
	// are used when it lists nothing.
	Addresses []string
	// Group is whose agents are used.
	Group string
	// Zone is where the client is: agents of the same zone come first.
	Zone string
	// RefreshInterval is how old the list of agents may be while the client is in
	// use. A failure refreshes it at once; an idle client asks for nothing.
	RefreshInterval time.Duration

	// TLS secures the connections. Nil: none.
	TLS *tls.Config
	// Token is the bearer token. Without TLS it is sent to loopback addresses
	// only, unless InsecureToken allows all.
	Token         string
	InsecureToken bool

	// RequestTimeout bounds a call on the metadata or the records of the agent
	// whose context has no earlier deadline.
	RequestTimeout time.Duration
	// ConnectTimeout bounds the attempt to reach one agent.
	ConnectTimeout time.Duration
	// StallAfter is how long an agent may be silent while an answer is due before
	// another one is used.
	StallAfter time.Duration
	// HedgeAfter is how late an answer may be before what is unanswered is sent to
	// a second agent too; the first answer counts. 0: never. Batches without a producer are
	// never sent twice.
	HedgeAfter time.Duration
	// InFlightBytes bounds the bytes of each Transport that are taken over and
	// not settled: Append blocks while they are reached.
	InFlightBytes int64
	// KeepaliveTime is how long a connection with calls in progress is silent
	// before it is asked whether it lives, KeepaliveTimeout how long it has to answer.
	KeepaliveTime, KeepaliveTimeout time.Duration

	// Dialer makes the connections. Nil: TCP.
	Dialer func(ctx context.Context, address string) (net.Conn, error)
	// Seed makes the choice of agents repeatable. 0 makes it random.
	Seed uint64
}

// DefaultClientConfig asks the agents at the addresses, HOST:PORT, for the others
// of the group "default". Without addresses Discovery is needed.
func DefaultClientConfig(addresses ...string) ClientConfig {
	return ClientConfig{
		Addresses: addresses, Group: "default", RefreshInterval: 30 * time.Second,
		RequestTimeout: 30 * time.Second, ConnectTimeout: 3 * time.Second, StallAfter: 10 * time.Second,
		InFlightBytes: 32 << 20, KeepaliveTime: 20 * time.Second, KeepaliveTimeout: 10 * time.Second,
	}
}

// Validate reports every field that cannot be used.
func (c ClientConfig) Validate() error {
	errs := []error{
		want("Discovery", c.Discovery != nil || len(c.Addresses) > 0, "an agent discovery, or Addresses"),
		domain.ValidateName("agent group", c.Group),
		wantDuration("RefreshInterval", c.RefreshInterval, time.Millisecond),
		wantDuration("RequestTimeout", c.RequestTimeout, time.Millisecond),
		wantDuration("ConnectTimeout", c.ConnectTimeout, time.Millisecond),
		wantDuration("StallAfter", c.StallAfter, time.Millisecond),
		wantDuration("HedgeAfter", c.HedgeAfter, 0),
		wantInt("InFlightBytes", c.InFlightBytes, 1, 1<<40),
		wantDuration("KeepaliveTime", c.KeepaliveTime, 10*time.Second),
		wantDuration("KeepaliveTimeout", c.KeepaliveTimeout, time.Millisecond),
	}
	if c.Zone != "" {
		errs = append(errs, domain.ValidateName("zone", c.Zone))
	}
	for _, a := range c.Addresses {
		if _, _, err := net.SplitHostPort(a); err != nil {
			errs = append(errs, &domain.ConfigError{Field: "Addresses", Value: fmt.Sprintf("%.80q", a), Want: "host:port"})
		}
	}
	return errors.Join(errs...)
}

// mayCarry reports whether the token may be sent to the address.
func (c *ClientConfig) mayCarry(address string) bool {
	if mutant.On(mutantTokenInTheOpen) || c.Token == "" || c.TLS != nil || c.InsecureToken {
		return true
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
