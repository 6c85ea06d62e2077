package servers

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes lets the child run as another user, and gets it a signal when this
// process dies. The kernel ties the signal to the thread that started the child; Go ends a
// thread only with a goroutine that has locked it, and none that starts servers does.
func attributes(as *syscall.Credential, orphaned syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: as, Pdeathsig: orphaned}
}

// halted reports whether a process is stopped, or is no more.
func halted(pid int) bool {
	state, _ := statOf(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return state == "" || strings.Contains("TtZX", state)
}

// statOf is the state and the parent of a process; both are empty if it has
// ended.
func statOf(name string) (state, parent string) {
	text, err := os.ReadFile(name)
	if err != nil {
		return "", ""
	}
	// pid (name) state parent ...; a name may hold blanks and parentheses.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 2 {
		return "", ""
	}
	return fields[0], fields[1]
}

// childrenOf are the processes that pid has started and not waited for.
func childrenOf(pid int) (children []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		if _, parent := statOf(name); parent != strconv.Itoa(pid) {
			continue
		}
		if child, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
			children = append(children, child)
		}
	}
	return children
}

// removeSegment removes a segment of shared memory that nobody uses.
func removeSegment(key uint32, id int) {
	var segment unix.SysvShmDesc
	if _, err := unix.SysvShmCtl(id, unix.IPC_STAT, &segment); err == nil && uint32(segment.Perm.Key) == key && segment.Nattch == 0 {
		_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	}
}
