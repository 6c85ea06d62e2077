package consumer_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// machine compares a consumer with the simplest model of one: a position for
// each partition. Its actions are the methods that rapid calls in any order.
type machine struct {
	t     *testing.T
	w     *world
	c     *consumer.Consumer
	topic domain.Topic
	parts []*modelPartition
	// outages is how many whole fetches may still fail, outage when the last did.
	outages int
	outage  time.Time
}

type modelPartition struct {
	id       domain.PartitionID
	position domain.Offset
	paused   bool
	corrupt  bool
	// above: the position was sought above the high watermark.
	above bool
	// damaged: the partition was corrupt at some time, and the error may be
	// buffered still.
	damaged bool
}

func (m *machine) log(p *modelPartition) (l log) {
	m.w.change(func() { l = *m.w.log(key(m.topic, p.id)) })
	return l
}

func newMachine(t *testing.T, rt *rapid.T) *machine {
	m := &machine{t: t, w: newWorld(t)}
	m.topic = m.w.topic("orders", 3)
	m.w.fault = func(k commit.PartitionKey, _ domain.Offset, f *ports.FetchedPartition) {
		if int(k.Partition) < len(m.parts) && m.parts[k.Partition].corrupt && len(f.Batches) > 0 {
			f.Batches[70] ^= 1
		}
	}
	fetchBytes := rapid.SampledFrom([]int64{1, 200, 1000, 1 << 20}).Draw(rt, "fetch bytes")
	cfg := settings()
	cfg.FetchBytes = fetchBytes
	c, err := consumer.New(consumer.Ports{Topics: m.w, Fetcher: m.w}, cfg)
	if err != nil {
		rt.Fatal(err)
	}
	m.c = c
	m.sync()
	if err := c.Assign(context.Background(), "orders", consumer.Start()); err != nil {
		rt.Fatal(err)
	}
	return m
}

// sync lets the model have the partitions of the topic.
func (m *machine) sync() {
	for len(m.parts) < int(m.topic.Partitions) {
		m.parts = append(m.parts, &modelPartition{id: domain.PartitionID(len(m.parts))})
	}
}

func (m *machine) draw(rt *rapid.T) *modelPartition {
	return m.parts[rapid.IntRange(0, len(m.parts)-1).Draw(rt, "partition")]
}

// known reports whether the consumer has noticed the partition.
func (m *machine) known(p *modelPartition) bool {
	_, err := m.c.Position("orders", p.id)
	return err == nil
}

func (m *machine) Append(rt *rapid.T) {
	p := m.draw(rt)
	for range rapid.IntRange(1, 4).Draw(rt, "batches") {
		m.w.append(m.topic, p.id, rapid.IntRange(1, 9).Draw(rt, "records"))
	}
}

func (m *machine) Poll(rt *rapid.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 12*time.Second)
	defer cancel()
	m.poll(ctx, rt, rapid.SampledFrom([]int{1, 2, 5, 20, 1000}).Draw(rt, "max"))
}

func (m *machine) poll(ctx context.Context, rt *rapid.T, most int) {
	messages, err := m.c.Poll(ctx, most)
	if len(messages) > most {
		rt.Fatalf("poll of %d gave %d", most, len(messages))
	}
	for _, got := range messages {
		m.take(rt, got)
	}
	if err != nil {
		m.judge(rt, err)
	}
}

func (m *machine) Records(rt *rapid.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 12*time.Second)
	defer cancel()
	left := rapid.IntRange(1, 12).Draw(rt, "stop after")
	for got, err := range m.c.Records(ctx) {
		if err != nil {
			m.judge(rt, err)
		} else {
			m.take(rt, got)
		}
		if left--; left == 0 {
			return
		}
	}
}

