package sqlite

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// roleVariable makes the test binary, run again, one of the processes below.
const roleVariable = "STREAMHOUSE_SQLITE_TEST_ROLE"

// roles are what another process does with the metadata file at path.
var roles = map[string]func(ctx context.Context, path string) error{
	"commit":     commitOnRequest,
	"produce":    produceForEver,
	"administer": administerForEver,
}

func runRole(role string) int {
	if err := roles[role](context.Background(), os.Getenv(roleVariable+"_PATH")); err != nil {
		fmt.Fprintln(os.Stderr, role, err)
		return 1
	}
	return 0
}

// process is the test binary, running as another process.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	input io.WriteCloser
	lines *bufio.Scanner
}

func startRole(t *testing.T, role, path string) *process {
	t.Helper()
	cmd := exec.Command(must[string](t)(os.Executable()))
	cmd.Env = append(os.Environ(), roleVariable+"="+role, roleVariable+"_PATH="+path)
	cmd.Stderr = os.Stderr
	p := &process{t: t, cmd: cmd, input: must[io.WriteCloser](t)(cmd.StdinPipe())}
	p.lines = bufio.NewScanner(must[io.ReadCloser](t)(cmd.StdoutPipe()))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// ask sends one line and returns the next one that the process prints.
func (p *process) ask() string {
	p.t.Helper()
	if _, err := io.WriteString(p.input, "\n"); err != nil {
		p.t.Fatal(err)
	}
	return p.next()
}

func (p *process) next() string {
	p.t.Helper()
	if !p.lines.Scan() {
		p.t.Fatal("the process ended: ", p.lines.Err())
	}
	return p.lines.Text()
}

func (p *process) end() {
	p.t.Helper()
	p.input.Close()
	if err := p.cmd.Wait(); err != nil {
		p.t.Error(err)
	}
}

// commitOnRequest commits ten records for each line that it reads, and prints
// when the commit was acknowledged, in Unix nanoseconds.
func commitOnRequest(ctx context.Context, path string) error {
	s, err := Open(ctx, path, Options{})
	if err != nil {
		return err
	}
	topic, err := s.Topic(ctx, "orders")
	if err != nil {
		return err
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if _, err := commitOnce(ctx, s, topic, ports.ProducerSession{ID: commit.NoProducer}, 0); err != nil {
			return err
		}
		fmt.Println(time.Now().UnixNano())
	}
	return s.Close()
}

// commitOnce commits one segment with ten records for each partition, and
// returns the offset of the first in partition 0.
func commitOnce(ctx context.Context, s *Store, topic domain.Topic, p ports.ProducerSession, first domain.Sequence) (domain.Offset, error) {
	refs, err := s.Reserve(ctx, 1)
	if err != nil {
		return 0, err
	}
	results, err := s.Commit(ctx, []commit.Segment{fill(refs[0].ID, topic, p, first, int(topic.Partitions))})
	if err != nil {
		return 0, err
	}
	for _, o := range results[0].Outcomes {
		if o.Status != commit.Accepted {
			return 0, fmt.Errorf("outcomes %v", results[0].Outcomes)
		}
	}
	return results[0].Outcomes[0].Base, nil
}

// produceForEver commits without end and prints each acknowledged offset of
// partition 0. It ends with its input.
func produceForEver(ctx context.Context, path string) error {
	s, err := Open(ctx, path, Options{})
	if err != nil {
		return err
	}
	topic, err := s.Topic(ctx, "orders")
	if err != nil {
		return err
	}
	p, err := s.RegisterProducer(ctx, "")
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	for first := domain.Sequence(0); ; first += 10 {
		select {
		case <-ended:
			return s.Close()
		default:
		}
		base, err := commitOnce(ctx, s, topic, p, first)
		if err != nil {
			return err
		}
		fmt.Println(base)
	}
}

func TestSubscribe_SeesAnotherProcessWithin50ms(t *testing.T) {
	s := newTest(t)
	createTopic(t, s, "orders", 1)
	woken := make(chan time.Time, 1)
	cancel := s.Subscribe(func() {
		select {
		case woken <- time.Now():
		default:
		}
	})
	defer cancel()
	other := startRole(t, "commit", s.path)
	defer other.end()
	var worst time.Duration
	for i := range 20 {
		acknowledged := must[int64](t)(strconv.ParseInt(other.ask(), 10, 64))
		// Further wake-ups of the same commit may still be on their way, so only
		// one that comes after the acknowledgement, or just before it, counts.
		at := <-woken
		for s.highWatermark(t) < domain.Offset(10*(i+1)) {
			at = <-woken
		}
		worst = max(worst, at.Sub(time.Unix(0, acknowledged)))
	}
	t.Logf("worst delay %v", worst)
	if worst > 50*time.Millisecond*slack {
		t.Errorf("woken %v after the acknowledgement", worst)
	}
}

// slack is how much slower than promised a machine shared with other tests may
// be.
const slack = 4

func (s *Store) highWatermark(t *testing.T) domain.Offset {
	t.Helper()
	topic := must[domain.Topic](t)(s.Topic(t.Context(), "orders"))
	return must[[]domain.PartitionState](t)(s.DescribePartitions(t.Context(), topic.ID))[0].HighWatermark
}

func TestStore_SharedByProcessesGivesDenseOffsets(t *testing.T) {
	s := newTest(t)
	topic := createTopic(t, s, "orders", 4)
	const processes, commits = 3, 60
	all := make([]*process, processes)
	for i := range all {
		all[i] = startRole(t, "produce", s.path)
	}
	acknowledged := make(chan []string, processes)
	for _, p := range all {
		go func() {
			var lines []string
			for p.lines.Scan() {
				if lines = append(lines, p.lines.Text()); len(lines) == commits {
					p.input.Close()
				}
			}
			acknowledged <- lines
		}()
	}
	own := 0
	for range commits {
		must[domain.Offset](t)(commitOnce(t.Context(), s, topic, ports.ProducerSession{ID: commit.NoProducer}, 0))
		own++
	}
	seen := make(map[string]bool)
	for range all {
		last := -1
		for _, line := range <-acknowledged {
			base := must[int](t)(strconv.Atoi(line))
			if seen[line] || base <= last || base%10 != 0 {
				t.Fatalf("offset %d after %d, seen before: %v", base, last, seen[line])
			}
			seen[line], last = true, base
		}
	}
	for _, p := range all {
		if err := p.cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	if high := s.highWatermark(t); int(high) != 10*(len(seen)+own) {
		t.Errorf("high watermark %d after %d commits", high, len(seen)+own)
	}
	checkInvariants(t, s.path)
}

func TestStore_KeepsWhatWasAcknowledgedWhenAProcessIsKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metadata.db")
	s := openTest(t, path)
	createTopic(t, s, "orders", 4)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 8 {
		p := startRole(t, "produce", path)
		last := p.next()
		for range random.IntN(30) {
			last = p.next()
		}
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for p.lines.Scan() {
			last = p.lines.Text()
		}
		if err := p.cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the process ended with %v", err)
		}
		base := must[int](t)(strconv.Atoi(last))
		s := must[*Store](t)(Open(t.Context(), path, Options{}))
		high := int(s.highWatermark(t))
		if high != base+10 && high != base+20 {
			t.Errorf("round %d: acknowledged up to %d, high watermark %d", round, base+9, high)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		checkInvariants(t, path)
	}
}
