package producer

import "sync"

const (
	// stageFrom is how many partitions are written before the next ones are
	// staged: the processor follows a few dozen streams of writes by itself.
	stageFrom = 32
	// stageSize is the size of a stage in bytes; stageSlab are allocated side by
	// side, which saves address translations.
	stageSize = 1 << 10
	stageSlab = 64
)

// stages hands out one small buffer to each partition that is written to, once
// they are many. Going around many partitions with small records, each record's
// first touch of its batch's buffer waits for memory; staged, eight or so wait together.
type stages struct {
	mu    sync.Mutex
	taken int
	slab  []byte
}

// take returns a stage, without capacity while few were taken.
func (s *stages) take() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken++; s.taken <= stageFrom {
		return []byte{}
	}
	if len(s.slab) == 0 {
		s.slab = make([]byte, stageSize*stageSlab)
	}
	stage := s.slab[:0:stageSize]
	s.slab = s.slab[stageSize:]
	return stage
}
