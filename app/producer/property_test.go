package producer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// plan is one drawn history: what the goroutines do, and what goes wrong.
type plan struct {
	Seed      uint64
	Change    Config // the fields that vary
	Rates     rates
	Senders   [][]op
	Admin     []op
	CloseSoon bool // Close with an ended context, while all is under way
}

type opKind uint8

const (
	send opKind = iota
	sendAsync
	sendWithCallback
	trySend
	sendBatch
	flush
	pause
	deleteTopic
	createTopic
	widenTopic
	expire
	fence
)

type op struct {
	Kind      opKind
	Partition int // -1: by the partitioner
	Size      int
	Count     int
	Pause     time.Duration
}

func drawPlan(t *rapid.T) plan {
	var p plan
	p.Seed = rapid.Uint64Range(1, 1<<40).Draw(t, "seed")
	p.Change = Config{
		BatchSize:       rapid.SampledFrom([]int{1, 3, 100}).Draw(t, "BatchSize"),
		BatchBytes:      rapid.SampledFrom([]int{1, 300, 1 << 20}).Draw(t, "BatchBytes"),
		BatchTimeout:    rapid.SampledFrom([]time.Duration{time.Millisecond, 100 * time.Millisecond}).Draw(t, "BatchTimeout"),
		RequestTimeout:  rapid.SampledFrom([]time.Duration{time.Second, 30 * time.Second}).Draw(t, "RequestTimeout"),
		DeliveryTimeout: rapid.SampledFrom([]time.Duration{5 * time.Second, 20 * time.Second}).Draw(t, "DeliveryTimeout"),
		MaxRetries:      rapid.SampledFrom([]int{Unlimited, Unlimited, 0, 3}).Draw(t, "MaxRetries"),
		BufferBytes:     rapid.SampledFrom([]int64{700, 6000, 64 << 20}).Draw(t, "BufferBytes"),
		Idempotence:     rapid.SampledFrom([]bool{true, true, true, false}).Draw(t, "Idempotence"),
	}
	if p.Change.Idempotence && rapid.Bool().Draw(t, "named") {
		p.Change.Name = "billing"
	}
	rate := func(name string) float64 {
		return rapid.SampledFrom([]float64{0, 0, 0, 0.03, 0.3}).Draw(t, name)
	}
	p.Rates = rates{
		AppendRefused: rate("append refused"), AppendBlocks: rate("append blocks"),
		Drop: rate("drop"), LoseAnswer: rate("lose answer"), LoseBatch: rate("lose batch"), Twice: rate("twice"), Wrong: rate("wrong"),
		Slow: rate("slow"), Hang: rate("hang"), Sync: rate("sync"),
		MetaAway: rate("metadata away"), MetaLost: rate("metadata answers lost"), MetaHang: rate("metadata hangs"),
	}
	senderOps := []opKind{send, sendAsync, sendAsync, sendWithCallback, sendWithCallback, sendWithCallback, trySend, sendBatch, flush, pause, pause}
	p.Senders = rapid.SliceOfN(rapid.SliceOfN(drawOp(senderOps), 1, 25), 1, 3).Draw(t, "senders")
	adminOps := []opKind{pause, pause, pause, deleteTopic, createTopic, createTopic, widenTopic, expire}
	if p.Change.Name != "" {
		adminOps = append(adminOps, fence)
	}
	p.Admin = rapid.SliceOfN(drawOp(adminOps), 0, 6).Draw(t, "admin")
	p.CloseSoon = rapid.SampledFrom([]bool{false, false, true}).Draw(t, "close soon")
	return p
}

func drawOp(kinds []opKind) *rapid.Generator[op] {
	return rapid.Custom(func(t *rapid.T) op {
		o := op{Kind: rapid.SampledFrom(kinds).Draw(t, "kind"), Partition: rapid.IntRange(-1, 2).Draw(t, "partition")}
		switch o.Kind {
		case pause, flush, send, sendBatch:
			o.Pause = time.Duration(rapid.SampledFrom([]int{0, 1, 10, 100, 1000, 8000}).Draw(t, "ms")) * time.Millisecond
		}
		switch o.Kind {
		case sendBatch, sendAsync, sendWithCallback:
			o.Count = rapid.IntRange(1, 8).Draw(t, "count")
		}
		o.Size = rapid.SampledFrom([]int{0, 0, 10, 10, 200, 400}).Draw(t, "size")
		if rapid.IntRange(0, 500).Draw(t, "huge") == 500 {
			o.Size = domain.MaxRecordBytes - 100
		}
		return o
	})
}

