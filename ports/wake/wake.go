// Package wake has what the metadata stores share of ports.Log.Subscribe: the
// list of the functions to call after a commit, and the life of whoever looks for the commits of
// other processes.
package wake

import (
	"slices"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/domain/mutant"
)

// Planted bugs, see package mutant.
const (
	mutantCancelForgotten mutant.ID = "wake-cancel-forgotten"
	mutantNoLinger        mutant.ID = "wake-watcher-leaves-at-once"
	mutantAddAfterClose   mutant.ID = "wake-add-after-close"
)

// Mutants lists the planted bugs of this package.
var Mutants = []mutant.ID{mutantCancelForgotten, mutantNoLinger, mutantAddAfterClose}

// Linger is how long the watcher stays after the last subscription ended. A
// reader that follows the log subscribes anew with every fetch, and beginning to watch costs
// more than a wait: a connection, or signs of the file system.
const Linger = 30 * time.Second

// List holds the functions to call after a commit, in the order in which they
// came. While there are any, and for Linger after that, Watch runs in a goroutine of its own.
// The zero List watches nothing and is ready for use. A List must not be copied.
type List struct {
	// Watch looks for commits of other processes and calls All for them, until done
	// is closed. Nil: there are none. It is set before the first Add.
	Watch func(done <-chan struct{})

	mu      sync.Mutex      // guards all below
	all     []*subscription // replaced, never changed, so that it can be walked unlocked
	closed  bool
	done    chan struct{} // ends the watcher, nil if none runs
	leaving *time.Timer   // ends the watcher too, nil while there are subscriptions
	watcher sync.WaitGroup
}

type subscription struct {
	mu        sync.Mutex // held while wake runs, so that cancel can wait for it
	cancelled bool
	wake      func()
}

// Add keeps what ports.Log promises of Subscribe: All calls wake from now on,
// never after cancel has returned. On a closed List wake is never called.
func (l *List) Add(wake func()) (cancel func()) {
	sub := &subscription{wake: wake}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed && !mutant.On(mutantAddAfterClose) {
		return func() {}
	}
	l.all = append(slices.Clip(l.all), sub)
	l.stay()
	if l.done == nil && l.Watch != nil {
		l.start()
	}
	return func() {
		if mutant.On(mutantCancelForgotten) {
			return
		}
		l.remove(sub)
		sub.cancel()
	}
}

// start starts the watcher. It needs the lock.
func (l *List) start() {
	done := make(chan struct{})
	l.done = done
	l.watcher.Go(func() { l.Watch(done) })
}

func (l *List) remove(sub *subscription) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = slices.DeleteFunc(slices.Clone(l.all), func(o *subscription) bool { return o == sub })
	if len(l.all) == 0 && l.done != nil {
		if mutant.On(mutantNoLinger) {
			l.end()
			return
		}
		l.stay()
		l.leaving = time.AfterFunc(Linger, l.leave)
	}
}

// stay calls off the end of the watcher. It needs the lock.
func (l *List) stay() {
	if l.leaving != nil {
		l.leaving.Stop()
		l.leaving = nil
	}
}

// leave ends the watcher if there is still nobody to wake.
func (l *List) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) == 0 {
		l.end()
	}
}

// end ends the watcher, if one runs. It needs the lock.
func (l *List) end() {
	if l.done != nil {
		close(l.done)
		l.done = nil
	}
}

// Close ends the watcher and waits for it. Later subscriptions are never woken.
// It may be called again.
func (l *List) Close() {
	l.mu.Lock()
	l.closed = true
	l.stay()
	l.end()
	l.mu.Unlock()
	l.watcher.Wait()
}

// All calls every function, in order. They run in the caller's goroutine, under
// no lock but their own.
func (l *List) All() {
	l.mu.Lock()
	all := l.all
	l.mu.Unlock()
	for _, sub := range all {
		sub.call()
	}
}

func (s *subscription) call() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.cancelled {
		s.wake()
	}
}

func (s *subscription) cancel() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancelled = true
}
