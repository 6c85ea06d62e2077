package postgres

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/test/e2e/faultproxy"
	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

// following is a store behind a proxy with a subscription, and one beside it that writes.
type following struct {
	reader, writer *opened
	proxy          *faultproxy.Postgres
	wakes          chan struct{}
}

func follow(t *testing.T) *following {
	t.Helper()
	f := &following{writer: newTest(t, Options{}), proxy: faultproxy.NewPostgres(t, servers.SharedPostgres(t).Addr()), wakes: make(chan struct{}, 1)}
	f.reader = openTest(t, with(t, through(t, f.writer.url, f.proxy.Addr()), "pool_max_conns", "1"), Options{})
	t.Cleanup(f.reader.Subscribe(func() {
		select {
		case f.wakes <- struct{}{}:
		default:
		}
	}))
	return f
}

// sees reads whenever woken, and at no other time, until the high watermark is
// there; it returns how long that took.
func (f *following) sees(t *testing.T, w written, want domain.Offset) time.Duration {
	t.Helper()
	began := time.Now()
	for limit := time.After(15 * time.Second); ; {
		select {
		case <-f.wakes:
			if f.reader.high(t, w.key) == want {
				return time.Since(began)
			}
		case <-limit:
			t.Fatal("nobody was woken")
		}
	}
}

func (f *following) listening(t *testing.T) {
	t.Helper()
	eventually(t, func() bool {
		n, err := servers.SharedPostgres(t).One(t.Context(), "SELECT count(*)::text FROM pg_stat_activity WHERE query = $1", "LISTEN "+quoted(f.reader.channel()))
		return err == nil && n == "1"
	})
}

func TestSubscribe_ListensAnewWhenItsConnectionIsLost(t *testing.T) {
	f := follow(t)
	w := f.writer.written(t)
	for n := domain.Offset(1); n <= 3; n++ {
		f.listening(t)
		if err := f.writer.write1(t, w.key); err != nil {
			t.Fatal(err)
		}
		f.sees(t, w, 10*n)
		f.proxy.Cut()
	}
}

// Without a connection to listen on, the pool's connections are used to look.
func TestSubscribe_PollsWhileItCannotListen(t *testing.T) {
	f := follow(t)
	w := f.writer.written(t)
	f.listening(t)
	f.reader.high(t, w.key) // so that the pool has a connection
	f.proxy.Refuse()
	if _, err := servers.SharedPostgres(t).One(t.Context(), "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE query = $1",
		"LISTEN "+quoted(f.reader.channel())); err != nil {
		t.Fatal(err)
	}
	for n := domain.Offset(1); n <= 3; n++ {
		if err := f.writer.write1(t, w.key); err != nil {
			t.Fatal(err)
		}
		if took := f.sees(t, w, 10*n); took > 5*time.Second {
			t.Errorf("woken after %s", took)
		}
	}
	if err := f.proxy.Up(); err != nil {
		t.Fatal(err)
	}
	f.listening(t)
}

func TestSubscribe_CostsNothingWhileNothingHappens(t *testing.T) {
	f := follow(t)
	w := f.writer.written(t)
	f.listening(t)
	if err := f.writer.write1(t, w.key); err != nil {
		t.Fatal(err)
	}
	f.sees(t, w, 10)
	before := f.proxy.Counts()
	select {
	case <-f.wakes: // of the notification that came after the read
		before = f.proxy.Counts()
		<-time.After(time.Second)
	case <-time.After(time.Second):
	}
	if after := f.proxy.Counts(); after.Bytes != before.Bytes || after.Accepted != before.Accepted {
		t.Errorf("in a second without a commit it went from %+v to %+v", before, after)
	}
}

func TestNotifier_TellsManyCommitsAtOnce(t *testing.T) {
	var sent atomic.Int64
	n := newNotifier(func(context.Context) error { sent.Add(1); return nil })
	began := time.Now()
	for time.Since(began) < 100*time.Millisecond {
		n.kick()
	}
	n.close()
	most := int64(time.Since(began)/notifyEvery) + 2
	if got := sent.Load(); got == 0 || got > most {
		t.Errorf("%d notifications, want 1 to %d", got, most)
	}
	n.kick()
	if got := sent.Load(); got > most {
		t.Error("it notifies after it was closed")
	}
}

func TestNotifier_TriesAgainAFewTimes(t *testing.T) {
	var sent atomic.Int64
	n := newNotifier(func(context.Context) error { sent.Add(1); return context.DeadlineExceeded })
	n.kick()
	eventually(t, func() bool { return sent.Load() >= 3 })
	n.close()
	if got := sent.Load(); got > 5 {
		t.Errorf("%d tries", got)
	}
}

// write1 commits ten records.
func (o *opened) write1(t testing.TB, key commit.PartitionKey) error {
	w := o.another(t, key)
	_, err := o.Commit(context.Background(), []commit.Segment{w.seg})
	return err
}
