package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

func serverSays(code string) error {
	return fmt.Errorf("query: %w", &pgconn.PgError{Severity: "ERROR", Code: code, Message: "as told"})
}

func TestJudge_KnowsWhetherACallHadItsEffect(t *testing.T) {
	const none = ports.Kind(99)
	for _, c := range []struct {
		err                              error
		reading, undone, sent, completed ports.Kind
	}{
		{serverSays("40001"), ports.Transient, ports.Transient, ports.Transient, ports.Ambiguous},
		{serverSays("40P01"), ports.Transient, ports.Transient, ports.Transient, ports.Ambiguous},
		{serverSays("55P03"), ports.Transient, ports.Transient, ports.Transient, ports.Ambiguous},
		{serverSays("57014"), ports.Transient, ports.Transient, ports.Transient, ports.Ambiguous},
		{serverSays("57P01"), ports.Transient, ports.Transient, ports.Transient, ports.Ambiguous},
		{serverSays("57P03"), ports.Transient, ports.Transient, ports.Transient, ports.Ambiguous},
		{serverSays("53300"), ports.Transient, ports.Transient, ports.Transient, ports.Ambiguous},
		{serverSays("53100"), ports.Transient, ports.Transient, ports.Transient, ports.Ambiguous},
		{serverSays("25006"), ports.Transient, ports.Transient, ports.Transient, ports.Ambiguous},
		{serverSays("23505"), ports.Fatal, ports.Fatal, ports.Fatal, ports.Fatal},
		{serverSays("42P01"), ports.Fatal, ports.Fatal, ports.Fatal, ports.Fatal},
		{serverSays("XX001"), ports.Fatal, ports.Fatal, ports.Fatal, ports.Fatal},
		{serverSays("42501"), ports.Definite, ports.Definite, ports.Definite, ports.Ambiguous},
		{io.ErrUnexpectedEOF, ports.Transient, ports.Transient, ports.Ambiguous, ports.Ambiguous},
		{context.DeadlineExceeded, ports.Transient, ports.Transient, ports.Ambiguous, ports.Ambiguous},
		{errNotReplicated, none, none, none, ports.Ambiguous},
		{damaged("so it is"), ports.Fatal, ports.Fatal, none, none},
	} {
		for p, want := range map[phase]ports.Kind{reading: c.reading, undone: c.undone, sent: c.sent, completed: c.completed} {
			if got, _ := judge(p, c.err); want != none && got != want {
				t.Errorf("%v in phase %d is %s, want %s", c.err, p, got, want)
			}
		}
	}
}

// failing makes the next n writes to the store's table of segments fail with
// the SQLSTATE. A sequence counts them, since it is not rolled back.
func (o *opened) failing(t *testing.T, code string, n int) {
	t.Helper()
	o.execute(t, "DROP SEQUENCE IF EXISTS test_failures")
	o.execute(t, "CREATE SEQUENCE test_failures")
	o.execute(t, fmt.Sprintf(`CREATE OR REPLACE FUNCTION test_fail() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN IF nextval(''test_failures'') <= %d THEN RAISE EXCEPTION ''as told'' USING ERRCODE = %s; END IF; RETURN NEW; END'`, n, "''"+code+"''"))
	o.execute(t, "CREATE OR REPLACE TRIGGER test_fail BEFORE UPDATE ON segments FOR EACH ROW EXECUTE FUNCTION test_fail()")
}

// written is a topic of one partition and a segment with one batch for it.
type written struct {
	key commit.PartitionKey
	seg commit.Segment
}

func (o *opened) written(t testing.TB) written {
	t.Helper()
	topic := must[domain.Topic](t)(o.CreateTopic(t.Context(), domain.TopicSpec{Name: "orders", Partitions: 1}))
	return o.another(t, commit.PartitionKey{Topic: topic.ID})
}

// another is a further segment for the partition.
func (o *opened) another(t testing.TB, key commit.PartitionKey) written {
	t.Helper()
	refs := must[[]ports.SegmentRef](t)(o.Reserve(t.Context(), 1))
	return written{key, commit.Segment{ID: refs[0].ID, Size: 164, Batches: []commit.Batch{{
		Topic: key.Topic, Partition: key.Partition, Producer: commit.NoProducer, Records: 10, Position: 64, Length: 100,
	}}}}
}

func (o *opened) high(t testing.TB, key commit.PartitionKey) domain.Offset {
	t.Helper()
	return must[[]ports.Plan](t)(o.Plan(t.Context(), []ports.PlanRequest{{PartitionKey: key}}))[0].HighWatermark
}

func (w written) commit(ctx context.Context, s ports.MetadataStore) error {
	results, err := s.Commit(ctx, []commit.Segment{w.seg})
	if err != nil {
		return err
	}
	if results[0].Err != nil {
		return results[0].Err
	}
	if o := results[0].Outcomes[0]; o != (commit.Outcome{Status: commit.Accepted}) {
		return fmt.Errorf("outcome is %v, want the first offsets", o)
	}
	return nil
}

