package chaos_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/adapters/fault"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/test/e2e/chaos"
	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(servers.Main(m)) }

// The driver itself, on stores in memory whose calls fail at random: what is
// wrong in it would be wrong in every run against real servers.
func TestRun_OnStoresInMemory(t *testing.T) {
	metadata, segments := memory.NewMetadata(memory.MetadataOptions{Seed: 1}), memory.NewSegments()
	topic, err := metadata.CreateTopic(t.Context(), domain.TopicSpec{Name: "orders", Partitions: 3})
	if err != nil {
		t.Fatal(err)
	}
	rates := fault.Rates{Fail: 0.01, Lose: 0.01, Repeat: 0.02, Delay: 0.05, MaxDelay: 20 * time.Millisecond}
	var healed atomic.Bool
	r := chaos.Start(t, chaos.Config{
		Open: func(context.Context) (*chaos.Reach, error) {
			if healed.Load() {
				return &chaos.Reach{Metadata: shared{metadata}, Segments: segments}, nil
			}
			if rand.N(10) == 0 {
				return nil, errors.New("not now")
			}
			reach := &chaos.Reach{
				Metadata: shared{fault.NewMetadata(metadata, fault.Random(rand.Uint64(), rates))},
				Segments: fault.NewSegments(segments, fault.Random(rand.Uint64(), rates)),
			}
			return reach.Keep(), nil
		},
		Topic: topic.Name, Partitions: topic.Partitions, Writers: 4, Readers: 2,
		Pace: 5 * time.Millisecond, Burst: 20, Lives: 300 * time.Millisecond, Seed: 1,
	})
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	<-timer.C
	healed.Store(true) // for who opens the stores from now on
	drained := r.Finish(t)
	t.Logf("%s; drained in %s", &r.Counts, drained)
	if r.Acked.Load() == 0 || r.Read.Load() < r.Acked.Load() {
		t.Error("nothing happened")
	}
}

// shared is a store that outlives those who close it.
type shared struct{ ports.MetadataStore }

func (shared) Close() error { return nil }
