package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/adapters/fault"
	"github.com/streamhouse/streamhouse/app/producer"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/test/sim/history"
)

const (
	// settleBound is how long an operation may take after everything healed:
	// what a delivery may take, and the minute that guarantees.md allows.
	settleBound = 4 * time.Minute
	// openTries bounds how often a worker tries to open a producer or consumer
	// under faults.
	openTries = 50
)

// writer is an application that sends records.
type writer struct {
	world      *world
	plan       writerPlan
	name       string
	random     *rand.Rand
	generation int
	sent       int
	session    *session
}

// session is one producer and the process it lives in.
type session struct {
	*process
	id       string
	producer *producer.Producer
	patient  bool // retries are bounded by the delivery timeout only
	fatal    bool // it said that it is of no further use; writer's goroutine only
}

func (w *writer) run() {
	restarts := w.plan.restarts
	w.open()
	for w.sent < w.plan.sends && w.session != nil {
		if len(restarts) > 0 && w.sent >= restarts[0].before {
			w.change(restarts[0].zombie)
			restarts = restarts[1:]
			continue
		}
		if !w.session.step("send") || w.session.fatal {
			w.leave(w.session)
			w.open()
			continue
		}
		w.act()
	}
	if w.session != nil && w.world.plan.Mode == Scripted {
		w.flush() // so that every call comes before the heal, where it can be in a script
	}
	w.world.awaitHeal()
	w.finish()
}

// open makes the next session. It gives up, and leaves none, if that keeps
// failing.
func (w *writer) open() {
	w.session = nil
	for range openTries {
		if s := w.tryOpen(); s != nil {
			w.session = s
			return
		}
		time.Sleep(time.Second)
	}
}

func (w *writer) tryOpen() *session {
	w.generation++
	id := fmt.Sprintf("%s.%d", w.name, w.generation)
	s := &session{process: w.world.newProcess(id, true), id: id, patient: w.plan.retries < 0}
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	reached, closer, err := w.reach(ctx, s.process)
	if err == nil {
		s.producer, err = producer.New(ctx, reached, w.config())
	}
	if err != nil {
		if w.world.quiet() {
			w.world.violate("%s: open producer without a fault: %v", id, err)
		}
		if reached.Transport != nil {
			s.closers = append(s.closers, reached.Transport.Close, closer)
		}
		return nil
	}
	s.closers = append(s.closers, s.producer.Close, closer)
	w.world.observe(s.process, history.Event{Kind: history.Open, Session: id, Name: w.plan.producer, Weak: w.plan.weak})
	if s.dead.Load() {
		return nil
	}
	return s
}

// reach opens what a producer of p works with, and returns what closes it after
// the producer.
func (w *writer) reach(ctx context.Context, p *process) (producer.Ports, func(context.Context) error, error) {
	nothing := func(context.Context) error { return nil }
	if !w.plan.remote {
		transport, err := w.transport(p)
		return producer.Ports{Topics: p.metadata, Producers: p.metadata, Transport: transport, Telemetry: ports.NoTelemetry{}}, nothing, err
	}
	client, err := w.world.agents.dial(ctx, p)
	if err != nil {
		return producer.Ports{}, nothing, err
	}
	reached := producer.Ports{Topics: client, Producers: client, Transport: client.NewTransport(), Telemetry: ports.NoTelemetry{}}
	return reached, func(context.Context) error { return client.Close() }, nil
}

func (w *writer) transport(p *process) (ports.Transport, error) {
	cfg := direct.DefaultConfig()
	cfg.Seed = w.world.plan.Seed + 1
	cfg.FlushBytes = 4 << 10
	if w.plan.slow {
		cfg.FlushInterval = 10*time.Millisecond + 7
	}
	t, err := direct.NewWriter(p.metadata, p.segments, ports.NoTelemetry{}, cfg)
	if err != nil || !w.plan.agent {
		return t, err
	}
	return fault.NewTransport(t, w.world.scheduler.intercept(p)), nil
}

