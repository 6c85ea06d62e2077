package wake_test

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/ports/wake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A consumer that follows the log subscribes with every fetch: watching from
// the beginning each time used 0.8 % of a core while idle.
func TestList_OneWatcherServesTheFetchesOfAFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var starts, ends atomic.Int32
		l := wake.List{Watch: func(done <-chan struct{}) {
			starts.Add(1)
			<-done
			ends.Add(1)
		}}
		for range 100 {
			cancel := l.Add(func() {})
			<-time.After(5 * time.Second)
			cancel()
			<-time.After(time.Second)
		}
		synctest.Wait()
		if starts.Load() != 1 || ends.Load() != 0 {
			t.Errorf("%d watchers started and %d ended during 100 fetches, want 1 and 0", starts.Load(), ends.Load())
		}
		<-time.After(wake.Linger)
		synctest.Wait()
		if ends.Load() != 1 {
			t.Errorf("%d watchers ended after the last fetch, want 1", ends.Load())
		}
		l.Add(func() {})()
		l.Close()
		if starts.Load() != 2 || ends.Load() != 2 {
			t.Errorf("%d watchers started and %d ended, want 2 and 2", starts.Load(), ends.Load())
		}
	})
}

func TestList_WatcherStaysWhileThereIsASubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Bool
		l := wake.List{Watch: func(done <-chan struct{}) {
			<-done
			ended.Store(true)
		}}
		first := l.Add(func() {})
		l.Add(func() {})
		first()
		<-time.After(10 * wake.Linger)
		if synctest.Wait(); ended.Load() {
			t.Error("it ended with a subscription left")
		}
		l.Close()
		if !ended.Load() {
			t.Error("it runs after Close")
		}
	})
}

func TestAll_CallsInOrderAndNobodyWhoHasCancelled(t *testing.T) {
	var l wake.List
	defer l.Close()
	var order []int
	add := func(n int) func() { return l.Add(func() { order = append(order, n) }) }
	add(1)
	second := add(2)
	third := add(3)
	second()
	second() // again: it is no other's end
	l.All()
	third()
	l.All()
	if got := fmt.Sprint(order); got != "[1 3 1]" {
		t.Errorf("called %s, want [1 3 1]", got)
	}
}

// Cancel promises that wake is not running, and will not run, once it returned:
// else the race detector finds the write below.
func TestCancel_WaitsForTheWakeInProgress(t *testing.T) {
	var l wake.List
	waking, done := make(chan struct{}), make(chan struct{})
	woken := false
	cancel := l.Add(func() {
		close(waking)
		runtime.Gosched()
		woken = true
	})
	go func() {
		defer close(done)
		l.All()
	}()
	<-waking
	cancel()
	if !woken {
		t.Error("cancel returned while wake was running")
	}
	<-done
}

func TestClose_LeavesNobodyToWakeLaterAndMayBeCalledAgain(t *testing.T) {
	started := false
	l := wake.List{Watch: func(done <-chan struct{}) { started = true; <-done }}
	l.Close()
	cancel := l.Add(func() { t.Error("woken after Close") })
	l.All()
	cancel()
	l.Close()
	if started {
		t.Error("a closed list watches")
	}
}

func TestList_IsForManyGoroutines(t *testing.T) {
	l := wake.List{Watch: func(done <-chan struct{}) { <-done }}
	var calls atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				cancelled := false // written and read under nothing but what cancel promises
				cancel := l.Add(func() {
					if cancelled {
						t.Error("woken after cancel")
					}
					calls.Add(1)
				})
				l.All()
				cancel()
				cancelled = true
			}
		})
	}
	all.Wait()
	l.Close()
	if calls.Load() < 8*200 {
		t.Errorf("%d calls, want each function's own All at least", calls.Load())
	}
}
