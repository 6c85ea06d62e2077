package postgres

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

// pooler gives all its clients one session of the server, statement by
// statement, as a pooler in transaction mode may. It understands simple queries only.
type pooler struct {
	inner  net.Listener
	mu     sync.Mutex // guards the session
	server *pgx.Conn
}

func newPooler(t *testing.T, o *opened) (addr string) {
	t.Helper()
	p := &pooler{inner: must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0")), server: o.connect(t)}
	var clients sync.WaitGroup
	clients.Go(func() {
		for {
			client, err := p.inner.Accept()
			if err != nil {
				return
			}
			clients.Go(func() {
				defer client.Close()
				if err := p.serve(client); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Error(err)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = p.inner.Close()
		clients.Wait()
		closeConn(p.server)
	})
	return p.inner.Addr().String()
}

func (p *pooler) serve(client net.Conn) error {
	b := pgproto3.NewBackend(client, client)
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return err
	}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.BackendKeyData{SecretKey: []byte{1, 2, 3, 4}})
	for _, name := range []string{"client_encoding", "standard_conforming_strings"} {
		b.Send(&pgproto3.ParameterStatus{Name: name, Value: map[string]string{"client_encoding": "UTF8", "standard_conforming_strings": "on"}[name]})
	}
	for {
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if err := b.Flush(); err != nil {
			return err
		}
		message, err := b.Receive()
		if err != nil {
			return err
		}
		query, simple := message.(*pgproto3.Query)
		if !simple {
			return nil
		}
		p.forward(b, query.String)
	}
}

// forward runs a query on the one session and passes its answer on.
func (p *pooler) forward(b *pgproto3.Backend, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	frontend := p.server.PgConn().Frontend()
	frontend.Send(&pgproto3.Query{String: text})
	if frontend.Flush() != nil {
		return
	}
	for {
		message, err := frontend.Receive()
		if err != nil {
			return
		}
		if _, done := message.(*pgproto3.ReadyForQuery); done {
			return
		}
		b.Send(message)
		if b.Flush() != nil { // the message is overwritten by the next
			return
		}
	}
}

func TestOpen_RefusesAPoolerThatSharesSessions(t *testing.T) {
	s := newTest(t, Options{})
	addr := newPooler(t, s)
	refused(t, through(t, s.url, addr), Options{}, "PgBouncer", "transaction mode")
}

// A pooler that passes no settings on is refused by name too.
func TestOpen_RefusesAPoolerThatDropsSettings(t *testing.T) {
	s := newTest(t, Options{})
	plain := &opened{url: servers.SharedPostgres(t).URL()}
	plain.url = with(t, plain.url, "schema", "another")
	refused(t, with(t, through(t, s.url, newPooler(t, plain)), "sslmode", "disable"), Options{}, "pooler", "session mode")
}
