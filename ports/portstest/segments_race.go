package portstest

import (
	"errors"
	"slices"
	"sync"

	"github.com/streamhouse/streamhouse/ports"
)

// putRace lets many writers race for each key; exactly one may win, and its
// bytes must stay.
func putRace(s *segmentsUnderTest) {
	const writers, rounds = 8, 20
	for round := range rounds {
		key := segmentKey(round)
		errs := make([]error, writers)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				<-start
				errs[w] = s.Put(s.Context(), key, segmentBody(w, 5000+w))
			})
		}
		close(start)
		wg.Wait()
		winner := slices.Index(errs, nil)
		if winner < 0 {
			s.Fatalf("nobody won %s: %v", key, errs)
		}
		for w, err := range errs {
			if w != winner && (!errors.Is(err, ports.ErrObjectExists) || ports.KindOf(err) != ports.Definite) {
				s.Errorf("writer %d of %s got %v beside winner %d", w, key, err, winner)
			}
		}
		s.holds(key, segmentBody(winner, 5000+winner))
	}
}

func putManyAtOnce(s *segmentsUnderTest) {
	const writers, each = 8, 25
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				n := w*each + i
				if err := s.Put(s.Context(), segmentKey(n), segmentBody(n, n)); err != nil {
					s.Errorf("put %d: %v", n, err)
				}
			}
		})
	}
	wg.Wait()
	for n := range writers * each {
		s.holds(segmentKey(n), segmentBody(n, n))
	}
}

// listWhilePutting demands that what List shows can be read whole at once, and
// that what was acknowledged before it began is in it.
func listWhilePutting(s *segmentsUnderTest) {
	const objects = 60
	var (
		mu    sync.Mutex
		acked []string
	)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range objects {
			if err := s.Put(s.Context(), segmentKey(i), segmentBody(i, 4096)); err != nil {
				s.Errorf("put: %v", err)
				return
			}
			mu.Lock()
			acked = append(acked, segmentKey(i))
			mu.Unlock()
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		mu.Lock()
		want := slices.Clone(acked)
		mu.Unlock()
		infos, err := s.List(s.Context(), "", objects+1)
		if err != nil {
			s.Errorf("list: %v", err)
		}
		s.listedWhole(infos, want)
	}
}

func (s *segmentsUnderTest) listedWhole(infos []ports.ObjectInfo, want []string) {
	for _, info := range infos {
		if info.Size != 4096 {
			s.Errorf("%s is listed with %d bytes", info.Key, info.Size)
		}
	}
	for _, key := range want {
		if !slices.ContainsFunc(infos, func(o ports.ObjectInfo) bool { return o.Key == key }) {
			s.Errorf("%s was acknowledged and is not listed", key)
		}
	}
}
