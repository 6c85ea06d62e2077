package postgres

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/test/e2e/faultproxy"
	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

// behind is a store whose connections go through a proxy.
func behind(t *testing.T) (*opened, *faultproxy.Postgres) {
	t.Helper()
	direct := newTest(t, Options{})
	proxy := faultproxy.NewPostgres(t, servers.SharedPostgres(t).Addr())
	return openTest(t, through(t, direct.url, proxy.Addr()), Options{}), proxy
}

func through(t testing.TB, to, addr string) string {
	t.Helper()
	u := must[*url.URL](t)(url.Parse(to))
	u.Host = addr
	return u.String()
}

func (o *opened) replays(t *testing.T, id domain.SegmentID) (n int) {
	t.Helper()
	c := o.connect(t)
	defer closeConn(c)
	if err := c.QueryRow(t.Context(), "SELECT replays FROM segments WHERE segment_id = $1", [16]byte(id)).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCommit_WhoseAnswerIsLostIsAmbiguousAndARepeatSettlesIt(t *testing.T) {
	s, proxy := behind(t)
	w := s.written(t)
	proxy.Next("commit_segments(", faultproxy.LoseReply)
	if err := w.commit(t.Context(), s); ports.KindOf(err) != ports.Ambiguous {
		t.Fatalf("error is %v (%s), want an ambiguous one", err, ports.KindOf(err))
	}
	if proxy.Counts().Lost != 1 {
		t.Fatal("no answer was lost")
	}
	if high := s.high(t, w.key); high != 10 {
		t.Errorf("high watermark is %d: the server had done it", high)
	}
	if n := s.replays(t, w.seg.ID); n != 0 {
		t.Errorf("%d replays before the repeat", n)
	}
	if err := w.commit(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if n := s.replays(t, w.seg.ID); n != 1 {
		t.Errorf("%d replays, want one: it must write", n)
	}
	if high := s.high(t, w.key); high != 10 {
		t.Errorf("high watermark is %d after the repeat", high)
	}
}

func TestCommit_ThatNeverReachesTheServerIsAmbiguousAndARepeatSettlesIt(t *testing.T) {
	s, proxy := behind(t)
	w := s.written(t)
	proxy.Next("commit_segments(", faultproxy.CutBefore)
	if err := w.commit(t.Context(), s); ports.KindOf(err) != ports.Ambiguous {
		t.Fatalf("error is %v (%s), want an ambiguous one", err, ports.KindOf(err))
	}
	if high := s.high(t, w.key); high != 0 {
		t.Errorf("high watermark is %d", high)
	}
	if err := w.commit(t.Context(), s); err != nil {
		t.Error(err)
	}
}

func TestCommit_WhoseStatementCannotBePreparedHasNoEffectAndSaysSo(t *testing.T) {
	s, proxy := behind(t)
	w := s.written(t)
	cut := make(chan struct{})
	var once sync.Once
	proxy.Intercept(func(m faultproxy.Message) faultproxy.Action {
		did := faultproxy.Pass
		if m.Type == 'P' {
			once.Do(func() { did = faultproxy.CutBefore; close(cut) })
		}
		return did
	})
	if err := w.commit(t.Context(), s); ports.KindOf(err) != ports.Transient {
		t.Errorf("error is %v (%s), want a transient one", err, ports.KindOf(err))
	}
	<-cut
	if err := w.commit(t.Context(), s); err != nil {
		t.Error(err)
	}
}

// loseCommit loses the answer to the next COMMIT.
func loseCommit(proxy *faultproxy.Postgres) {
	var once sync.Once
	proxy.Intercept(func(m faultproxy.Message) faultproxy.Action {
		did := faultproxy.Pass
		if m.Runs() && strings.EqualFold(m.SQL, "commit") {
			once.Do(func() { did = faultproxy.LoseReply })
		}
		return did
	})
}

func TestWrite_WhoseCommitIsLostIsAmbiguous(t *testing.T) {
	s, proxy := behind(t)
	w := s.written(t)
	if err := w.commit(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"trim":     func() error { _, err := s.Trim(t.Context(), w.key, 1); return err },
		"register": func() error { _, err := s.RegisterProducer(t.Context(), "billing"); return err },
		"widen":    func() error { _, err := s.WidenTopic(t.Context(), w.key.Topic, 3); return err },
		"purge":    func() error { _, err := s.PurgeTopics(t.Context(), 10); return err },
	} {
		loseCommit(proxy)
		if err := call(); ports.KindOf(err) != ports.Ambiguous {
			t.Errorf("%s: error is %v (%s), want an ambiguous one", name, err, ports.KindOf(err))
		}
		if err := call(); err != nil {
			t.Errorf("%s again: %v", name, err)
		}
	}
	for name, statement := range map[string]string{"begin": "begin", "statement": "for no key update"} {
		proxy.Next(statement, faultproxy.LoseReply)
		if _, err := s.SetRetention(t.Context(), w.key.Topic, domain.Retention{Bytes: 1}); ports.KindOf(err) != ports.Transient {
			t.Errorf("%s lost: error is %v (%s), want a transient one", name, err, ports.KindOf(err))
		}
	}
}

func TestRead_OutlivesALostConnection(t *testing.T) {
	s, proxy := behind(t)
	w := s.written(t)
	for _, action := range []faultproxy.Action{faultproxy.LoseReply, faultproxy.CutBefore} {
		met := proxy.Next("recursive", action)
		if high := s.high(t, w.key); high != 0 {
			t.Errorf("high watermark is %d", high)
		}
		<-met
	}
	proxy.Cut()
	if high := s.high(t, w.key); high != 0 {
		t.Errorf("high watermark is %d", high)
	}
}

func TestRead_ObeysItsContext(t *testing.T) {
	s, proxy := behind(t)
	w := s.written(t)
	proxy.Next("recursive", faultproxy.HoldReply)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := s.Plan(ctx, []ports.PlanRequest{{PartitionKey: w.key}})
	if ports.KindOf(err) != ports.Transient || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v (%s), want a transient one", err, ports.KindOf(err))
	}
	proxy.Thaw()
}

func TestStore_FailsFastWhileTheServerIsDownAndGoesOnAfterwards(t *testing.T) {
	s, proxy := behind(t)
	w := s.written(t)
	proxy.Down()
	before := proxy.Counts().Accepted
	began := time.Now()
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if err := w.commit(ctx, s); ports.KindOf(err) == ports.Definite || err == nil {
			t.Errorf("commit gives %v", err)
		}
		if _, err := s.ListTopics(ctx); ports.KindOf(err) != ports.Transient {
			t.Errorf("a read gives %v (%s), want a transient error", err, ports.KindOf(err))
		}
		cancel()
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("twenty calls took %s", took)
	}
	if proxy.Counts().Accepted != before {
		t.Error("the proxy was not down")
	}
	if err := proxy.Up(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		err := w.commit(t.Context(), s)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still %v", err)
		}
	}
}

