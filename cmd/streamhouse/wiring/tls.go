package wiring

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/cmd/streamhouse/settings"
	"github.com/streamhouse/streamhouse/domain"
)

// systemCA stands for the certificates that the system trusts.
const systemCA = "system"

// serverTLS is what an agent's files say, nil without a certificate. Files that
// change are read again at the next connection.
func serverTLS(f settings.TLSFiles) (*tls.Config, error) {
	if f == (settings.TLSFiles{}) {
		return nil, nil
	}
	if f.Cert == "" || f.Key == "" {
		return nil, &domain.ConfigError{Field: "tls-cert and tls-key", Want: "both, or neither"}
	}
	r := &reloader{files: f}
	if _, err := r.current(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.current() },
		// For who asks for the certificate without a handshake of ours.
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			c, err := r.current()
			if err != nil {
				return nil, err
			}
			return &c.Certificates[0], nil
		},
	}, nil
}

// reloader keeps what the files said when they were last looked at.
type reloader struct {
	files settings.TLSFiles

	mu     sync.Mutex // guards all below; reading files under it is what it is for
	config *tls.Config
	read   [3]time.Time // when each file was changed
}

// current returns the configuration of the files as they are. If they cannot be
// read now, what they said before goes on.
func (r *reloader) current() (*tls.Config, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var changed [3]time.Time
	for i, path := range []string{r.files.Cert, r.files.Key, r.files.CA} {
		if info, err := os.Stat(path); path != "" && err == nil {
			changed[i] = info.ModTime()
		}
	}
	if r.config != nil && changed == r.read {
		return r.config, nil
	}
	c, err := load(r.files)
	if err != nil {
		if r.config != nil {
			return r.config, nil
		}
		return nil, err
	}
	r.config, r.read = c, changed
	return c, nil
}

func load(f settings.TLSFiles) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}}
	if f.CA != "" {
		if c.ClientCAs, err = pool(f.CA); err != nil {
			return nil, err
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, nil
}

// clientTLS is what a client's files say, nil without any.
func clientTLS(f settings.TLSFiles) (*tls.Config, error) {
	if f == (settings.TLSFiles{}) {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	var err error
	if f.CA != "" && f.CA != systemCA {
		if c.RootCAs, err = pool(f.CA); err != nil {
			return nil, err
		}
	}
	if (f.Cert == "") != (f.Key == "") {
		return nil, &domain.ConfigError{Field: "agent-tls-cert and agent-tls-key", Want: "both, or neither"}
	}
	if f.Cert != "" {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("certificate %s with key %s: %w", f.Cert, f.Key, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

func pool(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pem) {
		return nil, errors.New(path + ": holds no certificate")
	}
	return p, nil
}
