package postgres

import (
	"slices"
	"sync"
	"time"
)

// linger is how long the listener stays after the last subscription ended. A
// reader that follows the log subscribes anew with every fetch, and to listen takes a
// connection.
const linger = 30 * time.Second

// subscriptions are the functions to call after a commit, in the order in which
// they came. While there are any, and for linger after that, watch runs in a goroutine of its
// own.
type subscriptions struct {
	// watch looks for commits of other processes until done is closed.
	watch func(done <-chan struct{})

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

// Subscribe implements ports.Log.
func (s *Store) Subscribe(wake func()) (cancel func()) { return s.wakes.add(wake) }

func (s *subscriptions) add(wake func()) (cancel func()) {
	sub := &subscription{wake: wake}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return func() {}
	}
	s.all = append(slices.Clip(s.all), sub)
	s.stay()
	if s.done == nil {
		s.start()
	}
	return func() {
		s.remove(sub)
		sub.cancel()
	}
}

// start starts the watcher. It needs the lock.
func (s *subscriptions) start() {
	done := make(chan struct{})
	s.done = done
	s.watcher.Go(func() { s.watch(done) })
}

func (s *subscriptions) remove(sub *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(slices.Clone(s.all), func(o *subscription) bool { return o == sub })
	if len(s.all) == 0 && s.done != nil {
		s.stay()
		s.leaving = time.AfterFunc(linger, s.leave)
	}
}

// stay calls off the end of the watcher. It needs the lock.
func (s *subscriptions) stay() {
	if s.leaving != nil {
		s.leaving.Stop()
		s.leaving = nil
	}
}

// leave ends the watcher if there is still nobody to wake.
func (s *subscriptions) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 {
		s.end()
	}
}

// end ends the watcher, if one runs. It needs the lock.
func (s *subscriptions) end() {
	if s.done != nil {
		close(s.done)
		s.done = nil
	}
}

// close ends the watcher and waits for it. Later subscriptions are never woken.
func (s *subscriptions) close() {
	s.mu.Lock()
	s.closed = true
	s.stay()
	s.end()
	s.mu.Unlock()
	s.watcher.Wait()
}

func (s *subscriptions) wakeAll() {
	s.mu.Lock()
	all := s.all
	s.mu.Unlock()
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
