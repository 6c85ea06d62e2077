package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/streamhouse/streamhouse/domain"
)

// message is what consume --output json writes.
type message struct {
	Topic       string
	Partition   int
	Offset      int64
	Timestamp   string
	Key         *string
	KeyBase64   *string `json:"key_base64"`
	Value       *string
	ValueBase64 *string `json:"value_base64"`
	Headers     json.RawMessage
}

type summary struct {
	Sent, Failed int64
	Partitions   map[string]struct {
		First int64 `json:"first_offset"`
		Last  int64 `json:"last_offset"`
		Count int64
	}
	Seconds    float64
	FirstError string `json:"first_error"`
}

type ack struct {
	N         int64
	Partition int
	Offset    int64
}

func (c *tool) messages(args ...string) []message {
	c.t.Helper()
	var list []message
	for _, line := range lines(c.ok("", append([]string{"consume", "--output", "json"}, args...)...)) {
		list = append(list, decode[message](c.t, line))
	}
	return list
}

// splitAcks takes the output of produce --acks --output json apart.
func splitAcks(t *testing.T, out string) ([]ack, summary) {
	t.Helper()
	all := lines(out)
	acks := make([]ack, 0, len(all))
	for _, line := range all[:len(all)-1] {
		acks = append(acks, decode[ack](t, line))
	}
	return acks, decode[summary](t, all[len(all)-1])
}

func TestProduce_TheFirstCommandOfTheReadme(t *testing.T) {
	c := newTool(t)
	r := c.run("user123\tsigned up\nuser456\tpaid\n", "produce", "orders", "--create", "--partitions", "3", "--key-separator", `\t`)
	if r.code != 0 || r.stdout != "" || !strings.Contains(r.stderr, "sent 2 records to orders") || !strings.Contains(r.stderr, "partition 2: 2 records, offsets 0 to 1") {
		t.Errorf("exit code %d, %q, %q", r.code, r.stdout, r.stderr)
	}
	if got := c.ok("", "consume", "orders"); got != "signed up\npaid\n" {
		t.Errorf("consume gives %q", got)
	}
}

func TestProduce_KeysLandWhereTheVectorsSay(t *testing.T) {
	for _, v := range []struct {
		key       string
		of3, of10 int
	}{{"", 2, 9}, {"a", 1, 7}, {"user123", 2, 4}, {"user456", 2, 5}, {"order-42", 1, 0}, {"0123456789abcdef", 0, 3}} {
		c := newTool(t)
		for partitions, want := range map[string]int{"3": v.of3, "10": v.of10} {
			topic := "vectors-" + partitions
			acks, _ := splitAcks(t, c.ok(v.key+"|x\n", "produce", topic, "--create", "--partitions", partitions, "--key-separator", "|", "--acks", "--output", "json"))
			if got := c.messages(topic); len(acks) != 1 || acks[0].Partition != want || got[0].Partition != want || *got[0].Key != v.key {
				t.Errorf("key %q of %s partitions: acknowledged as %v, read as %+v, want partition %d", v.key, partitions, acks, got, want)
			}
		}
	}
}

func TestProduce_TakesTheNewlineOnlyOffALine(t *testing.T) {
	c := newTool(t)
	in := "plain\n\nwith return\r\n  spaces  \n\x00\x1b\xff bytes\nno newline at the end"
	s := decode[summary](t, c.ok(in, "produce", "raw", "--create", "--output", "json"))
	if s.Sent != 6 || s.Partitions["0"].Count != 6 || s.Partitions["0"].Last != 5 {
		t.Errorf("summary is %+v", s)
	}
	if got := c.ok("", "consume", "raw"); got != in+"\n" {
		t.Errorf("came back as %q", got)
	}
	m := c.messages("raw")
	if m[1].Value == nil || *m[1].Value != "" || m[1].Key != nil || m[4].ValueBase64 == nil {
		t.Errorf("came back as %+v", m)
	}
}

