package servers

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// installation is where PostgreSQL's programs are, and who runs them: the
// server refuses to run as root.
type installation struct {
	dir string
	as  *syscall.Credential // nil for the user of this process
}

var errNoPostgres = errors.New("no PostgreSQL on this machine, neither below /usr/lib/postgresql nor in PATH: " +
	"run test/e2e/servers/install.sh, or apt-get install postgresql")

// findPostgres takes the newest version that Debian's packages have put aside
// each other, else the one in PATH.
func findPostgres() (installation, error) {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	dirs = slices.DeleteFunc(dirs, func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, "postgres"))
		return err != nil
	})
	var found installation
	if len(dirs) > 0 {
		version := func(dir string) int {
			n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
			return n
		}
		found.dir = slices.MaxFunc(dirs, func(a, b string) int { return cmp.Compare(version(a), version(b)) })
	} else {
		path, err := exec.LookPath("postgres")
		if err != nil {
			return found, errNoPostgres
		}
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return found, err
		}
		found.dir = filepath.Dir(path)
	}
	if os.Geteuid() != 0 {
		return found, nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		return found, fmt.Errorf("PostgreSQL does not run as root and wants a user of its own, as Debian's package makes one: %w", err)
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return found, err
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return found, err
	}
	found.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return found, nil
}

func (i installation) path(name string) string { return filepath.Join(i.dir, name) }

// own makes a folder that belongs to the user of the server.
func (i installation) own(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if i.as == nil {
		return nil
	}
	return os.Chown(dir, int(i.as.Uid), int(i.as.Gid))
}

// removeMemory removes the segment of shared memory that marks the data folder
// as used. A server that was killed leaves it, and a kernel has few of them.
func (s *PostgresServer) removeMemory() {
	lines := s.pidFile()
	if len(lines) < 7 {
		return
	}
	var key uint32 // the number of the folder, cut to 32 bits
	var id int
	if _, err := fmt.Sscan(lines[6], &key, &id); err == nil {
		removeSegment(key, id)
	}
}
