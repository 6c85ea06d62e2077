//go:build !linux

package servers

import "syscall"

// attributes lets the child run as another user. Only Linux can end it when
// this process is killed.
func attributes(as *syscall.Credential, _ syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: as}
}

func childrenOf(int) []int { return nil }

func halted(int) bool { return true }

// removeSegment leaves the segment: only Linux says whose it is in a way known here.
func removeSegment(uint32, int) {}
