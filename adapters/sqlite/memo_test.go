package sqlite

import (
	"context"
	"testing"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// A commit must not decide on what it remembers of the one before, if anything was
// written in between, by another store on the file or by the same.
func TestCommit_ReadsAgainWhatWasWrittenMeanwhile(t *testing.T) {
	type world struct {
		topic domain.Topic
		p     ports.ProducerSession
	}
	for _, c := range []struct {
		name string
		// meanwhile happens between the commits of records 0-9 and 10-19.
		meanwhile func(ctx context.Context, s *Store, w world) error
		want      commit.Outcome
		logStart  domain.Offset
	}{
		{"nothing", func(context.Context, *Store, world) error { return nil }, commit.Outcome{Status: commit.Accepted, Base: 10}, 0},
		{"the same records", func(ctx context.Context, s *Store, w world) error {
			_, err := commitOnce(ctx, s, w.topic, w.p, 10)
			return err
		}, commit.Outcome{Status: commit.Duplicate, Base: 10}, 0},
		{"records of another producer", func(ctx context.Context, s *Store, w world) error {
			other, err := s.RegisterProducer(ctx, "")
			if err == nil {
				_, err = commitOnce(ctx, s, w.topic, other, 0)
			}
			return err
		}, commit.Outcome{Status: commit.Accepted, Base: 20}, 0},
		{"a trim", func(ctx context.Context, s *Store, w world) error {
			_, err := s.Trim(ctx, commit.PartitionKey{Topic: w.topic.ID}, 10)
			return err
		}, commit.Outcome{Status: commit.Accepted, Base: 10}, 10},
		{"the records are given up", func(ctx context.Context, s *Store, w world) error {
			stream := commit.StreamKey{Producer: w.p.ID, PartitionKey: commit.PartitionKey{Topic: w.topic.ID}}
			_, err := s.AbandonBatch(ctx, ports.AbandonedBatch{StreamKey: stream, Epoch: w.p.Epoch, FirstSequence: 10, Records: 10})
			return err
		}, commit.Outcome{Status: commit.DuplicateForgotten, Base: -1}, 0},
		{"a newer session", func(ctx context.Context, s *Store, _ world) error {
			_, err := s.RegisterProducer(ctx, "w")
			return err
		}, commit.Outcome{Status: commit.Fenced, Base: -1}, 0},
		{"the topic is deleted", func(ctx context.Context, s *Store, w world) error {
			return s.DeleteTopic(ctx, w.topic.ID)
		}, commit.Outcome{Status: commit.NoPartition, Base: -1}, -1},
	} {
		for _, by := range []string{"the same store", "another store"} {
			t.Run(c.name+" by "+by, func(t *testing.T) {
				path := newFile(t)
				s := openTest(t, path)
				other := s
				if by == "another store" {
					other = openTest(t, path)
				}
				w := world{topic: createTopic(t, s, "orders", 1), p: must[ports.ProducerSession](t)(s.RegisterProducer(t.Context(), "w"))}
				// The second segment is reserved before, so that nothing else is written.
				first, second := segmentOf(t, s, w.topic, w.p, 0, 1), segmentOf(t, s, w.topic, w.p, 10, 1)
				must[[]ports.CommitResult](t)(s.Commit(t.Context(), []commit.Segment{first}))
				if err := c.meanwhile(t.Context(), other, w); err != nil {
					t.Fatal(err)
				}
				got := must[[]ports.CommitResult](t)(s.Commit(t.Context(), []commit.Segment{second}))
				if o := got[0].Outcomes[0]; o != c.want {
					t.Errorf("the commit after it answers %v, want %v", o, c.want)
				}
				if c.logStart < 0 {
					return
				}
				states := must[[]domain.PartitionState](t)(s.DescribePartitions(t.Context(), w.topic.ID))
				if states[0].LogStart != c.logStart {
					t.Errorf("the log starts at %d, want %d", states[0].LogStart, c.logStart)
				}
			})
		}
	}
}

// What touches neither partitions nor sequences does not make a commit's rows
// forgotten. With a commit that fails its connection goes, and all that it remembers.
func TestCommit_RemembersWhatItHasWritten(t *testing.T) {
	s := newTest(t)
	topic := createTopic(t, s, "orders", 3)
	p := must[ports.ProducerSession](t)(s.RegisterProducer(t.Context(), ""))
	remembered := func() int {
		c := <-s.writer
		defer func() { s.writer <- c }()
		if c == nil || c.memo == nil {
			return 0
		}
		return len(c.memo.streams)
	}
	must[domain.Offset](t)(commitOnce(t.Context(), s, topic, p, 0))
	agent := must[ports.Agent](t)(s.Register(t.Context(), ports.AgentSpec{Group: "g", Address: "a:1"}))
	must[domain.Offset](t)(commitOnce(t.Context(), s, topic, p, 10))
	if err := s.Heartbeat(t.Context(), agent.ID, false); err != nil {
		t.Fatal(err)
	}
	must[[]ports.SegmentRef](t)(s.Reserve(t.Context(), 1))
	if n := remembered(); n != 3 {
		t.Errorf("%d streams are remembered, want 3", n)
	}
	next := segmentOf(t, s, topic, p, 20, 3)
	c := <-s.writer
	s.writer <- c
	if err := c.run("CREATE TEMP TRIGGER refuse BEFORE INSERT ON main.producer_partitions BEGIN SELECT RAISE(FAIL, 'refused'); END"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), []commit.Segment{next}); err == nil {
		t.Fatal("the commit took effect")
	}
	if n := remembered(); n != 0 {
		t.Errorf("%d streams are remembered of a commit that failed", n)
	}
}
