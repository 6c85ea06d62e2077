package main

import (
	"context"
	"io"
	"sync"
	"time"
)

const (
	// outboxLimit is how many bytes may wait for the writer before room waits.
	outboxLimit = 4 << 20
	// outboxPause is the least time between two writes, so that busy output
	// leaves in large pieces. The first one after a pause leaves at once.
	outboxPause = time.Millisecond
)

// outbox takes output from any goroutine and writes it in order, as soon as the
// writer is free: what is slow to take it delays nobody who appends.
//
// One goroutine writes; it begins with newOutbox and ends with close.
type outbox struct {
	w    io.Writer
	wake chan struct{}
	done chan struct{}

	mu      sync.Mutex
	drained sync.Cond // on mu: signalled after each write
	pending []byte
	spare   []byte
	closed  bool
	err     error // of the first write that failed; nothing is written after it
	onError func(error)
}

// newOutbox starts an outbox. onError, if not nil, is called once, from the
// writing goroutine, when a write fails.
func newOutbox(w io.Writer, onError func(error)) *outbox {
	o := &outbox{w: w, wake: make(chan struct{}, 1), done: make(chan struct{}), onError: onError}
	o.drained.L = &o.mu
	go o.loop()
	return o
}

// append lets add append to what is waiting. It never waits for the writer.
func (o *outbox) append(add func(buf []byte) []byte) {
	o.mu.Lock()
	if o.err == nil {
		o.pending = add(o.pending)
	}
	o.mu.Unlock()
	o.signal()
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// room waits until less than outboxLimit is waiting, or ctx ends. It returns
// the error of a write that failed.
func (o *outbox) room(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.pending) < outboxLimit || o.err != nil {
		return o.err
	}
	stop := context.AfterFunc(ctx, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.drained.Broadcast()
	})
	defer stop()
	for len(o.pending) >= outboxLimit && o.err == nil && ctx.Err() == nil {
		o.drained.Wait()
	}
	return o.err
}

// close writes what is waiting, ends the outbox and returns the error of the
// write that failed, if one did.
func (o *outbox) close() error {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.signal()
	<-o.done
	return o.err
}

func (o *outbox) loop() {
	defer close(o.done)
	pause := time.NewTimer(0)
	defer pause.Stop()
	<-pause.C
	for range o.wake {
		more := o.write()
		if !more {
			return
		}
		pause.Reset(outboxPause)
		<-pause.C
	}
}

// write writes what is waiting. It returns false once the outbox is closed and
// empty.
func (o *outbox) write() (more bool) {
	o.mu.Lock()
	buf, closed := o.pending, o.closed
	o.pending, o.spare = o.spare[:0], nil
	o.mu.Unlock()
	var err error
	if len(buf) > 0 {
		_, err = o.w.Write(buf)
	}
	o.mu.Lock()
	if cap(buf) <= 2*outboxLimit {
		o.spare = buf
	}
	failed := err != nil && o.err == nil
	if failed {
		o.err, o.pending = err, nil
	}
	o.drained.Broadcast()
	o.mu.Unlock()
	if failed && o.onError != nil {
		o.onError(err)
	}
	return !closed
}
