package agents_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/streamhouse/streamhouse/test/e2e/faultproxy"
	"github.com/streamhouse/streamhouse/test/e2e/loopback"
)

// agent is one process, and the next ones at its address.
type agent struct {
	fleet  *fleet
	binary string
	listen string // where it listens; clients come through edge
	admin  string
	edge   *faultproxy.TCP
	cmd    *exec.Cmd // nil before the first start
	said   *strings.Builder
	done   chan struct{} // closed when the process has ended and all was read
	err    error         // of Wait, after done
}

// add adds an agent that is to be started. It is killed when the test ends.
func (f *fleet) add() *agent {
	f.Helper()
	port, err := loopback.FreePort()
	must(f.T, err)
	admin, err := loopback.FreePort()
	must(f.T, err)
	a := &agent{fleet: f, binary: f.binary, listen: loopback.Addr(port), admin: loopback.Addr(admin)}
	a.edge = faultproxy.NewTCP(f.T, a.listen)
	f.agents = append(f.agents, a)
	f.Cleanup(a.kill)
	return a
}

// address is where clients find the agent.
func (a *agent) address() string { return a.edge.Addr() }

// start starts the agent's next process, and waits until it serves.
func (a *agent) start() {
	a.fleet.Helper()
	must(a.fleet.T, a.tryStart())
}

// startSomehow starts it where the first attempts may fail.
func (a *agent) startSomehow() {
	a.fleet.Helper()
	eventually(a.fleet.T, "start an agent", a.tryStart)
}

func (a *agent) tryStart() error {
	f := a.fleet
	a.cmd = exec.Command(a.binary, append([]string{
		"serve", "--listen", a.listen, "--advertise", a.address(), "--admin", a.admin, "--metadata", f.metadata, "--segments", f.segments,
		"--flush-interval", "20ms", "--drain-timeout", "20s",
	}, f.flags...)...)
	a.cmd.Env = environment()
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	pipe, err := a.cmd.StderrPipe()
	if err != nil {
		return err
	}
	serves, done, said := make(chan struct{}), make(chan struct{}), new(strings.Builder)
	if err := a.cmd.Start(); err != nil {
		return err
	}
	a.done, a.said = done, said
	cmd := a.cmd
	go func() {
		defer close(done)
		text, told := bufio.NewScanner(pipe), false
		for text.Scan() {
			said.WriteString(text.Text() + "\n")
			if !told && strings.Contains(text.Text(), "agent serves") {
				told = true
				close(serves)
			}
		}
		a.err = cmd.Wait()
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-serves:
		return nil
	case <-done:
		return fmt.Errorf("the agent at %s ended: %w\n%s", a.listen, a.err, said)
	case <-timer.C:
		a.kill()
		return fmt.Errorf("the agent at %s does not serve\n%s", a.listen, said)
	}
}

func (a *agent) signal(s syscall.Signal) { _ = a.cmd.Process.Signal(s) } // it may have ended

// kill ends the process with SIGKILL, if there is one.
func (a *agent) kill() {
	if a.cmd != nil {
		a.signal(syscall.SIGKILL)
		<-a.done
	}
}

// drain ends the process in order, and demands that it went well.
func (a *agent) drain() {
	a.fleet.Helper()
	a.signal(syscall.SIGTERM)
	<-a.done
	if a.err != nil {
		a.fleet.Errorf("the agent at %s did not end well: %v\n%s", a.listen, a.err, a.said)
	}
}

// get asks the agent's admin listener.
func (a *agent) get(path string) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(a.fleet.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.admin+path, nil)
	if err != nil {
		return 0, "", err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), errors.Join(err, response.Body.Close())
}