func TestProduce_NothingIsNotAnError(t *testing.T) {
	c := newTool(t)
	s := decode[summary](t, c.ok("", "produce", "empty", "--create", "--output", "json"))
	if s.Sent != 0 || s.Failed != 0 || len(s.Partitions) != 0 {
		t.Errorf("summary is %+v", s)
	}
	if got := c.ok("", "consume", "empty"); got != "" {
		t.Errorf("consume gives %q", got)
	}
}

func TestProduce_AcknowledgesEveryLineAtItsOffset(t *testing.T) {
	c := newTool(t)
	const n = 20_000
	var in strings.Builder
	for i := range n {
		fmt.Fprintf(&in, "key-%d\tvalue-%d\n", i%97, i)
	}
	acks, s := splitAcks(t, c.ok(in.String(), "produce", "many", "--create", "--partitions", "7", "--key-separator", `\t`, "--acks", "--output", "json"))
	messages := c.messages("many")
	if s.Sent != n || len(acks) != n || len(messages) != n {
		t.Fatalf("sent %d, %d acknowledgements, %d read", s.Sent, len(acks), len(messages))
	}
	at := make(map[ack]string, n)
	last := map[string]int{}
	next := map[int]int64{}
	for _, m := range messages {
		if m.Offset != next[m.Partition] {
			t.Fatalf("partition %d gives offset %d, want %d", m.Partition, m.Offset, next[m.Partition])
		}
		next[m.Partition]++
		at[ack{Partition: m.Partition, Offset: m.Offset}] = *m.Value
		var i int
		if _, err := fmt.Sscanf(*m.Value, "value-%d", &i); err != nil || last[*m.Key] > i {
			t.Fatalf("key %s gives %s after value-%d", *m.Key, *m.Value, last[*m.Key])
		}
		last[*m.Key] = i
	}
	for _, a := range acks {
		if want := fmt.Sprintf("value-%d", a.N-1); at[ack{Partition: a.Partition, Offset: a.Offset}] != want {
			t.Fatalf("line %d was acknowledged at %d/%d, where %q is", a.N, a.Partition, a.Offset, at[ack{Partition: a.Partition, Offset: a.Offset}])
		}
	}
}

func TestProduce_ALineThatIsTooLongFailsAlone(t *testing.T) {
	c := newTool(t)
	c.ok("", "topic", "create", "limits")
	for _, args := range [][]string{nil, {"--key-separator", "::"}} {
		for _, excess := range []int{1, 3, 5_000_000} {
			in := "before\n" + strings.Repeat("x", domain.MaxRecordBytes+excess) + "\nafter\n"
			r := c.run(in, append([]string{"produce", "limits", "--output", "json"}, args...)...)
			s := decode[summary](t, r.stdout)
			if r.code != exitFail || s.Sent != 2 || s.Failed != 1 || !strings.Contains(s.FirstError, "line 2: ") || !strings.Contains(r.stderr, "1 of 3 records failed, the first in line 2") {
				t.Errorf("excess %d: exit code %d, %+v, %q", excess, r.code, s, r.stderr)
			}
		}
	}
	largest := strings.Repeat("x", domain.MaxRecordBytes)
	if s := decode[summary](t, c.ok(largest, "produce", "largest", "--create", "--output", "json")); s.Sent != 1 {
		t.Errorf("the largest record: %+v", s)
	}
	if got := c.ok("", "consume", "largest"); got != largest+"\n" {
		t.Errorf("the largest record came back with %d bytes", len(got))
	}
}

