package direct

import (
	"context"
	"time"

	"github.com/streamhouse/streamhouse/ports"
)

// reserve is the stock of segment ids. Writer.mu guards it.
type reserve struct {
	refs []reserved
	last int // how many were reserved the last time
	// filling is closed at the end of the call that reserves more, err is how
	// the last one failed.
	filling chan struct{}
	err     error
}

type reserved struct {
	ports.SegmentRef
	at time.Time
}

// takeRef returns an id from the stock. It waits only if there is none, and has
// the stock filled up before it is empty.
func (w *Writer) takeRef(ctx context.Context) (ports.SegmentRef, error) {
	for {
		ref, filling, ok := w.nextRef()
		if ok {
			return ref, nil
		}
		select {
		case <-filling:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return ports.SegmentRef{}, ctx.Err()
		}
		w.mu.Lock()
		err := w.ids.err
		w.mu.Unlock()
		if err != nil {
			return ports.SegmentRef{}, err
		}
	}
}

func (w *Writer) nextRef() (ref ports.SegmentRef, filling chan struct{}, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := &w.ids
	for len(ids.refs) > 0 && time.Since(ids.refs[0].at) > reserveAge {
		ids.refs = ids.refs[1:]
	}
	if len(ids.refs) > 0 {
		ref, ok = ids.refs[0].SegmentRef, true
		ids.refs = ids.refs[1:]
	}
	if (!ok || len(ids.refs) < ids.last/2) && ids.filling == nil {
		ids.filling = make(chan struct{})
		n := min(max(reserveFirst, 2*ids.last), reserveMost)
		w.start(func() { w.fill(n) })
	}
	return ref, ids.filling, ok
}

// fill reserves n ids.
func (w *Writer) fill(n int) {
	ctx, cancel := context.WithTimeout(w.ctx, w.cfg.CommitTimeout)
	defer cancel()
	start := time.Now()
	refs, err := w.log.Reserve(ctx, n)
	w.tel.Record(ports.Event{Kind: ports.SegmentReserve, Duration: time.Since(start), Count: len(refs), Err: err})

	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range refs {
		w.ids.refs = append(w.ids.refs, reserved{r, start})
	}
	if err == nil {
		w.ids.last = n
	}
	w.ids.err = err
	close(w.ids.filling)
	w.ids.filling = nil
}
