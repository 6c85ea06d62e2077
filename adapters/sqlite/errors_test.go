package sqlite

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	lib "modernc.org/sqlite/lib"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/sequence"
	"github.com/streamhouse/streamhouse/ports"
)

func TestKindOf_SaysWhatTheTransactionLeft(t *testing.T) {
	const (
		transient = ports.Transient
		definite  = ports.Definite
		ambiguous = ports.Ambiguous
		fatal     = ports.Fatal
	)
	for _, c := range []struct {
		name                string
		code                int
		statement, atCommit ports.Kind
	}{
		{"busy", lib.SQLITE_BUSY, transient, ambiguous},
		{"busy recovery", lib.SQLITE_BUSY_RECOVERY, transient, ambiguous},
		{"locked", lib.SQLITE_LOCKED, transient, ambiguous},
		{"interrupted", lib.SQLITE_INTERRUPT, transient, ambiguous},
		{"out of memory", lib.SQLITE_NOMEM, transient, ambiguous},
		{"schema changed", lib.SQLITE_SCHEMA, transient, ambiguous},
		{"full", lib.SQLITE_FULL, transient, transient},
		{"read error", lib.SQLITE_IOERR_READ, transient, ambiguous},
		{"write error", lib.SQLITE_IOERR_WRITE, transient, ambiguous},
		{"no room for shared memory", lib.SQLITE_IOERR_SHMSIZE, transient, ambiguous},
		{"cannot open", lib.SQLITE_CANTOPEN, transient, ambiguous},
		{"sync failed", lib.SQLITE_IOERR_FSYNC, fatal, fatal},
		{"folder sync failed", lib.SQLITE_IOERR_DIR_FSYNC, fatal, fatal},
		{"damaged", lib.SQLITE_CORRUPT, fatal, fatal},
		{"damaged index", lib.SQLITE_CORRUPT_INDEX, fatal, fatal},
		{"checksum", lib.SQLITE_IOERR_DATA, fatal, fatal},
		{"not a database", lib.SQLITE_NOTADB, fatal, fatal},
		{"read-only", lib.SQLITE_READONLY, definite, ambiguous},
		{"read-only folder", lib.SQLITE_READONLY_DIRECTORY, definite, ambiguous},
		{"unique", lib.SQLITE_CONSTRAINT_UNIQUE, fatal, fatal},
		{"syntax", lib.SQLITE_ERROR, fatal, fatal},
		{"misuse", lib.SQLITE_MISUSE, fatal, fatal},
	} {
		if got := kindOf(c.code, atStatement); got != c.statement {
			t.Errorf("%s at a statement: %v, want %v", c.name, got, c.statement)
		}
		if got := kindOf(c.code, atCommit); got != c.atCommit {
			t.Errorf("%s at COMMIT: %v, want %v", c.name, got, c.atCommit)
		}
	}
}

func TestStore_StopsForGoodWhenARuleOfTheSchemaBreaks(t *testing.T) {
	s := newTest(t)
	createTopic(t, s, "orders", 1)
	err := s.write(t.Context(), "break", func(c *conn) error {
		return c.exec(&query{"INSERT INTO partitions VALUES (1, NULL, 0, 0, 0)"})
	})
	if ports.KindOf(err) != ports.Fatal || !errors.Is(err, domain.ErrInternal) {
		t.Fatalf("%v is %v", err, ports.KindOf(err))
	}
	_, err = s.ListTopics(t.Context())
	if ports.KindOf(err) != ports.Fatal || !strings.Contains(err.Error(), "stopped") {
		t.Fatalf("%v is %v", err, ports.KindOf(err))
	}
}

func TestStore_StopsForGoodWhenARowCannotBeRead(t *testing.T) {
	s := newTest(t)
	refs := must[[]ports.SegmentRef](t)(s.Reserve(t.Context(), 1))
	err := s.write(t.Context(), "damage", func(c *conn) error {
		return c.exec(&query{"UPDATE segments SET state = 2, outcomes = x'0199'"})
	})
	if err != nil {
		t.Fatal(err)
	}
	topic := createTopic(t, s, "orders", 1)
	_, err = s.Commit(t.Context(), []commit.Segment{fill(refs[0].ID, topic, ports.ProducerSession{ID: -1}, 0, 1)})
	if ports.KindOf(err) != ports.Fatal {
		t.Fatalf("%v is %v", err, ports.KindOf(err))
	}
}