func (w *writer) config() producer.Config {
	cfg := producer.DefaultConfig()
	cfg.BatchSize, cfg.BatchBytes, cfg.BatchTimeout = w.plan.batchSize, w.plan.batchBytes, w.plan.batchTimeout
	cfg.RequestTimeout, cfg.DeliveryTimeout = w.plan.request, w.plan.delivery
	cfg.MaxRetries, cfg.BufferBytes = w.plan.retries, w.plan.buffer
	cfg.Idempotence, cfg.Name = !w.plan.weak, w.plan.producer
	cfg.Seed = w.world.plan.Seed + 1
	return cfg
}

// act sends something, in one of the ways there are.
func (w *writer) act() {
	switch w.random.IntN(12) {
	case 0, 1:
		w.send()
	case 2:
		w.sendBatch()
	case 3:
		w.trySend()
	case 4:
		w.flush()
	case 5:
		if w.plan.slow {
			time.Sleep(time.Duration(w.random.IntN(300)) * time.Millisecond)
		}
	default:
		for range 1 + w.random.IntN(4) {
			w.sendAsync(w.session)
		}
	}
}

// next makes the next record and notes that it is being sent.
func (w *writer) next(s *session) (string, domain.Record) {
	w.sent++
	id := fmt.Sprintf("%s-%d", s.id, w.sent)
	r := newRecord(w.random, id, w.world.plan.topics[w.random.IntN(len(w.world.plan.topics))].name)
	if w.random.IntN(2) == 0 {
		r.Partition = domain.ToPartition(domain.PartitionID(w.random.IntN(3)))
	}
	w.world.sending(s.process, s.id, id, r)
	return id, r
}

// settled notes the end of a send, and whether it should have been better.
func (s *session) settled(id string, result domain.SendResult, err error) {
	s.world.settled(s.process, id, result, err)
	if err == nil || s.dead.Load() {
		return
	}
	if s.world.strict() && (s.patient || s.world.quiet()) && !s.excused(err) {
		s.world.violate("%s failed, though at most one thing went wrong: %v", id, err)
	}
}

// excused reports whether err may happen though nothing went wrong.
func (s *session) excused(err error) bool {
	for _, expected := range []error{
		domain.ErrTopicNotFound, domain.ErrInvalidPartition, domain.ErrFenced, domain.ErrClosed, domain.ErrBufferFull,
		domain.ErrWouldBlock, context.DeadlineExceeded, domain.ErrRecordTooLarge,
	} {
		if errors.Is(err, expected) {
			return true
		}
	}
	var given *domain.DeliveryError
	lookUp := errors.Is(err, domain.ErrTimeout) && !errors.As(err, &given)
	// It may have been delayed past its time.
	return lookUp && (s.world.plan.Mode == Scripted || s.world.plan.agents > 0 && !s.world.quiet())
}

func (w *writer) sendAsync(s *session) {
	id, r := w.next(s)
	s.producer.SendAsync(s.ctx, r, func(result domain.SendResult, err error) { s.settled(id, result, err) })
	s.note()
	time.Sleep(moment / 8)
}

// note looks whether the producer still takes records.
func (s *session) note() {
	pending, err := s.producer.TrySend(domain.Record{Topic: "not a topic"}, nil)
	if pending != nil {
		s.world.violate("%s took a record for a topic that cannot be", s.id)
	}
	s.fatal = s.fatal || domain.FateOf(err).Fatal
}

func (w *writer) send() {
	s := w.session
	id, r := w.next(s)
	ctx, cancel := context.WithTimeout(s.ctx, time.Duration(1+w.random.IntN(60))*time.Second)
	defer cancel()
	result, err := s.producer.Send(ctx, r)
	s.settled(id, result, err)
	s.note()
}

func (w *writer) sendBatch() {
	s := w.session
	ids, records := make([]string, 1+w.random.IntN(4)), []domain.Record(nil)
	for i := range ids {
		var r domain.Record
		ids[i], r = w.next(s)
		records = append(records, r)
	}
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	results, err := s.producer.SendBatch(ctx, records)
	var failed *producer.BatchError
	if err != nil && !errors.As(err, &failed) {
		w.world.violate("%s: SendBatch returned %v", s.id, err)
		return
	}
	for i, id := range ids {
		err = nil
		if failed != nil {
			err = failed.Errors[i]
		}
		s.settled(id, results[i], err)
	}
	s.note()
}

