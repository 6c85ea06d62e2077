package producer

import "sync"

// maxKeptSlots bounds what slots keeps for later, in callbacks of 16 bytes.
const maxKeptSlots = 1 << 19

// slots recycles the lists of callbacks that batches carry.
type slots struct {
	mu   sync.Mutex
	free [][]pendingCallback
	kept int // capacity of all in free
}

func (s *slots) take() []pendingCallback {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) == 0 {
		return nil
	}
	last := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	s.kept -= cap(last)
	return last
}

func (s *slots) put(list []pendingCallback) {
	if cap(list) == 0 {
		return
	}
	clear(list)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept+cap(list) > maxKeptSlots {
		return
	}
	s.kept += cap(list)
	s.free = append(s.free, list[:0])
}