func TestStore_StopsForGoodWhenAValueOfARowHasChanged(t *testing.T) {
	for _, change := range []string{
		"UPDATE partitions SET log_start = 1", "UPDATE partitions SET next_offset = 1 + next_offset", "UPDATE partitions SET bytes = 0",
		"UPDATE partitions SET row_crc32c = 7", "UPDATE extents SET last_offset = 10", "UPDATE extents SET base_offset = base_offset + 1",
		"UPDATE extents SET segment_no = 3 - segment_no", "UPDATE extents SET position = position + 1", "UPDATE extents SET length = 1",
		"UPDATE extents SET batches = 2", "UPDATE extents SET max_timestamp = 1 - max_timestamp", "UPDATE extents SET committed_at = 1", "UPDATE extents SET row_crc32c = 7",
		"UPDATE topics SET partitions = -1", "UPDATE topics SET partitions = 1000000",
	} {
		s := newTest(t)
		topic := createTopic(t, s, "orders", 1)
		for range 2 {
			must[[]ports.CommitResult](t)(s.Commit(t.Context(), []commit.Segment{segmentOf(t, s, topic, ports.ProducerSession{ID: commit.NoProducer}, 0, 1)}))
		}
		err := s.write(t.Context(), "damage", func(c *conn) error { return c.exec(&query{change}) })
		if err != nil {
			t.Fatal(change, err)
		}
		key := commit.PartitionKey{Topic: topic.ID}
		plans, err := s.Plan(t.Context(), []ports.PlanRequest{{PartitionKey: key, From: 5, MaxBytes: 1 << 20}})
		if err == nil {
			// What a plan does not look at, another call does.
			_, _, err = s.ExtentAt(t.Context(), key, 0)
		}
		if ports.KindOf(err) != ports.Fatal || !strings.Contains(err.Error(), "database file is damaged") {
			t.Errorf("%s: planned %v, %v", change, plans, err)
		}
		if _, err := s.ListTopics(t.Context()); ports.KindOf(err) != ports.Fatal {
			t.Errorf("%s: the store goes on: %v", change, err)
		}
	}
}

func TestUnpack_RefusesEveryFlippedBitAndEveryTruncation(t *testing.T) {
	outcomes := packOutcomes([]commit.Outcome{{Status: commit.Accepted, Base: 7}, {Status: commit.Duplicate, Base: 1 << 40}})
	state := packState(&sequence.State{Seen: true, Epoch: 3, Last: 9, Recent: []sequence.Entry{{First: 5, Last: 9, Base: 100}}})
	for name, column := range map[string]struct {
		whole []byte
		read  func([]byte) error
	}{
		"outcomes": {outcomes, func(b []byte) error { _, err := unpackOutcomes(b); return err }},
		"state":    {state, func(b []byte) error { _, err := unpackState(b); return err }},
	} {
		if err := column.read(column.whole); err != nil {
			t.Fatal(name, err)
		}
		for bit := range 8 * len(column.whole) {
			b := bytes.Clone(column.whole)
			b[bit/8] ^= 1 << (bit % 8)
			if column.read(b) == nil {
				t.Errorf("%s: flipped bit %d is not noticed", name, bit)
			}
		}
		for n := range column.whole {
			if column.read(column.whole[:n]) == nil {
				t.Errorf("%s: the first %d bytes are taken for the whole", name, n)
			}
		}
	}
}

func TestStore_RefusesToWriteToAFileThatWasRemovedOrReplaced(t *testing.T) {
	s := newTest(t)
	if err := os.Rename(s.path, s.path+".moved"); err != nil {
		t.Fatal(err)
	}
	_, err := s.CreateTopic(t.Context(), domain.TopicSpec{Name: "orders", Partitions: 1})
	if ports.KindOf(err) != ports.Fatal || !errors.Is(err, errReplaced) {
		t.Fatalf("%v is %v", err, ports.KindOf(err))
	}
}

