package verify_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/fault"
	"github.com/streamhouse/streamhouse/app/verify"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

var liveSeeds = flag.Uint64("live", 12, "how many seeds of a log that is in use are verified")

// live is a log in use: everything that can happen to it happens all the time,
// between any two calls of verify.
type live struct {
	*world
	stop context.Context
	wg   sync.WaitGroup
	seed uint64

	mu     sync.Mutex // guards topics
	topics []domain.Topic

	committed, trimmed, compacted, collected, purged atomic.Int64
}

// loop does a step over and over, after pauses of up to d.
func (l *live) loop(d time.Duration, step func(*rand.Rand)) {
	l.seed++
	random := rand.New(rand.NewPCG(l.seed, 0))
	l.wg.Go(func() {
		for {
			time.Sleep(time.Duration(random.Int64N(int64(d))))
			if l.stop.Err() != nil {
				return
			}
			step(random)
		}
	})
}

// partition picks one.
func (l *live) partition(random *rand.Rand) commit.PartitionKey {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.topics[random.IntN(len(l.topics))]
	return commit.PartitionKey{Topic: t.ID, Partition: domain.PartitionID(random.Int32N(t.Partitions))}
}

func (l *live) write(random *rand.Rand) {
	ref := l.reserve()
	parts := map[commit.PartitionKey]part{}
	for range 1 + random.IntN(5) {
		key := l.partition(random)
		parts[key] = part{key, append(parts[key].batches, 1+random.IntN(3))}
	}
	all := []part{}
	for _, p := range parts {
		all = append(all, p)
	}
	object, s, err := build(l.meta.ClusterID(), ref.ID, nil, all...)
	l.ok(err)
	l.ok(l.store.Put(l.Context(), ref.Key, object))
	if random.IntN(10) == 0 {
		return // the writer has died
	}
	time.Sleep(time.Duration(random.Int64N(int64(20 * time.Millisecond))))
	results, err := l.meta.Commit(l.Context(), []commit.Segment{s})
	l.ok(err)
	if results[0].Err == nil { // else it took too long and is garbage
		l.committed.Add(1)
	}
}

func (l *live) trim(random *rand.Rand) {
	key := l.partition(random)
	plans, err := l.meta.Plan(l.Context(), []ports.PlanRequest{{PartitionKey: key}})
	l.ok(err)
	p := plans[0]
	if n := int64(p.HighWatermark - p.LogStart); p.Err == nil && n > 0 {
		_, err := l.meta.Trim(l.Context(), key, p.LogStart+domain.Offset(random.Int64N(n)+1))
		if err == nil {
			l.trimmed.Add(1)
		}
	}
}

// compact puts a few neighbours together.
func (l *live) compact(random *rand.Rand) {
	key := l.partition(random)
	extents, err := l.meta.Extents(l.Context(), ports.ExtentPlace{PartitionKey: key, Base: -1}, 2+random.IntN(6))
	l.ok(err)
	extents = slices.DeleteFunc(extents, func(e ports.ExtentRef) bool { return e.Key() != key })
	if len(extents) < 2 {
		return
	}
	ref := l.reserve()
	out := segment.NewWriter(nil, l.meta.ClusterID(), ref.ID)
	cp := commit.Copy{Position: segment.HeaderSize}
	for _, e := range extents {
		b, err := l.store.ReadRange(l.Context(), e.ObjectKey, e.Position, e.Length)
		if err != nil {
			return // trimmed and collected meanwhile
		}
		for len(b) > 0 {
			h, err := batch.ParseHeader(b)
			l.ok(err)
			_, err = out.Add(key.Topic, key.Partition, b[:h.Length])
			l.ok(err)
			b = b[h.Length:]
		}
		cp.Of = append(cp.Of, e.Extent)
	}
	object, crc, err := out.Close()
	l.ok(err)
	l.ok(l.store.Put(l.Context(), ref.Key, object))
	held, err := l.meta.Replace(l.Context(), commit.Compaction{ID: ref.ID, Size: int64(len(object)), CRC32C: crc, Copies: []commit.Copy{cp}})
	if err == nil {
		l.compacted.Add(int64(held))
	}
}

func (l *live) collect(*rand.Rand) {
	ctx := l.Context()
	_, err := l.meta.ExpireReservations(ctx, 100*time.Millisecond, 100)
	l.ok(err)
	_, err = l.meta.ForgetDeleted(ctx, 30*time.Millisecond, 100)
	l.ok(err)
	garbage, err := l.meta.Garbage(ctx, 10*time.Millisecond, domain.SegmentID{}, 100)
	l.ok(err)
	var ids []domain.SegmentID
	for _, g := range garbage {
		l.ok(l.store.Delete(ctx, g.Key))
		ids = append(ids, g.ID)
	}
	if len(ids) > 0 {
		l.ok(l.meta.MarkDeleted(ctx, ids))
		l.collected.Add(int64(len(ids)))
	}
}

