package servers

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// process is a server's process. It is used by one goroutine at a time.
type process struct {
	cmd *exec.Cmd
	// alive is the reading end of a pipe whose writing end the process holds,
	// and every process that it starts. Its end says that all of them are gone.
	alive *os.File
}

// program says how a server is run.
type program struct {
	path string
	args []string
	env  []string
	dir  string // the working folder
	log  string // the file that its output is appended to
	as   *syscall.Credential
	// orphaned is the signal that the process gets when this one dies.
	orphaned syscall.Signal
}

// start runs the program and does not wait until it answers.
func (p program) start() (*process, error) {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	alive, held, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer held.Close()
	cmd := exec.Command(p.path, p.args...)
	cmd.Dir, cmd.Env = p.dir, p.env
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{held}
	cmd.SysProcAttr = attributes(p.as, p.orphaned)
	if err := cmd.Start(); err != nil {
		_ = alive.Close()
		return nil, err
	}
	return &process{cmd: cmd, alive: alive}, nil
}

// run runs the program to its end and shows its output if it fails.
func (p program) run(limit time.Duration) error {
	started, err := p.start()
	if err != nil {
		return err
	}
	if !started.gone(limit) {
		_ = started.cmd.Process.Kill()
		err = fmt.Errorf("took over %v", limit)
	}
	if err = errors.Join(err, started.reap()); err != nil {
		return fmt.Errorf("%s: %w\n%s", p.path, err, tail(p.log))
	}
	return nil
}

// gone waits until the process and those it started have ended, but no longer
// than limit, and reports whether they have.
func (p *process) gone(limit time.Duration) bool {
	if err := p.alive.SetReadDeadline(time.Now().Add(limit)); err != nil {
		panic(fmt.Sprintf("a pipe without deadlines: %v", err))
	}
	_, err := p.alive.Read(make([]byte, 1))
	return errors.Is(err, io.EOF)
}

func (p *process) signal(s syscall.Signal) error {
	err := p.cmd.Process.Signal(s)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// end signals the process and waits until it and those it started are gone.
// What does not go within stopLimit is killed, and told as an error.
func (p *process) end(s syscall.Signal) error {
	how := p.signal
	if s == syscall.SIGKILL {
		how = p.kill
	}
	err := how(s)
	if !p.gone(stopLimit) {
		err = errors.Join(err, fmt.Errorf("%s is there %v after %v", p.cmd.Path, stopLimit, s), p.kill(syscall.SIGKILL))
	}
	_ = p.reap() // it was told to end: how it did is in its log
	return err
}

// kill signals the process and those that it has started: one that is at work
// might not notice for long that its parent was killed. The process is stopped before: one that it starts
// after it was looked up would not be killed, and may wait for ever for a lock of one that was.
func (p *process) kill(s syscall.Signal) error {
	err := p.signal(syscall.SIGSTOP)
	for limit := time.Now().Add(stopLimit); err == nil && !halted(p.cmd.Process.Pid) && time.Now().Before(limit); {
		if p.gone(time.Millisecond) {
			break
		}
	}
	children := childrenOf(p.cmd.Process.Pid)
	err = errors.Join(err, p.signal(s))
	for _, pid := range children {
		_ = syscall.Kill(pid, s)
	}
	return err
}

// reap waits for the process itself, and lets go of what watches it.
func (p *process) reap() error {
	err := p.cmd.Wait()
	return errors.Join(err, p.alive.Close())
}

// tail is the end of a log.
func tail(log string) string {
	file, err := os.Open(log)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	if size, err := file.Seek(0, io.SeekEnd); err == nil {
		_, _ = file.Seek(max(0, size-logTail), io.SeekStart)
	}
	text, _ := io.ReadAll(io.LimitReader(file, logTail))
	return string(text)
}