func TestProduce_JSONLinesKeepEveryField(t *testing.T) {
	c := newTool(t)
	in := `{"key":"k","value":"v\n","partition":2,"timestamp":"2026-01-02T15:04:05.678Z","headers":{"a":"1","b":null}}
{"key":null,"value":null}
{"key":"","value":""}
{"key_base64":"/w==","value_base64":"AP8=","timestamp":1700000000123,"headers":[{"key":"a","value":"1"},{"key":"a","value_base64":"/w=="}]}
{}
`
	c.ok("", "topic", "create", "events", "--partitions", "3")
	c.ok(in, "produce", "events", "--format", "json", "--partition", "1")
	first := c.ok("", "consume", "events", "--output", "json")
	m := c.messages("events", "--partition", "2")
	if len(m) != 1 || *m[0].Key != "k" || *m[0].Value != "v\n" || m[0].Timestamp != "2026-01-02T15:04:05.678Z" || string(m[0].Headers) != `{"a":"1","b":null}` {
		t.Errorf("partition 2 holds %+v", m)
	}
	m = c.messages("events", "--partition", "1")
	if len(m) != 4 || m[0].Key != nil || m[0].Value != nil || m[1].Key == nil || m[1].Value == nil || *m[2].KeyBase64 != "/w==" || *m[2].ValueBase64 != "AP8=" || m[3].Value != nil {
		t.Errorf("partition 1 holds %+v", m)
	}
	// What consume writes goes back in, and comes out the same.
	c.ok("", "topic", "create", "copy", "--partitions", "3")
	c.ok(first, "produce", "copy", "--format", "json")
	if second := c.ok("", "consume", "copy", "--output", "json"); strings.ReplaceAll(second, `"topic":"copy"`, `"topic":"events"`) != first {
		t.Errorf("copied\n%s\nas\n%s", first, second)
	}
}

func TestProduce_NamesTheLineThatIsNotARecord(t *testing.T) {
	c := newTool(t)
	c.ok("", "topic", "create", "events", "--partitions", "2")
	in := `{"value":"one"}` + "\n" + `{"vlaue":"two"}` + "\n\n" + `{"value":"four","partition":2}` + "\n" + `{"value":"five"}`
	r := c.run(in, "produce", "events", "--format", "json", "--output", "json", "--acks")
	acks, s := splitAcks(t, r.stdout)
	if r.code != exitFail || s.Sent != 2 || s.Failed != 3 || !strings.Contains(r.stderr, "3 of 5 records failed, the first in line 2: column") || !strings.Contains(r.stderr, `unknown field "vlaue"`) {
		t.Errorf("exit code %d, %+v, %q", r.code, s, r.stderr)
	}
	for _, a := range acks {
		if a.N != 1 && a.N != 5 {
			t.Errorf("line %d is acknowledged", a.N)
		}
	}
	r = c.run(`{"value":"x","partition":2}`, "produce", "events", "--format", "json")
	if r.code != exitFail || !strings.Contains(r.stderr, `partition 2 of topic "events" does not exist: it has 2`) {
		t.Errorf("exit code %d, %q", r.code, r.stderr)
	}
}

func TestProduce_RefusesAPartitionThatIsNotThereBeforeReading(t *testing.T) {
	c := newTool(t)
	c.ok("", "topic", "create", "events", "--partitions", "2")
	r := c.runWith(context.Background(), unreadable{t}, nil, "produce", "events", "--partition", "2")
	if r.code != exitFail || !strings.Contains(r.stderr, "it has 2, numbered from 0") {
		t.Errorf("exit code %d, %q", r.code, r.stderr)
	}
	if r := c.runWith(context.Background(), unreadable{t}, nil, "produce", "nothing"); r.code != exitFail || !strings.Contains(r.stderr, "create it first") {
		t.Errorf("exit code %d, %q", r.code, r.stderr)
	}
}

// unreadable is an input that must not be read.
type unreadable struct{ t *testing.T }

func (u unreadable) Read([]byte) (int, error) {
	u.t.Error("the input was read")
	return 0, io.EOF
}

func TestProduce_CreateLeavesAnExistingTopicAsItIs(t *testing.T) {
	c := newTool(t)
	c.ok("a\n", "produce", "events", "--create", "--partitions", "2")
	c.ok("b\n", "produce", "events", "--create", "--partitions", "9")
	if got := c.ok("", "topic", "list"); !strings.Contains(got, "events  2 ") {
		t.Errorf("list says %q", got)
	}
}

