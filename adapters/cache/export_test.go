package cache

import "github.com/streamhouse/streamhouse/domain/mutant"

// Mutants lists the planted bugs of this package.
var Mutants = []mutant.ID{
	mutantFailedPutKept, mutantBodyNotCopied, mutantNothingForgotten, mutantBlocksLent, mutantFlightOfCaller, mutantShortIsEnd, mutantOneLane,
}

// Held returns the bytes that the pools count, and those that they really hold.
func (s *Store) Held() (recent, blocks, really int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range []*pool{s.recent, s.blocks} {
		for _, blocks := range p.objects {
			for _, e := range blocks {
				really += e.Value.(*entry).cost()
			}
		}
	}
	return s.recent.held, s.blocks.held, really
}

// Flights returns how many blocks are on flights.
func (s *Store) Flights() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.flights)
}