// sent is one record of the model.
type sent struct {
	value    string
	sender   int
	index    int
	callback bool
	pending  *Pending

	mu       sync.Mutex
	accepted time.Time
	fates    int // told by Wait or Send
	calls    int // of the callback
	order    int // of the callback among all
	at       time.Time
	result   domain.SendResult
	err      error
}

// history is one run of a plan.
type history struct {
	plan    plan
	lab     *lab
	p       *Producer
	mu      sync.Mutex
	records []*sent
	called  int
	tellers sync.WaitGroup
	faults  []string
	ids     map[domain.TopicID]bool // deleted
	fenced  bool
}

func (h *history) fault(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, fmt.Sprintf(format, args...))
}

func (h *history) record(sender int, o op) (*sent, domain.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &sent{sender: sender, index: len(h.records)}
	s.value = fmt.Sprintf("%d:%s", s.index, strings.Repeat("x", o.Size))
	h.records = append(h.records, s)
	r := domain.Record{Topic: "t", Value: []byte(s.value)}
	if o.Partition >= 0 {
		r.Partition = domain.ToPartition(domain.PartitionID(o.Partition))
	}
	return s, r
}

// told notes a fate by the call or by Wait.
func (h *history) told(s *sent, r domain.SendResult, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fates++
	s.at, s.result, s.err = time.Now(), r, err
}

// call is the callback of s.
func (h *history) call(s *sent) Callback {
	s.callback = true
	return func(r domain.SendResult, err error) {
		h.mu.Lock()
		h.called++
		order := h.called
		h.mu.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.calls++
		s.order = order
		if s.fates > 0 && (r != s.result || err != s.err) {
			h.fault("record %d: callback was told %v %v, Wait %v %v", s.index, r, err, s.result, s.err)
		}
	}
}

// follow waits for the fate of an accepted record.
func (h *history) follow(s *sent, pending *Pending) {
	s.pending, s.accepted = pending, time.Now()
	h.tellers.Go(func() {
		<-pending.Done()
		r, err := pending.Wait(context.Background())
		h.told(s, r, err)
	})
}

func (h *history) do(sender int, o op) {
	ctx := context.Background()
	if o.Pause > 0 && o.Kind != pause {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Pause)
		defer cancel()
	}
	switch o.Kind {
	case pause:
		<-time.After(o.Pause)
	case flush:
		if err := h.p.Flush(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			h.fault("flush: %v", err)
		}
	case send:
		s, r := h.record(sender, o)
		result, err := h.p.Send(ctx, r)
		h.told(s, result, err)
	case sendAsync:
		for range o.Count {
			s, r := h.record(sender, o)
			h.follow(s, h.p.SendAsync(ctx, r, nil))
		}
	case sendWithCallback:
		for range o.Count {
			s, r := h.record(sender, o)
			h.follow(s, h.p.SendAsync(ctx, r, h.call(s)))
		}
	case trySend:
		s, r := h.record(sender, o)
		pending, err := h.p.TrySend(r, h.call(s))
		if err != nil {
			s.callback = false
			h.told(s, domain.SendResult{Offset: -1}, err)
			return
		}
		h.follow(s, pending)
	case sendBatch:
		h.sendBatch(ctx, sender, o)
	}
}

func (h *history) sendBatch(ctx context.Context, sender int, o op) {
	var all []*sent
	var records []domain.Record
	for range o.Count {
		s, r := h.record(sender, o)
		all, records = append(all, s), append(records, r)
	}
	results, err := h.p.SendBatch(ctx, records)
	var failed *BatchError
	if err != nil && !errors.As(err, &failed) {
		h.fault("SendBatch: %v", err)
		return
	}
	for i, s := range all {
		var err error
		if failed != nil {
			err = failed.Errors[i]
		}
		h.told(s, results[i], err)
	}
}

func (h *history) administer(o op) {
	ctx := context.Background()
	topic, err := h.lab.Metadata.Topic(ctx, "t")
	switch {
	case o.Kind == pause:
		<-time.After(o.Pause)
	case o.Kind == expire:
		<-time.After(ports.ProducerExpiry + time.Hour)
	case o.Kind == fence:
		h.fenced = true
		_, _ = h.lab.Metadata.RegisterProducer(ctx, "billing")
	case o.Kind == createTopic && err != nil:
		_, _ = h.lab.CreateTopic(ctx, domain.TopicSpec{Name: "t", Partitions: 2})
	case o.Kind == deleteTopic && err == nil:
		_ = h.lab.DeleteTopic(ctx, topic.ID)
		h.ids[topic.ID] = true
	case o.Kind == widenTopic && err == nil:
		_, _ = h.lab.WidenTopic(ctx, topic.ID, 3)
	}
}

