package sqlite

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// administered is what a topic looks like from outside.
type administered struct {
	partitions  int32
	start, high domain.Offset // of partition 0
}

// adminSteps is how many steps the life of a topic has. The topic of round i is made,
// filled, widened and trimmed, and then the one of round i-2 deleted.
const adminSteps = 5

func adminTopic(round int) string { return fmt.Sprintf("topic-%d", round) }

// after returns what the first n steps leave.
func after(n int) map[string]administered {
	topics := make(map[string]administered)
	for step := range n {
		round := step / adminSteps
		name := adminTopic(round)
		t := topics[name]
		switch step % adminSteps {
		case 0:
			t.partitions = 2
		case 1:
			t.high = 10
		case 2:
			t.partitions = 4
		case 3:
			t.start = 7
		case 4:
			delete(topics, adminTopic(round-2))
		}
		topics[name] = t
	}
	return topics
}

// administer takes one step.
func administer(ctx context.Context, s *Store, step int) error {
	round := step / adminSteps
	name := adminTopic(round)
	if step%adminSteps == 0 {
		_, err := s.CreateTopic(ctx, domain.TopicSpec{Name: name, Partitions: 2})
		return err
	}
	if step%adminSteps == 4 {
		if round < 2 {
			return nil
		}
		name = adminTopic(round - 2)
	}
	topic, err := s.Topic(ctx, name)
	if err != nil {
		return err
	}
	switch step % adminSteps {
	case 1:
		_, err = commitOnce(ctx, s, topic, ports.ProducerSession{ID: commit.NoProducer}, 0)
	case 2:
		_, err = s.WidenTopic(ctx, topic.ID, 4)
	case 3:
		_, err = s.Trim(ctx, commit.PartitionKey{Topic: topic.ID}, 7)
	case 4:
		err = s.DeleteTopic(ctx, topic.ID)
	}
	return err
}

// administerForEver takes one step after the other and prints how many it has
// taken.
func administerForEver(ctx context.Context, path string) error {
	s, err := Open(ctx, path, Options{})
	if err != nil {
		return err
	}
	for step := 0; ; step++ {
		if err := administer(ctx, s, step); err != nil {
			return err
		}
		fmt.Println(step + 1)
	}
}

func TestStore_KeepsTopicsWhenAProcessIsKilledWhileItChangesThem(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 18))
	for round := range 10 {
		path := filepath.Join(t.TempDir(), "metadata.db")
		p := startRole(t, "administer", path)
		p.next()
		for range random.IntN(50) {
			p.next()
		}
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		last := p.lines.Text()
		for p.lines.Scan() {
			last = p.lines.Text()
		}
		_ = p.cmd.Wait() // It was killed.
		var taken int
		if _, err := fmt.Sscan(last, &taken); err != nil {
			t.Fatal(last, err)
		}
		s := must[*Store](t)(Open(t.Context(), path, Options{}))
		got := s.administered(t)
		if !maps.Equal(got, after(taken)) && !maps.Equal(got, after(taken+1)) {
			t.Errorf("round %d: %d steps were acknowledged, and it holds %v, want %v or %v", round, taken, got, after(taken), after(taken+1))
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		checkInvariants(t, path)
	}
}

func (s *Store) administered(t *testing.T) map[string]administered {
	t.Helper()
	topics := make(map[string]administered)
	for _, topic := range must[[]domain.Topic](t)(s.ListTopics(t.Context())) {
		states := must[[]domain.PartitionState](t)(s.DescribePartitions(t.Context(), topic.ID))
		if len(states) != int(topic.Partitions) {
			t.Errorf("topic %s has %d partitions, %d are described", topic.Name, topic.Partitions, len(states))
		}
		topics[topic.Name] = administered{topic.Partitions, states[0].LogStart, states[0].HighWatermark}
	}
	return topics
}
