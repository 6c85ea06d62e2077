package grpc_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/domain"
)

// authority signs certificates for one test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key = a.sign(template, template, nil)
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) sign(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// issue makes a certificate for name, for servers and for clients.
func (a *authority) issue(name string) tls.Certificate {
	a.t.Helper()
	cert, key := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, a.key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// byCertificate lets in whoever shows a certificate with a name, to read.
type byCertificate struct{ name string }

func (b byCertificate) Authorize(_ context.Context, c grpc.Credentials) (grpc.Principal, error) {
	if c.TLS == nil || len(c.TLS.PeerCertificates) == 0 || c.TLS.PeerCertificates[0].Subject.CommonName != b.name {
		return grpc.Principal{}, errors.New("unknown")
	}
	return grpc.Principal{Name: b.name, Scopes: []grpc.Scope{grpc.ScopeRead}, Topics: []string{""}}, nil
}

func TestTLS_KnowsClientsByTheirCertificates(t *testing.T) {
	c := newCluster(t, tcp{})
	ours, foreign := newAuthority(t), newAuthority(t)
	a := c.start("", func(_ *grpc.Backend, cfg *grpc.ServerConfig) {
		cfg.TLS = &tls.Config{
			Certificates: []tls.Certificate{ours.issue("agent")}, ClientCAs: ours.pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
		}
		cfg.Authorizer = byCertificate{"billing"}
	})
	config := func(trust *authority, certs ...tls.Certificate) func(*grpc.ClientConfig) {
		return func(cfg *grpc.ClientConfig) {
			impatient(cfg)
			cfg.Discovery, cfg.Addresses = nil, []string{a.addr}
			cfg.TLS = &tls.Config{RootCAs: trust.pool, Certificates: certs, MinVersion: tls.VersionTLS13}
		}
	}
	if _, err := c.dial(config(ours, ours.issue("billing"))).ListTopics(t.Context()); err != nil {
		t.Errorf("with its certificate: %v", err)
	}
	if _, err := c.dial(config(ours, ours.issue("other"))).ListTopics(t.Context()); !errors.Is(err, grpc.ErrUnauthenticated) {
		t.Errorf("with another's certificate: %v", err)
	}
	for name, change := range map[string]func(*grpc.ClientConfig){
		"a server of another authority":      config(foreign, ours.issue("billing")),
		"no certificate":                     config(ours),
		"a certificate of another authority": config(ours, foreign.issue("billing")),
		"no TLS":                             func(cfg *grpc.ClientConfig) { config(ours)(cfg); cfg.TLS = nil },
	} {
		cfg := grpc.DefaultClientConfig()
		change(&cfg)
		client, err := grpc.Dial(t.Context(), cfg)
		if err == nil { // with TLS 1.3 a client learns of a refusal with its first call
			_, err = client.ListTopics(t.Context())
			client.Close()
		}
		if !errors.Is(err, domain.ErrNoAgentsAvailable) {
			t.Errorf("%s: %v, want ErrNoAgentsAvailable", name, err)
		}
	}
}