// bothWays runs f on a store that commits by the function, and on one that commits in steps.
func bothWays(t *testing.T, f func(t *testing.T, s *opened)) {
	for name, o := range map[string]Options{"one statement": {}, "in steps": {inSteps: true}} {
		t.Run(name, func(t *testing.T) { f(t, newTest(t, o)) })
	}
}

func TestCommit_IsRepeatedWhenOthersWereInTheWay(t *testing.T) {
	bothWays(t, func(t *testing.T, s *opened) {
		w := s.written(t)
		for i, code := range []string{"40001", "40P01", "55P03", "57014"} {
			s.failing(t, code, 3)
			if i > 0 {
				w.seg = s.another(t, w.key).seg
			}
			results, err := s.Commit(t.Context(), []commit.Segment{w.seg})
			if err != nil || results[0].Outcomes[0].Base != domain.Offset(10*i) {
				t.Errorf("after three times %s: %v, %v", code, results, err)
			}
		}
	})
}

func TestCommit_ThatTheServerRefusesHasNoEffectAndSaysSo(t *testing.T) {
	bothWays(t, func(t *testing.T, s *opened) {
		w := s.written(t)
		for code, sentence := range map[string]string{
			"40001": "as told", "40P01": "as told", "55P03": "holds a lock", "57014": "as told", "57P01": "shut down", "57P03": "starting up",
			"53300": "no connection left", "53100": "disk is full", "53200": "out of memory", "25006": "read-only",
		} {
			s.failing(t, code, 1000)
			err := w.commit(t.Context(), s)
			if ports.KindOf(err) != ports.Transient || !errors.Is(err, domain.ErrMetadata) || !strings.Contains(err.Error(), sentence) {
				t.Errorf("%s: error is %v (%s), want a transient one that says %q", code, err, ports.KindOf(err), sentence)
			}
			if high := s.high(t, w.key); high != 0 {
				t.Fatalf("%s: high watermark is %d", code, high)
			}
		}
		s.failing(t, "", 0)
		if err := w.commit(t.Context(), s); err != nil {
			t.Error(err)
		}
	})
}

func TestStore_StopsForGoodOnItsOwnBugs(t *testing.T) {
	for _, code := range []string{"23505", "42P01", "22003"} {
		bothWays(t, func(t *testing.T, s *opened) {
			w := s.written(t)
			s.failing(t, code, 1)
			if err := w.commit(t.Context(), s); ports.KindOf(err) != ports.Fatal || !errors.Is(err, domain.ErrInternal) {
				t.Errorf("%s: error is %v (%s), want a fatal one", code, err, ports.KindOf(err))
			}
			for range 2 {
				if err := w.commit(t.Context(), s); ports.KindOf(err) != ports.Fatal || !strings.Contains(err.Error(), "has stopped") {
					t.Errorf("%s: then the error is %v", code, err)
				}
			}
			if _, err := s.ListTopics(t.Context()); ports.KindOf(err) != ports.Fatal {
				t.Errorf("a read gives %v", err)
			}
			if high := openTest(t, s.url, Options{}).high(t, w.key); high != 0 {
				t.Errorf("high watermark is %d", high)
			}
		})
	}
}

// A lock that is held for longer than lock_timeout is told by the server, and
// one that is held for longer than statement_timeout too.
func TestCommit_DoesNotWaitForeverForALock(t *testing.T) {
	for _, limit := range []string{"lock_timeout", "statement_timeout"} {
		t.Run(limit, func(t *testing.T) {
			s := newTest(t, Options{})
			w := s.written(t)
			impatient := openTest(t, with(t, s.url, limit, "400"), Options{})
			holder := s.connect(t)
			defer closeConn(holder)
			if _, err := holder.Exec(t.Context(), "BEGIN; SELECT * FROM partitions FOR UPDATE"); err != nil {
				t.Fatal(err)
			}
			if err := w.commit(t.Context(), impatient); ports.KindOf(err) != ports.Transient {
				t.Errorf("error is %v (%s), want a transient one", err, ports.KindOf(err))
			}
			if _, err := holder.Exec(t.Context(), "ROLLBACK"); err != nil {
				t.Fatal(err)
			}
			if err := w.commit(t.Context(), impatient); err != nil {
				t.Error(err)
			}
		})
	}
}

// The caller leaves, and the commit that is on its way goes on.
func TestCommit_WhoseCallerLeavesIsAmbiguousAndFinishes(t *testing.T) {
	s := newTest(t, Options{})
	w := s.written(t)
	holder := s.connect(t)
	defer closeConn(holder)
	if _, err := holder.Exec(t.Context(), "BEGIN; SELECT * FROM partitions FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := w.commit(ctx, s); ports.KindOf(err) != ports.Ambiguous || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v (%s), want an ambiguous one", err, ports.KindOf(err))
	}
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	if _, err := holder.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	again := openTest(t, s.url, Options{})
	if high := again.high(t, w.key); high != 10 {
		t.Errorf("high watermark is %d: Close did not wait for the commit", high)
	}
	if err := w.commit(t.Context(), again); err != nil {
		t.Error(err)
	}
}