// administer replaces one topic of three by another, or widens it.
func (l *live) administer(random *rand.Rand) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := random.IntN(len(l.topics))
	t := l.topics[i]
	if random.IntN(2) == 0 {
		wider, err := l.meta.WidenTopic(l.Context(), t.ID, t.Partitions+1)
		l.ok(err)
		l.topics[i] = wider
		return
	}
	l.ok(l.meta.DeleteTopic(l.Context(), t.ID))
	l.topics[i] = l.topic(t.Name, 1+random.Int32N(3))
	removed, err := l.meta.PurgeTopics(l.Context(), 1+random.IntN(50))
	l.ok(err)
	l.purged.Add(int64(removed.Extents))
}

// slowly lets calls arrive late, and their answers, so that much happens
// between any two of them.
func slowly(seed uint64) fault.Interceptor {
	return fault.Random(seed, fault.Rates{Delay: 0.5, MaxDelay: 6 * time.Millisecond})
}

func TestRun_RaisesNoFalseAlarmOnALogInUse(t *testing.T) {
	for seed := range *liveSeeds {
		synctest.Test(t, func(t *testing.T) {
			stop, cancel := context.WithCancel(t.Context())
			l := &live{world: newWorld(t), stop: stop, seed: 100 * (seed + 1)}
			l.topics = []domain.Topic{l.topic("a", 2), l.topic("b", 3), l.topic("c", 1)}
			l.loop(60*time.Millisecond, l.write)
			l.loop(60*time.Millisecond, l.write)
			l.loop(60*time.Millisecond, l.trim)
			l.loop(30*time.Millisecond, l.compact)
			l.loop(20*time.Millisecond, l.collect)
			l.loop(700*time.Millisecond, l.administer)
			random := rand.New(rand.NewPCG(seed, 1))
			extents, checked := 0, 0
			for n := range uint64(40) {
				o := verify.Options{PageRows: 4 + random.IntN(12), MemoryExtents: 1 + random.IntN(60), Workers: 1 + random.IntN(4), Records: true}
				r, err := verify.Run(t.Context(), fault.NewMetadata(l.meta, slowly(seed+n)), fault.NewSegments(l.store, slowly(seed-n)), o)
				if err != nil || !r.OK() || r.Orphans.Count > 0 || r.Foreign.Count > 0 {
					t.Errorf("seed %d, walk %d with %+v: %v\n%s", seed, n, o, err, words(t, r))
					break
				}
				extents, checked = extents+r.Extents, checked+r.Checked
			}
			cancel()
			l.wg.Wait()
			l.ok(l.meta.Snapshot().Check())
			l.shown.MetadataStore = l.meta
			l.clean()
			for what, n := range map[string]int64{
				"committed": l.committed.Load(), "trimmed": l.trimmed.Load(), "compacted": l.compacted.Load(),
				"collected": l.collected.Load(), "purged": l.purged.Load(), "extents": int64(extents), "checked": int64(checked),
			} {
				if n < 1 {
					t.Errorf("seed %d: %d %s", seed, n, what)
				}
			}
		})
	}
}

// What is damaged is found on a log in use as well.
func TestRun_FindsDamageInALogInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop, cancel := context.WithCancel(t.Context())
		l := &live{world: newWorld(t), stop: stop, seed: 1}
		kept := l.topic("kept", 2)
		l.topics = []domain.Topic{l.topic("a", 2), kept}
		missing, broken := l.commit(of(kept, 0, 1, 2)), l.commit(of(kept, 1, 4))
		l.rewrite(missing, nil)
		b := l.object(broken)
		b[segment.HeaderSize+80] ^= 1
		l.rewrite(broken, b)
		l.loop(50*time.Millisecond, l.write)
		l.loop(10*time.Millisecond, l.collect)
		for n := range uint64(10) {
			time.Sleep(50 * time.Millisecond)
			r, err := verify.Run(t.Context(), fault.NewMetadata(l.meta, slowly(n)), fault.NewSegments(l.store, slowly(n+100)), verify.Options{PageRows: 40, MemoryExtents: 100})
			if err != nil || r.ProblemCount != 2 || r.Problems[0].Kind != verify.MissingObject || r.Problems[1].Kind != verify.CorruptObject {
				t.Fatalf("walk %d: %+v, %v", n, r, err)
			}
		}
		cancel()
		l.wg.Wait()
	})
}