func TestWrite_OfAFailedTransactionLeavesNothing(t *testing.T) {
	s := newTest(t)
	boom := errors.New("boom")
	err := s.write(t.Context(), "fail", func(c *conn) error {
		if err := c.exec(&query{"INSERT INTO partitions VALUES (1, 0, 0, 0, 0)"}); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) || ports.KindOf(err) != ports.Transient {
		t.Fatalf("%v is %v", err, ports.KindOf(err))
	}
	err = s.read(t.Context(), "look", func(c *conn) error {
		n, err := c.value("SELECT count(*) FROM partitions")
		if n != int64(0) {
			t.Errorf("%v rows are left", n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestWrite_WaitingForAnotherWriterEndsWithItsContext(t *testing.T) {
	s := newTest(t)
	other := openTest(t, s.path)
	err := other.write(t.Context(), "hold", func(*conn) error {
		ctx, cancel := context.WithCancel(t.Context())
		waiting := make(chan error, 1)
		go func() { waiting <- s.write(ctx, "wait", func(*conn) error { return nil }) }()
		cancel()
		if err := <-waiting; ports.KindOf(err) != ports.Transient || !errors.Is(err, context.Canceled) {
			t.Errorf("%v is %v", err, ports.KindOf(err))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestWrite_WhoseContextEndsDuringCommitIsAmbiguousAndGoesOn(t *testing.T) {
	s := newTest(t)
	ctx, cancel := context.WithCancel(t.Context())
	then := make(chan struct{})
	err := s.writeThen(ctx, "commit", func(c *conn) error {
		return c.exec(&query{"INSERT INTO partitions VALUES (1, 0, 0, 0, 0)"})
	}, func() {
		cancel()
		<-then // the COMMIT has taken effect, its answer has not come yet
	})
	close(then)
	if ports.KindOf(err) != ports.Ambiguous || !errors.Is(err, context.Canceled) {
		t.Fatalf("%v is %v", err, ports.KindOf(err))
	}
	// Close waits for it.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := openTest(t, s.path)
	err = again.read(t.Context(), "look", func(c *conn) error {
		if n, _ := c.value("SELECT count(*) FROM partitions"); n != int64(1) {
			t.Errorf("%v rows", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCommit_OnAFullDiskStoresNothingAndGoesOnWhenThereIsRoom(t *testing.T) {
	s := newTest(t)
	topic := createTopic(t, s, "orders", 16)
	limit := func(pragma string) {
		t.Helper()
		err := s.write(t.Context(), "limit", func(c *conn) error {
			_, err := c.value(pragma)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	limit("PRAGMA max_page_count = 1")
	stored, refused := 0, 0
	for range 100 {
		seg := commit.Segment{}
		if refs, err := s.Reserve(t.Context(), 1); err == nil {
			seg = fill(refs[0].ID, topic, ports.ProducerSession{ID: -1}, 0, 16)
		} else if ports.KindOf(err) != ports.Transient {
			t.Fatal(err)
		}
		switch _, err := s.Commit(t.Context(), []commit.Segment{seg}); {
		case err == nil && len(seg.Batches) > 0:
			stored++
		case err != nil && ports.KindOf(err) != ports.Transient:
			t.Fatalf("%v is %v", err, ports.KindOf(err))
		default:
			refused++
		}
	}
	if stored == 0 || refused == 0 {
		t.Fatalf("%d stored, %d refused", stored, refused)
	}
	if high := int(s.highWatermark(t)); high != 10*stored {
		t.Errorf("%d commits were acknowledged, the high watermark is %d", stored, high)
	}
	limit("PRAGMA max_page_count = 100000")
	must[domain.Offset](t)(commitOnce(t.Context(), s, topic, ports.ProducerSession{ID: -1}, 0))
	checkInvariants(t, s.path)
}
