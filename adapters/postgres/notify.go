package postgres

import (
	"context"
	"encoding/hex"
	"sync"
	"time"
)

// The commits of this process are told to the others by NOTIFY in a transaction
// of its own, after the commit. Inside the commit it would be exact, but the server lets one transaction with a
// notification commit at a time, in all databases together, so that no two commits could share a write
// of its log. What a crash between commit and notification leaves untold is found by the listeners' look once a
// minute, or told with the next commit.

const (
	// notifyEvery bounds how often this process notifies.
	notifyEvery = 5 * time.Millisecond
	// notifyPatience bounds one notification.
	notifyPatience = 5 * time.Second
)

// notifier sends notifications, one for all commits since the last. Its
// goroutine runs while there is something to tell.
type notifier struct {
	send func(context.Context) error
	stop chan struct{} // closed by close

	mu      sync.Mutex // guards all below
	due     bool
	running bool
	closed  bool
	group   sync.WaitGroup
}

func newNotifier(send func(context.Context) error) *notifier {
	return &notifier{send: send, stop: make(chan struct{})}
}

// kick has the other processes told that there is something new. It does not
// wait.
func (n *notifier) kick() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.due = true
	if !n.running && !n.closed {
		n.running = true
		n.group.Go(n.run)
	}
}

func (n *notifier) run() {
	for failures := 0; n.take(); {
		ctx, cancel := context.WithTimeout(context.Background(), notifyPatience)
		err := n.send(ctx)
		cancel()
		wait := notifyEvery
		if err != nil {
			// The commit that follows, or the listeners' own look, makes up for it.
			if failures++; failures > 3 {
				failures = 0
				continue
			}
			wait <<= 2 * failures
			n.mu.Lock()
			n.due = !n.closed
			n.mu.Unlock()
		} else {
			failures = 0
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-n.stop:
			timer.Stop()
		}
	}
}

// take reports whether there is something to tell, and else ends the goroutine.
func (n *notifier) take() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	due := n.due
	n.due, n.running = false, due
	return due
}

// close lets what is due be told once, and waits for it. It is called once.
func (n *notifier) close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	close(n.stop)
	n.group.Wait()
}

// channel is what the processes of this cluster notify each other on.
func (s *Store) channel() string { return "streamhouse_" + hex.EncodeToString(s.cluster[:]) }

func (s *Store) sendNotification(ctx context.Context) error {
	_, err := s.pool.Exec(ctx, "SELECT pg_notify($1, '')", s.channel())
	return err
}