// ReadToEnd reads what there is, and nothing that comes while it does.
func (m *machine) ReadToEnd(rt *rapid.T) {
	ends := make(map[*modelPartition]domain.Offset)
	for _, p := range m.parts {
		ends[p] = m.log(p).end
	}
	ctx, cancel := context.WithTimeout(context.Background(), 12*time.Second)
	defer cancel()
	failed := false
	for got, err := range m.c.ReadToEnd(ctx) {
		if err != nil {
			m.judge(rt, err)
			failed = true
			break
		}
		m.take(rt, got)
		p := m.parts[got.Partition]
		if got.Offset >= ends[p] {
			rt.Fatalf("%d/%d is behind the end %d", got.Partition, got.Offset, ends[p])
		}
		m.w.append(m.topic, 0, 1)
	}
	for p, end := range ends {
		if !failed && !p.paused && p.position < end {
			rt.Fatalf("partition %d was read to %d of %d", p.id, p.position, end)
		}
	}
}

func (m *machine) take(rt *rapid.T, got domain.Message) {
	p := m.parts[got.Partition]
	switch {
	case p.paused:
		rt.Fatalf("message of the paused partition %d", p.id)
	case got.Offset != p.position:
		rt.Fatalf("partition %d: got offset %d, want %d", p.id, got.Offset, p.position)
	case string(got.Value) != string(value(p.id, p.position)):
		rt.Fatalf("partition %d offset %d: value %q", p.id, got.Offset, got.Value)
	}
	p.position++
}

// judge checks that err has a reason. At the deadline everything that can be
// read must have been.
func (m *machine) judge(rt *rapid.T, err error) {
	var where *consumer.PartitionError
	var out *domain.OutOfRangeError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		if m.outages > 0 || time.Since(m.outage) < 6*time.Second {
			return // The consumer waits to try again.
		}
		for _, p := range m.parts {
			l := m.log(p)
			// The longer nothing came, the later a new partition is noticed.
			excused := p.paused || p.corrupt || p.above || p.position < l.start || !m.known(p)
			if !excused && p.position != l.end {
				rt.Fatalf("partition %d stays at %d of %d..%d: %+v", p.id, p.position, l.start, l.end, *p)
			}
		}
	case errors.As(err, &where):
		p := m.parts[where.Partition]
		l := m.log(p)
		outside := p.position < l.start || p.above
		isOut := errors.As(err, &out) && outside && out.Topic == "orders"
		if where.Offset != p.position || p.paused || !isOut && !(p.damaged && errors.Is(err, domain.ErrCorrupt)) {
			rt.Fatalf("partition %d is at %d of %d..%d, no reason for %v", p.id, p.position, l.start, l.end, err)
		}
	case m.outages > 0 && errors.Is(err, domain.ErrMetadata):
		m.outages--
		m.outage = time.Now()
	default:
		rt.Fatalf("no reason for %v", err)
	}
}

func (m *machine) Seek(rt *rapid.T) {
	p := m.draw(rt)
	l := m.log(p)
	at := domain.Offset(rapid.Int64Range(max(0, int64(l.start)-2), int64(l.end)+2).Draw(rt, "offset"))
	pos := consumer.At(at)
	kind := rapid.IntRange(0, 5).Draw(rt, "kind")
	if !m.known(p) {
		return
	}
	switch kind {
	case 0:
		pos, at = consumer.Start(), l.start
	case 1:
		pos, at = consumer.End(), l.end
	case 2:
		pos, at = consumer.Since(time.Unix(int64(at), 0)), min(max(at, l.start), l.end)
	}
	if err := m.c.Seek(context.Background(), "orders", p.id, pos); err != nil {
		rt.Fatal(err)
	}
	p.position, p.above = at, at > l.end
}

func (m *machine) Pause(rt *rapid.T)  { m.setPaused(rt, true) }
func (m *machine) Resume(rt *rapid.T) { m.setPaused(rt, false) }

func (m *machine) setPaused(rt *rapid.T, paused bool) {
	p := m.draw(rt)
	if !m.known(p) {
		return
	}
	set := m.c.Resume
	if paused {
		set = m.c.Pause
	}
	if err := set("orders", p.id); err != nil {
		rt.Fatal(err)
	}
	p.paused = paused
}