func TestProduce_InterruptedStoresWhatItAccepted(t *testing.T) {
	c := newTool(t)
	ctx, interrupt := context.WithCancel(context.Background())
	stdin, feed := io.Pipe()
	outR, outW := io.Pipe()
	done := make(chan result)
	go func() {
		defer outW.Close()
		done <- c.runWith(ctx, stdin, outW, "produce", "events", "--create", "--acks")
	}()
	out := bufio.NewScanner(outR)
	for i := range 3 {
		if _, err := fmt.Fprintf(feed, "line %d\n", i); err != nil {
			t.Fatal(err)
		}
		if !out.Scan() { // a line is acknowledged though the input goes on
			t.Fatal("no acknowledgement")
		}
		if a := decode[ack](t, out.Text()); a.N != int64(i+1) || a.Offset != int64(i) {
			t.Errorf("line %d is acknowledged as %+v", i+1, a)
		}
	}
	interrupt()
	r := <-done
	if err := feed.Close(); err != nil {
		t.Fatal(err)
	}
	if r.code != exitFail || !strings.Contains(r.stderr, "sent 3 records") || !strings.Contains(r.stderr, "interrupted after line 3") {
		t.Errorf("exit code %d, %q", r.code, r.stderr)
	}
	if got := c.ok("", "consume", "events"); got != "line 0\nline 1\nline 2\n" {
		t.Errorf("stored is %q", got)
	}
}

// endless is an input without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return copy(p, "another line\n"), nil }

func TestProduce_StopsWhenTheAcknowledgementsCannotBeWritten(t *testing.T) {
	c := newTool(t)
	r := c.runWith(context.Background(), endless{}, &failingWriter{left: 40, err: syscall.EPIPE}, "produce", "events", "--create", "--acks")
	if r.code != exitFail || !strings.Contains(r.stderr, "acknowledgements could not be written") {
		t.Errorf("exit code %d, %q", r.code, r.stderr)
	}
	if stored := len(lines(c.ok("", "consume", "events"))); !strings.Contains(r.stderr, fmt.Sprintf("sent %s record", grouped(int64(stored)))) {
		t.Errorf("%d stored: %q", stored, r.stderr)
	}
}

func TestProduce_TellsOfAnInputThatBreaks(t *testing.T) {
	c := newTool(t)
	stdin := io.MultiReader(strings.NewReader("one\ntwo\npart"), brokenReader{})
	r := c.runWith(context.Background(), stdin, nil, "produce", "events", "--create")
	if r.code != exitFail || !strings.Contains(r.stderr, "read standard input after line 2: input/output error") {
		t.Errorf("exit code %d, %q", r.code, r.stderr)
	}
	if got := c.ok("", "consume", "events"); got != "one\ntwo\n" {
		t.Errorf("stored is %q", got)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, syscall.EIO }

func TestProduce_ANamedProducerGoesOnAfterARestart(t *testing.T) {
	c := newTool(t)
	for range 3 {
		c.ok("x\n", "produce", "events", "--create", "--producer-name", "loader")
	}
	if got := c.ok("", "consume", "events"); got != "x\nx\nx\n" {
		t.Errorf("stored is %q", got)
	}
}

func TestProduce_StoresByURLsWorkTogether(t *testing.T) {
	c := newTool(t)
	at := []string{"--metadata", "sqlite:" + c.dir + "/m/meta.db", "--segments", "file:" + c.dir + "/s"}
	c.ok("x\n", append([]string{"produce", "events", "--create"}, at...)...)
	if got := c.ok("", append([]string{"consume", "events"}, at...)...); got != "x\n" {
		t.Errorf("stored is %q", got)
	}
	if got := c.fails(exitFail, "", "consume", "events"); !strings.Contains(got, "not found") {
		t.Errorf("the data folder has it too: %q", got)
	}
}
