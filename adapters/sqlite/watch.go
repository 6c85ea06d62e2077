package sqlite

import (
	"context"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// lookEvery bounds how often the watcher looks while there are signs.
	lookEvery = 10 * time.Millisecond
	// lookFor is how long it keeps looking after a sign: the write to the log is
	// seen before its sync has made it a commit.
	lookFor = 2 * time.Second
	// lookIdle is how often it looks without a sign, in case one was missed.
	lookIdle = 5 * time.Second
	// lookBlind is how often it looks where the system gives no signs.
	lookBlind = 40 * time.Millisecond
)

// dataVersion changes with every commit of another connection.
var dataVersion = query{"PRAGMA data_version"}

// watch wakes the subscriptions after commits of other processes, until done is
// closed. It has a connection of its own.
func (s *Store) watch(done <-chan struct{}) {
	for {
		if c, err := s.openReader(context.Background()); err == nil {
			// Whatever ended it is met again, and told, by the calls on the store.
			_ = s.watchWith(c, done)
			_ = c.close()
		}
		if !pause(done, lookBlind) {
			return
		}
	}
}

// pause reports false if done was closed while it waited.
func pause(done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return false
	case <-t.C:
		return true
	}
}

// watchWith looks at the data version after each sign of a write. A nil error means
// that done was closed.
func (s *Store) watchWith(c *conn, done <-chan struct{}) error {
	seen, err := c.dataVersion()
	if err != nil {
		return err
	}
	// What was committed since Subscribe returned is in seen already.
	s.wakes.All()
	signs, idle := &fsnotify.Watcher{}, lookBlind
	if w := signsOf(s.path + "-wal"); w != nil {
		defer func() { _ = w.Close() }()
		signs, idle = w, lookIdle
	}
	// A commit that was written before the signs began would otherwise wait for
	// the next.
	until := time.Now().Add(lookFor)
	for {
		wait := idle
		if time.Now().Before(until) {
			wait = lookEvery
		}
		timer := time.NewTimer(wait)
		select {
		case <-done:
			timer.Stop()
			return nil
		case <-signs.Events:
			timer.Stop()
			until = time.Now().Add(lookFor)
		case <-signs.Errors: //nolint:errcheck // such as: too many signs at once. It is a sign too
			timer.Stop()
			until = time.Now().Add(lookFor)
		case <-timer.C:
		}
		version, err := c.dataVersion()
		if err != nil {
			return err
		}
		if version != seen {
			seen = version
			s.wakes.All()
		}
		if !pause(done, lookEvery/2) {
			return nil
		}
	}
}

func (c *conn) dataVersion() (v int64, err error) {
	err = c.query(&dataVersion, func(r *row) error {
		v = r.int(0)
		return nil
	})
	return v, err
}

// signsOf gives the system's events about the file, or nil if it gives none. The
// file exists while a connection that has read is open.
func signsOf(file string) *fsnotify.Watcher {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil
	}
	if err := w.Add(file); err != nil {
		_ = w.Close()
		return nil
	}
	return w
}
