package agents_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/test/e2e/faultproxy"
)

// TestAgents_WithoutAStoreIsNotReadyAndRefusesBeforeItAccepts takes the database
// and then the bucket away from an agent, by refusal and by silence. It says so, stores nothing
// and says that too, and is back by itself.
func TestAgents_WithoutAStoreIsNotReadyAndRefusesBeforeItAccepts(t *testing.T) {
	t.Parallel()
	f := fleetOf(t, 1)
	a := f.agents[0]
	client, err := grpc.Dial(t.Context(), f.client())
	must(t, err)
	old, err := streamhouse.NewProducerBuilder().Agents(client).DeliveryTimeout(time.Second).RequestTimeout(time.Second).Build(t.Context())
	must(t, err)
	for _, edge := range []struct {
		name, word string
		down       func()
		up         func() error
	}{
		{"the database refuses", "metadata store", f.toServer.Down, f.toServer.Up},
		{"the database is silent", "metadata store", func() { f.toServer.Freeze(faultproxy.ToClient) }, func() error { f.toServer.Thaw(); return nil }},
		{"the bucket refuses", "segment store", f.toBucket.Down, f.toBucket.Up},
	} {
		f.sends(patience)
		edge.down()
		// Somebody tries: an idle agent asks its bucket nothing.
		if err := sendBy(old); err == nil || domain.FateOf(err).Stored == domain.StoredYes {
			t.Errorf("%s: a record was stored: %v", edge.name, err)
		}
		eventually(t, edge.name, func() error {
			status, said, err := a.get("/readyz")
			if err == nil && (status != 503 || !strings.Contains(said, edge.word)) {
				err = fmt.Errorf("%d %s", status, said)
			}
			return err
		})
		batches := a.status().Batches
		for what, send := range map[string]func() error{
			"a new producer": func() error { return f.send(time.Second) },
			"an old one":     func() error { return sendBy(old) },
		} {
			eventually(t, edge.name+", "+what+" is refused", func() error { // on a busy machine the refusal may come too late
				err := send()
				if err == nil || domain.FateOf(err).Stored != domain.StoredNo || !strings.Contains(err.Error(), edge.word) {
					return fmt.Errorf("got %v, want a definite error that names the %s", err, edge.word)
				}
				return nil
			})
		}
		if n := a.status().Batches - batches; n != 0 {
			t.Errorf("%s: %d batches were taken over by an agent that is not ready", edge.name, n)
		}
		if status, _, err := a.get("/healthz"); err != nil || status != 200 {
			t.Errorf("%s: the process is said to be dead: %d, %v", edge.name, status, err)
		}
		must(t, edge.up())
		eventually(t, edge.name+", and is back", func() error {
			status, said, err := a.get("/readyz")
			if err == nil && status != 200 {
				err = errors.New(said)
			}
			return err
		})
	}
	eventually(t, "the old producer sends", func() error { return sendBy(old) })
	must(t, errors.Join(old.Close(t.Context()), client.Close()))
	f.end()
}

// forget makes the entry of the agent older.
func (f *fleet) forget(a *agent, by time.Duration) {
	f.Helper()
	conn, err := pgx.Connect(f.Context(), f.server.URLFor("postgres", "", f.database))
	must(f.T, err)
	_, err = conn.Exec(f.Context(), "UPDATE streamhouse.agents SET seen_at = seen_at - $2::bigint WHERE address = $1", a.address(), by.Milliseconds())
	must(f.T, errors.Join(err, conn.Close(f.Context())))
}

// send sends one record within the time, with a client and a producer of its own.
func (f *fleet) send(within time.Duration) error {
	client, err := grpc.Dial(f.Context(), f.client())
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // its connections may be cut
	p, err := streamhouse.NewProducerBuilder().Agents(client).DeliveryTimeout(within).RequestTimeout(within).Build(f.Context())
	if err != nil {
		return err
	}
	return errors.Join(sendBy(p), p.Close(f.Context()))
}

func sendBy(p *streamhouse.Producer) error {
	_, err := p.Send(context.Background(), streamhouse.Record{Topic: topic, Value: []byte("x")})
	return err
}

// sends demands that a record can be sent.
func (f *fleet) sends(within time.Duration) {
	f.Helper()
	must(f.T, f.send(within))
}

// TestAgents_TwoAtOneAddressAreRefused starts an agent where another one
// listens: it ends with one clear sentence, enters no list, and the first one does not notice.
func TestAgents_TwoAtOneAddressAreRefused(t *testing.T) {
	t.Parallel()
	f := fleetOf(t, 1)
	first := f.agents[0]
	for flag, change := range map[string]func(*agent){
		"--listen": func(a *agent) { a.listen = first.listen },
		"--admin":  func(a *agent) { a.admin = first.admin },
	} {
		second := f.add()
		change(second)
		err := second.tryStart()
		want := "another process listens there, perhaps another agent: give this one a free address with " + flag
		if err == nil || !strings.Contains(err.Error(), want) || strings.Count(second.said.String(), "\n") != 1 {
			t.Errorf("the second agent: %v", err)
		}
	}
	if list := f.list(first); len(list) != 1 || list[0].Address != first.address() {
		t.Errorf("the list is %v", list)
	}
	f.agents = f.agents[:1]
	f.sends(patience)
	f.end()
}

// TestAgents_ThatWasStoppedForLongDoesNoHarm stops an agent under load until its
// entry in the list has ended; its clients have sent again elsewhere what it holds. What it does
// when it wakes changes nothing, and it is in the list again.
func TestAgents_ThatWasStoppedForLongDoesNoHarm(t *testing.T) {
	t.Parallel()
	f := fleetOf(t, 2)
	run := f.run(20 * time.Second)
	f.someRecords(run, 100)
	a := f.agents[0]
	a.signal(syscall.SIGSTOP)
	f.someRecords(run, 100) // through the other one
	rest(*pause)
	// The clock of the list is the database's: the entry is made as old as the pause is meant to be.
	f.forget(a, 2*time.Minute)
	if list := f.list(f.agents[1]); len(list) != 1 || list[0].Address != f.agents[1].address() {
		t.Errorf("while one of two is stopped the list is %v", list)
	}
	a.signal(syscall.SIGCONT)
	eventually(t, "the agent is listed again", func() error {
		if list := f.list(f.agents[1]); len(list) != 2 {
			return fmt.Errorf("the list is %v", list)
		}
		return nil
	})
	f.someRecords(run, 100)
	run.Finish(t)
	t.Logf("%s", &run.Counts)
	if n := run.Failed.Load() + run.Unknown.Load() + run.Stored.Load(); n != 0 {
		t.Errorf("%d records were not acknowledged", n)
	}
	f.end()
}