// run plays the plan in a bubble.
func (pl plan) run(t *testing.T) []string {
	h := &history{plan: pl, lab: newLab(pl.Seed, pl.Rates), ids: map[domain.TopicID]bool{}}
	if _, err := h.lab.CreateTopic(t.Context(), domain.TopicSpec{Name: "t", Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	c, cfg := pl.Change, DefaultConfig()
	cfg.BatchSize, cfg.BatchBytes, cfg.BatchTimeout = c.BatchSize, c.BatchBytes, c.BatchTimeout
	cfg.RequestTimeout, cfg.DeliveryTimeout, cfg.MaxRetries = c.RequestTimeout, c.DeliveryTimeout, c.MaxRetries
	cfg.BufferBytes, cfg.Idempotence, cfg.Name, cfg.Seed = c.BufferBytes, c.Idempotence, c.Name, pl.Seed
	var err error
	for h.p, err = nil, errAway; err != nil; {
		h.p, err = New(context.Background(), Ports{Topics: h.lab, Producers: &patient{h.lab}, Transport: h.lab, Telemetry: ports.NoTelemetry{}}, cfg)
	}
	var senders sync.WaitGroup
	for i, ops := range pl.Senders {
		senders.Go(func() {
			for _, o := range ops {
				h.do(i, o)
			}
		})
	}
	for _, o := range pl.Admin {
		h.administer(o)
	}
	if pl.CloseSoon {
		h.closeSoon(senders.Wait)
	} else {
		senders.Wait()
		h.settleDown()
	}
	h.tellers.Wait()
	<-time.After(time.Minute) // a Close that was cut short waits for no goroutine
	h.check()
	return append(h.faults, h.lab.faults...)
}

// patient gives RegisterProducer a deadline of its own: New has none.
type patient struct{ *lab }

func (p *patient) RegisterProducer(ctx context.Context, name string) (ports.ProducerSession, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	return p.lab.RegisterProducer(ctx, name)
}

func (h *history) closeSoon(sendersEnd func()) {
	<-time.After(time.Second)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = h.p.Close(ctx)
	sendersEnd()
	synctest.Wait()
	for _, s := range h.records {
		if s.pending != nil {
			select {
			case <-s.pending.Done():
			default:
				h.fault("record %d has no fate after Close", s.index)
			}
		}
	}
}

// settleDown heals everything; then all must settle and the producer work.
func (h *history) settleDown() {
	h.lab.heal()
	healed := time.Now()
	h.administer(op{Kind: createTopic})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := h.p.Flush(ctx); err != nil {
		h.fault("flush after healing: %v", err)
	}
	if took := time.Since(healed); took > time.Minute+h.plan.Change.RequestTimeout {
		h.fault("all settled only %s after healing", took)
	}
	// What still hangs in a partition's queue of the transport goes first; a deleted
	// topic that is still known costs one record a partition.
	<-time.After(time.Minute)
	for id := range 2 {
		for attempt := 0; ; attempt++ {
			s, r := h.record(-1, op{Partition: id})
			result, err := h.p.Send(ctx, r)
			h.told(s, result, err)
			if err == nil || h.fenced && errors.Is(err, domain.ErrFenced) {
				break
			}
			if attempt > 3 || !errors.Is(err, domain.ErrTopicNotFound) {
				h.fault("partition %d does not work after healing: %v", id, err)
				break
			}
		}
	}
	synctest.Wait()
	if used, retained := h.p.budget.used.Load(), h.p.retained.Load(); used != 0 || retained != 0 {
		h.fault("%d bytes of the budget are held when idle, %d retained", used, retained)
	}
	if n := h.p.dispatcher.inflight.Load(); n != 0 {
		h.fault("%d bytes are said to be in flight when idle", n)
	}
	if err := h.p.Close(ctx); err != nil {
		h.fault("close: %v", err)
	}
}

func TestProducer_TellsEveryRecordItsTrueFateThroughAllFaults(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		pl := drawPlan(rt)
		var faults []string
		synctest.Test(t, func(t *testing.T) { faults = pl.run(t) })
		if len(faults) > 0 {
			rt.Fatalf("%s", strings.Join(faults, "\n"))
		}
	})
}
