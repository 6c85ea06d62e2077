package agents_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// keyCount is how many keys the lines have: line n has the key n modulo keyCount.
const keyCount = 1009

// killPoints is how many agents are killed while the lines are sent.
func killPoints() int { return min(4+*lines/50_000, 20) }

// TestProduce_ThroughAgentsThatAreKilledStoresEveryLineOnce sends lines with
// `produce --agents` through three agents. Now and then an agent is
// killed with SIGKILL, in turn, and started again; the input goes on meanwhile. Every line is acknowledged in the end, none
// is lost, none is there twice, and those of a key are in order.
func TestProduce_ThroughAgentsThatAreKilledStoresEveryLineOnce(t *testing.T) {
	t.Parallel()
	f := fleetOf(t, 3)
	p := f.produce()
	fed := make(chan error, 1)
	reached := make(chan int) // the next kill is due; the input goes on meanwhile
	go func() {
		defer close(reached)
		fed <- feed(p.stdin, reached)
	}()
	for n := range reached {
		a := f.agents[n%len(f.agents)]
		a.kill()
		a.start()
	}
	must(t, <-fed)
	acks, err := p.finish()
	if err != nil {
		t.Fatalf("%v\n%s", err, &p.stderr)
	}
	t.Logf("%s", strings.TrimSpace(p.stderr.String()))
	seen := f.consumed()
	for n := range *lines {
		if acks[n] == nowhere {
			t.Fatalf("line %d was not acknowledged", n)
		}
		if seen[n] != acks[n] {
			t.Fatalf("line %d was acknowledged at %+v and is at %+v", n, acks[n], seen[n])
		}
	}
	last := make([]place, keyCount)
	for n, at := range seen {
		before := last[n%keyCount]
		if n >= keyCount && (at.partition != before.partition || at.offset <= before.offset) {
			t.Fatalf("line %d is at %+v, the one before of its key at %+v", n, at, before)
		}
		last[n%keyCount] = at
	}
	f.end()
}

// place is where a line is in the log.
type place struct{ partition, offset int }

var nowhere = place{-1, -1}

func places() []place {
	all := make([]place, *lines)
	for n := range all {
		all[n] = nowhere
	}
	return all
}

// feed writes the lines, and says at each kill point which one it is: it goes on
// only once the killer has taken it.
func feed(stdin io.WriteCloser, reached chan<- int) error {
	out := bufio.NewWriterSize(stdin, 64<<10)
	each := *lines/(killPoints()+1) + 1
	for n := range *lines {
		if _, err := fmt.Fprintf(out, "key-%d\tline-%d\n", n%keyCount, n); err != nil {
			return err
		}
		if n%each == each-1 {
			if err := out.Flush(); err != nil {
				return err
			}
			reached <- n / each
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return stdin.Close()
}

// producing is a running produce --acks.
type producing struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr bytes.Buffer
	acks   []place // by line
	read   chan error
}

func (f *fleet) produce() *producing {
	f.Helper()
	p := &producing{acks: places(), read: make(chan error, 1)}
	p.cmd = exec.CommandContext(f.Context(), f.binary, "produce", topic, "--agents", strings.Join(f.addresses(), ","), "--acks", "--key-separator", `\t`)
	p.cmd.Env, p.cmd.Stderr = environment(), &p.stderr
	var err error
	p.stdin, err = p.cmd.StdinPipe()
	must(f.T, err)
	stdout, err := p.cmd.StdoutPipe()
	must(f.T, err)
	must(f.T, p.cmd.Start())
	go func() { p.read <- p.readAcks(stdout) }()
	return p
}

func (p *producing) readAcks(stdout io.Reader) error {
	text := json.NewDecoder(bufio.NewReaderSize(stdout, 1<<20))
	for {
		var a struct{ N, Partition, Offset int }
		switch err := text.Decode(&a); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case a.N < 1 || a.N > len(p.acks) || p.acks[a.N-1] != nowhere:
			return fmt.Errorf("an acknowledgement of line %d, which was not due", a.N)
		}
		p.acks[a.N-1] = place{a.Partition, a.Offset}
	}
}

func (p *producing) finish() ([]place, error) {
	if err := <-p.read; err != nil {
		return nil, err
	}
	return p.acks, p.cmd.Wait()
}

// consumed is where each line is, by `consume --agents`. A line that is there
// twice, and one that nobody sent, fail the test.
func (f *fleet) consumed() []place {
	f.Helper()
	cmd := exec.CommandContext(f.Context(), f.binary, "consume", topic, "--agents", strings.Join(f.addresses(), ","), "--output", "json")
	var said bytes.Buffer
	cmd.Env, cmd.Stderr = environment(), &said
	stdout, err := cmd.StdoutPipe()
	must(f.T, err)
	must(f.T, cmd.Start())
	all := places()
	for text := json.NewDecoder(bufio.NewReaderSize(stdout, 1<<20)); ; {
		var m struct {
			Partition, Offset int
			Value             string
		}
		if err := text.Decode(&m); err == io.EOF {
			break
		} else if err != nil {
			f.Fatal(err)
		}
		n := -1
		if _, err := fmt.Sscanf(m.Value, "line-%d", &n); err != nil || n < 0 || n >= len(all) || all[n] != nowhere {
			f.Fatalf("%q is at offset %d of partition %d, where it should not be", m.Value, m.Offset, m.Partition)
		}
		all[n] = place{m.Partition, m.Offset}
	}
	if err := cmd.Wait(); err != nil {
		f.Fatalf("%v\n%s", err, &said)
	}
	return all
}