func (m *machine) Trim(rt *rapid.T) {
	p := m.draw(rt)
	l := m.log(p)
	to := domain.Offset(rapid.Int64Range(int64(l.start), int64(l.end)).Draw(rt, "to"))
	m.w.trim(m.topic, p.id, to)
}

func (m *machine) Corrupt(rt *rapid.T) {
	p := m.draw(rt)
	m.w.change(func() {
		p.corrupt = !p.corrupt
		p.damaged = true
	})
}

func (m *machine) Outage(*rapid.T) {
	m.outages++
	m.w.change(func() {
		m.w.fails = append(m.w.fails, ports.MetadataError("plan", ports.Transient, errors.New("down")))
	})
}

func (m *machine) Widen(rt *rapid.T) {
	if m.topic.Partitions == 6 {
		return
	}
	topic, err := m.w.WidenTopic(context.Background(), m.topic.ID, m.topic.Partitions+1)
	if err != nil {
		rt.Fatal(err)
	}
	m.w.change(func() { // The fault looks at the model's partitions.
		m.topic = topic
		m.sync()
	})
}

// Wait lets the fetch ahead happen, or time pass.
func (m *machine) Wait(rt *rapid.T) {
	synctest.Wait()
	<-time.After(time.Duration(rapid.IntRange(0, 7000).Draw(rt, "ms")) * time.Millisecond)
}

// Check runs after every action.
func (m *machine) Check(rt *rapid.T) {
	for _, p := range m.parts {
		at, err := m.c.Position("orders", p.id)
		if err == nil && at != p.position {
			rt.Fatalf("partition %d is at %d, want %d", p.id, at, p.position)
		}
	}
}

// inBubbleEach checks property in bubbles of virtual time. Its failures cross
// into the goroutine that rapid runs it in.
func inBubbleEach(t *testing.T, property func(t *testing.T, rt *rapid.T)) {
	t.Helper()
	rapid.Check(t, func(rt *rapid.T) {
		var failure any
		synctest.Test(t, func(t *testing.T) {
			defer func() { failure = recover() }()
			property(t, rt)
		})
		if failure != nil {
			panic(failure)
		}
	})
}

// drainLimit is longer than a consumer takes to notice a new partition.
const drainLimit = 15 * time.Minute

func TestConsumer_AgreesWithItsModel(t *testing.T) {
	inBubbleEach(t, func(t *testing.T, rt *rapid.T) {
		m := newMachine(t, rt)
		defer func() { must(t, m.c.Close()) }()
		rt.Repeat(rapid.StateMachineActions(m))
		m.heal(rt)
		ctx, cancel := context.WithTimeout(t.Context(), drainLimit)
		defer cancel()
		for !m.drained() {
			m.poll(ctx, rt, 1000)
			m.seekIn(rt)
			if ctx.Err() != nil {
				rt.Fatalf("not drained %s after the last fault", drainLimit)
			}
		}
	})
}

// heal ends every fault and pause.
func (m *machine) heal(rt *rapid.T) {
	m.w.change(func() {
		m.w.fails = nil
		for _, p := range m.parts {
			p.corrupt = false
		}
	})
	for _, p := range m.parts {
		m.w.append(m.topic, p.id, 1)
		if m.known(p) {
			must(m.t, m.c.Resume("orders", p.id))
			p.paused = false
		}
	}
	m.seekIn(rt)
}

// seekIn moves partitions that are out of range to their start: a choice that
// only the application can make.
func (m *machine) seekIn(rt *rapid.T) {
	m.Check(rt)
	for _, p := range m.parts {
		start := m.log(p).start
		if m.known(p) && (p.position < start || p.above) {
			must(m.t, m.c.Seek(context.Background(), "orders", p.id, consumer.Start()))
			p.position, p.above = start, false
		}
	}
}

func (m *machine) drained() bool {
	for _, p := range m.parts {
		if p.position != m.log(p).end {
			return false
		}
	}
	return true
}
