package wiring

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/cmd/streamhouse/settings"
)

// authority signs certificates for tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, file: filepath.Join(t.TempDir(), "ca.pem")}
	a.key = newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	writePEM(t, a.file, "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// sign writes a certificate for 127.0.0.1 with a serial number, and its key.
func (a *authority) sign(serial int64, certFile, keyFile string) {
	a.t.Helper()
	key := newKey(a.t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "agent"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	writePEM(a.t, certFile, "CERTIFICATE", der)
	writePEM(a.t, keyFile, "EC PRIVATE KEY", keyDER)
}

// shake returns the serial number of the certificate that a client meets.
func shake(t *testing.T, server, client *tls.Config) (int64, error) {
	t.Helper()
	near, far := net.Pipe()
	defer func() { _ = near.Close() }()
	done := make(chan error, 1)
	go func() {
		s := tls.Server(far, server)
		err := s.HandshakeContext(t.Context())
		if err == nil {
			_, err = s.Write([]byte("x")) // a client's certificate is judged after its handshake
		}
		_ = far.Close()
		done <- err
	}()
	client = client.Clone()
	client.ServerName = "127.0.0.1"
	c := tls.Client(near, client)
	err := c.HandshakeContext(t.Context())
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	_ = near.Close()
	<-done
	if err != nil {
		return 0, err
	}
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
}

func TestServerTLS_ReadsChangedFilesAndKeepsTheOldOnesIfTheyAreBroken(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	f := settings.TLSFiles{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	a.sign(7, f.Cert, f.Key)
	server, err := serverTLS(f)
	if err != nil {
		t.Fatal(err)
	}
	client, err := clientTLS(settings.TLSFiles{CA: a.file})
	if err != nil {
		t.Fatal(err)
	}
	meet := func(want int64) {
		t.Helper()
		if serial, err := shake(t, server, client); err != nil || serial != want {
			t.Errorf("met certificate %d, want %d: %v", serial, want, err)
		}
	}
	meet(7)
	a.sign(8, f.Cert, f.Key)
	later := time.Now().Add(time.Minute) // whatever the clock of the file system is
	for _, path := range []string{f.Cert, f.Key} {
		if err := os.Chtimes(path, later, later); err != nil {
			t.Fatal(err)
		}
	}
	meet(8)
	if err := os.WriteFile(f.Cert, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	meet(8)
}

func TestServerTLS_AsksForAClientCertificateIfItHasAnAuthorityForThem(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	name := func(s string) string { return filepath.Join(dir, s) }
	a.sign(7, name("cert"), name("key"))
	a.sign(9, name("client"), name("client-key"))
	stranger.sign(10, name("other"), name("other-key"))
	server, err := serverTLS(settings.TLSFiles{CA: a.file, Cert: name("cert"), Key: name("key")})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		files settings.TLSFiles
		ok    bool
	}{
		{settings.TLSFiles{CA: a.file}, false},
		{settings.TLSFiles{CA: a.file, Cert: name("other"), Key: name("other-key")}, false},
		{settings.TLSFiles{CA: a.file, Cert: name("client"), Key: name("client-key")}, true},
	} {
		client, err := clientTLS(c.files)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := shake(t, server, client); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.files, err)
		}
	}
}

func TestTLS_RefusesHalfOfAPairAndFilesThatAreNone(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range []settings.TLSFiles{{Cert: text}, {Key: text}, {CA: text}, {Cert: text, Key: text}, {Cert: "nowhere", Key: "nowhere"}} {
		if _, err := serverTLS(f); err == nil {
			t.Errorf("a server takes %+v", f)
		}
	}
	for _, f := range []settings.TLSFiles{{Cert: text}, {Key: text}, {CA: text}, {Cert: text, Key: text}, {CA: "nowhere"}} {
		if _, err := clientTLS(f); err == nil {
			t.Errorf("a client takes %+v", f)
		}
	}
	for _, make := range []func(settings.TLSFiles) (*tls.Config, error){serverTLS, clientTLS} {
		if c, err := make(settings.TLSFiles{}); c != nil || err != nil {
			t.Errorf("without files: %v, %v", c, err)
		}
	}
}
