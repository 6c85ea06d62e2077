package localfs

import (
	"errors"
	"sync"
	"time"
)

// closeWait bounds how long Close waits for a disk that hangs.
const closeWait = 10 * time.Second

var errStepsRun = errors.New("the disk has not answered; steps are still running")

// steps are the calls that change something, and the parts of them that may
// outlive them. The store owns their goroutines.
type steps struct {
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// begin counts a call until its end, unless the steps are closed.
func (s *steps) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.running.Add(1)
	return true
}

func (s *steps) end() { s.running.Done() }

// start runs a part of a call that has begun.
func (s *steps) start(step func()) { s.running.Go(step) }

func (s *steps) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// close lets no call begin any more and waits for those that run.
func (s *steps) close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()

	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	timeout := time.NewTimer(closeWait)
	defer timeout.Stop()
	select {
	case <-done:
		return nil
	case <-timeout.C:
		return errStepsRun
	}
}