func (w *writer) trySend() {
	s := w.session
	id, r := w.next(s)
	if _, err := s.producer.TrySend(r, func(result domain.SendResult, err error) { s.settled(id, result, err) }); err != nil {
		s.settled(id, domain.SendResult{}, err)
	}
}

// flush checks what Flush promises: everything accepted before has ended.
func (w *writer) flush() {
	s := w.session
	ctx, cancel := context.WithTimeout(s.ctx, settleBound)
	defer cancel()
	from := w.sent
	if s.producer.Flush(ctx) == nil {
		w.world.checkEnded(s, from)
	}
}

// checkEnded demands an end for each of the session's sends up to the last.
func (w *world) checkEnded(s *session, last int) {
	if s.dead.Load() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	open := map[string]bool{}
	for _, e := range w.events {
		switch {
		case e.Kind == history.Send && e.Session == s.id:
			open[e.ID] = true
		case e.ID != "" && e.Kind != history.Read:
			delete(open, e.ID)
		}
	}
	for n := 1; n <= last; n++ {
		if id := fmt.Sprintf("%s-%d", s.id, n); open[id] {
			w.violations = append(w.violations, fmt.Sprintf("%s was flushed, and %s has not ended", s.id, id))
			return
		}
	}
}

// change goes over to a new session. The old one is closed first, or lives on
// and sends a little more beside the new one.
func (w *writer) change(zombie bool) {
	old := w.session
	if !zombie {
		ctx, cancel := context.WithTimeout(old.ctx, time.Minute)
		defer cancel()
		_ = old.producer.Close(ctx) // under faults it may fail; at the end it must not
		w.leave(old)
		w.open()
		return
	}
	w.open()
	more := *w
	more.session, more.random = old, w.world.random(old.id+" zombie")
	w.world.spawn(true, func() {
		for i := range 5 {
			if !old.step("send") || old.fatal {
				break
			}
			// Ids of its own, that the new session does not use.
			more.sent = 10_000*(more.generation+1) + i
			more.sendAsync(old)
		}
		w.world.awaitHeal()
		w.leave(old)
	})
}

// leave closes a session whose end is not looked at.
func (w *writer) leave(s *session) {
	ctx, cancel := context.WithTimeout(context.Background(), settleBound)
	defer cancel()
	if s.dead.Load() {
		return
	}
	err := s.producer.Close(ctx)
	if err != nil && w.world.isHealed() {
		w.world.violate("%s: close after everything healed: %v", s.id, err)
	}
}

// finish demands, once everything has healed, that sends succeed again, and
// that Close delivers what is open.
func (w *writer) finish() {
	s := w.session
	if s == nil || s.dead.Load() {
		w.open()
		s = w.session
	}
	if s == nil {
		w.world.violate("%s cannot open a producer though everything healed", w.name)
		return
	}
	s.note()
	if !s.fatal && !s.dead.Load() {
		w.last(s)
	}
	w.leave(s)
}

func (w *writer) last(s *session) {
	for _, t := range w.world.plan.topics {
		err := w.sendLast(s, t.name)
		// The topic may be on its way from deleted to made again; and a producer
		// that retries little may give up together with what failed before.
		for tries := 0; (errors.Is(err, domain.ErrTopicNotFound) || err != nil && !s.patient) && tries < 3; tries++ {
			time.Sleep(time.Second)
			err = w.sendLast(s, t.name)
		}
		if err != nil && !errors.Is(err, domain.ErrFenced) && !s.dead.Load() {
			w.world.violate("%s cannot send after everything healed: %v", s.id, err)
		}
	}
}

func (w *writer) sendLast(s *session, topic string) error {
	w.sent++
	id := fmt.Sprintf("%s-%d", s.id, w.sent)
	r := domain.Record{Topic: topic, Value: []byte(id), Partition: domain.ToPartition(0)}
	w.world.sending(s.process, s.id, id, r)
	ctx, cancel := context.WithTimeout(s.ctx, settleBound)
	defer cancel()
	result, err := s.producer.Send(ctx, r)
	s.settled(id, result, err)
	return err
}

func (w *world) isHealed() bool {
	select {
	case <-w.healed:
		return true
	default:
		return false
	}
}
