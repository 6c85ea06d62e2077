package janitor

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

const (
	// maxFailures is after how many failures in a row a pass gives up: a store
	// that is down or throttles is not helped by more requests.
	maxFailures = 16
	// maxErrors is how many errors a pass tells of.
	maxErrors = 8
)

// failures collects what went wrong in one pass.
type failures struct {
	mu     sync.Mutex // guards all below
	first  []error
	count  int
	inARow int // since the last success
}

// note takes the end of one piece of work, and reports whether to go on.
func (f *failures) note(err error) (goOn bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.inARow = 0
		return true
	}
	f.count++
	f.inARow++
	if len(f.first) < maxErrors {
		f.first = append(f.first, err)
	}
	return f.inARow < maxFailures
}

// err joins the first failures, and says how many more there were. Nil if there
// were none.
func (f *failures) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if more := f.count - len(f.first); more > 0 {
		return errors.Join(errors.Join(f.first...), fmt.Errorf("and %d more failures", more))
	}
	return errors.Join(f.first...)
}

// each calls do for 0, 1, ... below n, at most workers at the same time, until
// one call reports false. It waits for all calls and returns how many it made.
func each(n, workers int, do func(i int) (goOn bool)) int {
	var next atomic.Int64
	var stopped atomic.Bool
	var wg sync.WaitGroup
	for range min(workers, n) {
		wg.Go(func() {
			for !stopped.Load() {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if !do(i) {
					stopped.Store(true)
				}
			}
		})
	}
	wg.Wait()
	return min(int(next.Load()), n)
}
