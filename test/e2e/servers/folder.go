package servers

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/streamhouse/streamhouse/test/e2e/loopback"
)

// folderPrefix begins the names of all folders of servers.
const folderPrefix = "streamhouse-server-"

// folder is a temporary folder of one server. A lock that only this process
// holds tells it from those of test binaries that were killed.
type folder struct {
	path string
	lock *os.File
}

// newFolder makes a folder that others than its owner may pass through but not
// list, and removes those whose test binary is gone.
func newFolder() (*folder, error) {
	sweep()
	path, err := os.MkdirTemp("", folderPrefix)
	if err != nil {
		return nil, err
	}
	f := &folder{path: path}
	if err = os.Chmod(path, 0o711); err == nil {
		f.lock, err = os.Create(f.join("lock"))
	}
	if err == nil {
		err = unix.Flock(int(f.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		_ = f.remove()
		return nil, err
	}
	return f, nil
}

func (f *folder) join(name string) string { return filepath.Join(f.path, name) }

func (f *folder) remove() error {
	err := os.RemoveAll(f.path)
	if f.lock != nil {
		_ = f.lock.Close()
	}
	return err
}

// sweep removes the folders that nobody holds locked: a killed test binary
// removes nothing. A young folder may be about to be locked.
func sweep() {
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), folderPrefix+"*"))
	for _, path := range left {
		if info, err := os.Stat(path); err != nil || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			continue // another user's, or just removed
		}
		if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.RemoveAll(path)
		}
		_ = lock.Close()
	}
}

// startFirst starts a new server on a free port, and on another if somebody
// was faster, which the server then says in its log by the word taken.
func startFirst(start func() error, moveTo func(port int), log, taken string) error {
	for try := 1; ; try++ {
		port, err := loopback.FreePort()
		if err != nil {
			return err
		}
		moveTo(port)
		err = start()
		if err == nil || try == startTries || !strings.Contains(tail(log), taken) {
			return err
		}
	}
}
