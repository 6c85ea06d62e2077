package sqlite

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A consumer that follows the log subscribes with every fetch: watching from
// the beginning each time used 0.8 % of a core while idle.
func TestSubscribe_OneWatcherServesTheFetchesOfAFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var starts, ends atomic.Int32
		s := subscriptions{watch: func(done <-chan struct{}) {
			starts.Add(1)
			<-done
			ends.Add(1)
		}}
		for range 100 {
			cancel := s.add(func() {})
			<-time.After(5 * time.Second)
			cancel()
			<-time.After(time.Second)
		}
		synctest.Wait()
		if starts.Load() != 1 || ends.Load() != 0 {
			t.Errorf("%d watchers started and %d ended during 100 fetches, want 1 and 0", starts.Load(), ends.Load())
		}
		<-time.After(linger)
		synctest.Wait()
		if ends.Load() != 1 {
			t.Errorf("%d watchers ended after the last fetch, want 1", ends.Load())
		}
		s.add(func() {})()
		s.close()
		if starts.Load() != 2 || ends.Load() != 2 {
			t.Errorf("%d watchers started and %d ended, want 2 and 2", starts.Load(), ends.Load())
		}
	})
}