// While the server is down new connections are begun at a bounded pace, whatever
// the callers do.
func TestDialing_IsPacedWhileTheServerIsDown(t *testing.T) {
	d := new(dialing)
	for i := range 12 {
		d.fail()
		wait := time.Until(d.next)
		if wait > 3*lastRetry/2 || i > 6 && wait < lastRetry/3 {
			t.Errorf("after %d failures the next is begun in %s", i+1, wait)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := d.before(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting gives %v", err)
	}
	d.succeed()
	if err := d.before(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// A cancelled wait for the synchronous standby leaves a commit that readers see
// and a failover may lose: only a repeat that waits again makes it last.
func TestCommit_ThatDidNotReachItsStandbyIsAmbiguousUntilRepeated(t *testing.T) {
	server := servers.Postgres(t)
	s := openTest(t, server.URL(), Options{})
	w := s.written(t)
	steps := openTest(t, server.URL(), Options{inSteps: true})
	for i, store := range []*opened{s, steps} {
		if i > 0 {
			w.seg = store.another(t, w.key).seg
		}
		standby(t, server, "nobody")
		done := make(chan error, 1)
		go func() {
			_, err := store.Commit(context.Background(), []commit.Segment{w.seg})
			done <- err
		}()
		eventually(t, func() bool {
			cancelled, err := server.One(t.Context(), "SELECT coalesce(bool_or(pg_cancel_backend(pid)), false)::text FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
			return err == nil && cancelled == "true"
		})
		if err := <-done; ports.KindOf(err) != ports.Ambiguous || !errors.Is(err, errNotReplicated) {
			t.Errorf("error is %v (%s), want an ambiguous one", err, ports.KindOf(err))
		}
		standby(t, server, "")
		if results, err := store.Commit(t.Context(), []commit.Segment{w.seg}); err != nil || results[0].Outcomes[0].Base != domain.Offset(10*i) {
			t.Error(results, err)
		}
		if n := store.replays(t, w.seg.ID); n != 1 {
			t.Errorf("%d replays, want one: it must write", n)
		}
	}
}

// standby sets which standby commits wait for. One that is waiting is not told.
func standby(t *testing.T, server *servers.PostgresServer, name string) {
	t.Helper()
	for _, statement := range []string{"ALTER SYSTEM SET synchronous_standby_names = '" + name + "'", "SELECT pg_reload_conf()"} {
		if err := server.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() bool {
		now, err := server.One(t.Context(), "SELECT current_setting('synchronous_standby_names')")
		return err == nil && now == name
	})
	// The backends take note at their next command.
}

func eventually(t *testing.T, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to pass")
		}
	}
}

// crash kills every process of the server at the same time, as the end of its
// machine does, and starts it again. A backend that outlives the others may wait for ever for a lock of one that
// is gone, and as long as it does the server does not start.
func crash(t *testing.T, server *servers.PostgresServer) {
	pids, err := server.One(context.Background(), "SELECT coalesce(string_agg(pid::text, ' '), '') FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
	if err != nil {
		t.Error(err)
	}
	killed := make(chan error, 1)
	go func() { killed <- server.Kill9() }()
	for _, text := range strings.Fields(pids) {
		if pid, err := strconv.Atoi(text); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have gone by itself
		}
	}
	if err := errors.Join(<-killed, server.Start()); err != nil {
		t.Error(err)
	}
}

// Writers of named producers commit through a proxy that cuts connections, to a
// server that is killed: what was acknowledged is there, once, in order.
func TestStore_LosesAndRepeatsNothingThroughCutsAndKills(t *testing.T) {
	server := servers.Postgres(t)
	proxy := faultproxy.NewPostgres(t, server.Addr())
	s := openTest(t, through(t, server.URL(), proxy.Addr()), Options{})
	topic := must[domain.Topic](t)(s.CreateTopic(t.Context(), domain.TopicSpec{Name: "orders", Partitions: 4}))
	const writers, commits = 3, 40
	acked := make(chan struct{}) // a fault follows each acknowledgement, so that there is always some progress
	var faults, group sync.WaitGroup
	faults.Go(func() {
		n := 0
		for range acked {
			switch n++; {
			case n%50 == 0:
				crash(t, server)
			case n%3 == 0:
				proxy.Cut()
			default:
				proxy.Next("commit_segments(", []faultproxy.Action{faultproxy.LoseReply, faultproxy.CutBefore}[n%2])
			}
		}
	})
	for i := range writers {
		group.Go(func() { keepWriting(t, s, topic, "writer-"+strconv.Itoa(i), commits, acked) })
	}
	group.Wait()
	close(acked)
	faults.Wait()
	proxy.Intercept(nil)
	checkInvariants(t, s)
	for _, p := range must[[]domain.PartitionState](t)(s.DescribePartitions(t.Context(), topic.ID)) {
		if p.HighWatermark != writers*commits {
			t.Errorf("partition %d has %d records, want %d", p.Partition, p.HighWatermark, writers*commits)
		}
	}
}

// keepWriting commits batches of one record to every partition, each until it is
// acknowledged, mostly in the same segment and now and then in a new one.
func keepWriting(t *testing.T, s *opened, topic domain.Topic, name string, commits int, acked chan<- struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	session := until(ctx, t, func() (ports.ProducerSession, error) { return s.RegisterProducer(ctx, name) })
	next := make([]domain.Offset, topic.Partitions)
	for n := range domain.Sequence(commits) {
		fresh := true
		var seg commit.Segment
		results := until(ctx, t, func() ([]ports.CommitResult, error) {
			if fresh {
				refs := until(ctx, t, func() ([]ports.SegmentRef, error) { return s.Reserve(ctx, 1) })
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				seg = commit.Segment{ID: refs[0].ID, Size: 1000}
				for p := range domain.PartitionID(topic.Partitions) {
					seg.Batches = append(seg.Batches, commit.Batch{Topic: topic.ID, Partition: p, Producer: session.ID, Epoch: session.Epoch,
						FirstSequence: n, Records: 1, Position: int64(64 + 100*p), Length: 100})
				}
			}
			results, err := s.Commit(ctx, []commit.Segment{seg})
			fresh = rand.IntN(3) == 0
			return results, err
		})
		if ctx.Err() != nil || results[0].Err != nil {
			t.Errorf("%s: %v, %v", name, ctx.Err(), results)
			return
		}
		for p, o := range results[0].Outcomes {
			if o.Status != commit.Accepted && o.Status != commit.Duplicate || o.Base < next[p] {
				t.Errorf("%s: batch %d of partition %d is answered %v after offset %d", name, n, p, o, next[p]-1)
			}
			next[p] = o.Base + 1
		}
		acked <- struct{}{}
	}
}

// until repeats f while its error says that it may.
func until[T any](ctx context.Context, t *testing.T, f func() (T, error)) T {
	for {
		v, err := f()
		if err == nil || ctx.Err() != nil {
			return v
		}
		if kind := ports.KindOf(err); kind == ports.Definite || kind == ports.Fatal {
			t.Errorf("%s: %v", kind, err)
			return v
		}
	}
}
