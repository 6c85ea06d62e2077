package producer

import (
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/streamhouse/streamhouse/domain"
)

// Those who wait when a callback turns out to be slow are looked after by
// somebody else, however many are slow.
func TestCallers_ASlowCallbackHoldsUpItsPartitionOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const partitions, slow = 8, 3
		w := newWire(t)
		w.topic(t, partitions)
		p := w.open(t, nil)
		if _, err := p.Send(t.Context(), value("looks the topic up")); err != nil {
			t.Fatal(err)
		}
		var called atomic.Int32
		end := make(chan struct{})
		var waiting []*partition
		for id := range domain.PartitionID(partitions) {
			wait := func(domain.SendResult, error) { called.Add(1) }
			if id < slow {
				wait = func(domain.SendResult, error) { <-end }
			}
			part := p.topics.find("t").partition(id)
			part.mu.Lock()
			part.completions, part.calling = []*outgoing{settled(t, part, wait)}, true
			part.mu.Unlock()
			waiting = append(waiting, part)
		}
		p.callers.mu.Lock()
		p.callers.queue = waiting // before anybody looks
		p.callers.summon()
		p.callers.mu.Unlock()
		synctest.Wait()
		if n := called.Load(); n != partitions-slow {
			t.Errorf("%d callbacks ran beside the slow ones, want %d", n, partitions-slow)
		}
		close(end)
	})
}

// settled returns a batch of part whose fate is known and whose callback is to run.
func settled(t *testing.T, part *partition, callback Callback) *outgoing {
	t.Helper()
	group, err := part.p.generations.begin()
	if err != nil {
		t.Fatal(err)
	}
	o := &outgoing{part: part, group: group, count: 1, done: make(chan struct{}), over: true}
	o.callbacks = []pendingCallback{{call: callback}}
	close(o.done)
	return o
}
