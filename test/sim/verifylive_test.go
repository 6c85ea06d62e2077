package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/adapters/codec"
	"github.com/streamhouse/streamhouse/adapters/fault"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/app/janitor"
	"github.com/streamhouse/streamhouse/app/verify"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

// TestVerify_RaisesNoFalseAlarmBesideWritersAndJanitors verifies, over and over, a log into which
// producers write and from which two janitors remove: by age, by size, whole topics, garbage, and small
// segments by compaction. Every call of everyone takes some virtual time.
func TestVerify_RaisesNoFalseAlarmBesideWritersAndJanitors(t *testing.T) {
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) { verifyBeside(t, seed) })
	}
}

func verifyBeside(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 3))
	metadata, segments := memory.NewMetadata(memory.MetadataOptions{Seed: seed + 1}), memory.NewSegments()
	var decided uint64
	slowly := func() (ports.MetadataStore, ports.SegmentStore) {
		decided += 2
		r := fault.Rates{Delay: 0.5, MaxDelay: 4 * time.Millisecond}
		return fault.NewMetadata(metadata, fault.Random(100*seed+decided, r)), fault.NewSegments(segments, fault.Random(100*seed+decided+1, r))
	}
	hasty := hastyJanitor(t)
	stop, cancel := context.WithCancel(t.Context())
	defer cancel()
	names := []string{"kept", "aged", "sized", "short-lived"}
	create := func(name string) {
		keep := map[string]domain.Retention{"aged": {Age: 700 * time.Millisecond}, "sized": {Bytes: 3000}}[name]
		if _, err := metadata.CreateTopic(t.Context(), domain.TopicSpec{Name: name, Partitions: 3, Retention: keep}); err != nil {
			t.Error(err)
		}
	}
	for _, name := range names {
		create(name)
	}
	var wg sync.WaitGroup
	for n := range 2 {
		m, s := slowly()
		wg.Go(func() { produceUntil(stop, t, m, s, seed+uint64(n), names) })
	}
	var janitors []*janitor.Janitor
	for range 2 {
		m, s := slowly()
		j := janitor.New(m, s, ports.NoTelemetry{}, hasty)
		janitors = append(janitors, j)
		wg.Go(func() { j.Run(stop) })
	}
	wg.Go(func() {
		for sleepUntil(stop, time.Second) {
			topic, err := metadata.Topic(t.Context(), "short-lived")
			if err = errors.Join(err, metadata.DeleteTopic(t.Context(), topic.ID)); err != nil {
				t.Error(err)
			}
			create("short-lived")
		}
	})
	var checked, extents int
	for n := range 30 {
		m, s := slowly()
		o := verify.Options{
			PageRows: 8 + random.IntN(40), MemoryExtents: 20 + random.IntN(200), Workers: 1 + random.IntN(4),
			Records: true, Codecs: []batch.Codec{codec.NewLZ4()},
		}
		r, err := verify.Run(t.Context(), m, s, o)
		if err != nil || !r.OK() || r.Unsettled > 0 || r.Foreign.Count > 0 {
			t.Errorf("seed %d, walk %d: %v, %+v", seed, n, err, r)
			break
		}
		checked, extents = checked+r.Checked, extents+r.Extents
	}
	cancel()
	wg.Wait()
	if checked < 100 || extents < 500 {
		t.Errorf("seed %d: only %d segments and %d extents were checked", seed, checked, extents)
	}
	for _, j := range janitors {
		for _, s := range j.Status() {
			if s.LastSuccess.IsZero() {
				t.Errorf("seed %d: no pass of %s went through: %v", seed, s.Loop, s.Err)
			}
		}
	}
	if err := metadata.Snapshot().Check(); err != nil {
		t.Error(err)
	}
}

// hastyJanitor makes everything go within a second.
func hastyJanitor(t *testing.T) janitor.Config {
	cfg := janitor.DefaultConfig()
	cfg.Interval, cfg.SweepInterval = 60*time.Millisecond, 300*time.Millisecond
	cfg.ReservationGrace, cfg.DeleteGrace, cfg.ForgetAfter = 500*time.Millisecond, 20*time.Millisecond, 200*time.Millisecond
	cfg.SweepAge, cfg.SweepShare = 500*time.Millisecond, 1
	cfg.CompactAfter, cfg.CompactFanIn, cfg.CompactBytesPerSecond = 50*time.Millisecond, 4, 0
	cfg.StepRows = 20
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// produceUntil sends records to all topics until stop ends. That a topic was
// deleted under a record is no failure.
func produceUntil(stop context.Context, t *testing.T, m ports.MetadataStore, s ports.SegmentStore, seed uint64, names []string) {
	random := rand.New(rand.NewPCG(seed, 4))
	p, err := streamhouse.NewProducerBuilder().MetadataStore(m).SegmentStore(s).Build(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	for n := 0; sleepUntil(stop, time.Duration(random.Int64N(int64(40*time.Millisecond)))); n++ {
		for range 1 + random.IntN(6) {
			value := fmt.Sprintf("record %d %0*d", n, random.IntN(200), n)
			r := domain.Record{Topic: names[random.IntN(len(names))], Key: []byte(value[:8]), Value: []byte(value)}
			p.SendAsync(t.Context(), r, nil)
		}
	}
	if err := p.Close(t.Context()); err != nil && !errors.Is(err, domain.ErrTopicNotFound) {
		t.Errorf("close: %v", err)
	}
}

// sleepUntil sleeps for d. It reports false if stop has ended.
func sleepUntil(stop context.Context, d time.Duration) bool {
	time.Sleep(d)
	return stop.Err() == nil
}
