package memory

import (
	"slices"
	"sync"
)

// subscriptions are the functions to call after a commit, in the order in which
// they came.
type subscriptions struct {
	mu  sync.Mutex
	all []*subscription // replaced, never changed, so that it can be walked unlocked
}

type subscription struct {
	mu        sync.Mutex // held while wake runs, so that cancel can wait for it
	cancelled bool
	wake      func()
}

func (s *subscriptions) add(wake func()) (cancel func()) {
	sub := &subscription{wake: wake}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(slices.Clip(s.all), sub)
	return func() {
		s.remove(sub)
		sub.cancel()
	}
}

func (s *subscriptions) remove(sub *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(slices.Clone(s.all), func(o *subscription) bool { return o == sub })
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
