package producer

import "sync"

// slots recycles the lists of callbacks that batches carry.
type slots struct {
	mu   sync.Mutex
	free [][]pendingCallback
}

// Bounds on what is kept for later.
const (
	maxFreeSlots = 64
	maxSlotSize  = 1 << 14
)

func (s *slots) take() []pendingCallback {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) == 0 {
		return nil
	}
	last := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	return last
}

func (s *slots) put(list []pendingCallback) {
	if cap(list) == 0 || cap(list) > maxSlotSize {
		return
	}
	clear(list)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) < maxFreeSlots {
		s.free = append(s.free, list[:0])
	}
}
