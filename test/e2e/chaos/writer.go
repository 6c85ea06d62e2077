package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/test/sim/history"
)

// settleLimit is longer than any record may take to have a fate.
const settleLimit = 3 * time.Minute

// writer is an application that sends records, with one producer after another.
type writer struct {
	run        *Run
	name       string
	random     *rand.Rand
	generation int
}

func (w *writer) work() {
	for {
		p := w.run.stores(w.run.stopWriting)
		if p == nil {
			return
		}
		again := w.live(p)
		_ = p.close() // its connections may be cut: what matters is in the history
		if !again {
			return
		}
	}
}

// live is one producer's life. It reports whether there is to be another.
func (w *writer) live(p *pair) (again bool) {
	w.generation++
	session := fmt.Sprintf("%s.%d", w.name, w.generation)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	producer, err := streamhouse.NewProducerBuilder().Cluster(p).Telemetry(&w.run.Counts).RequestTimeout(10 * time.Second).Build(ctx)
	if err != nil {
		w.run.FailedOpens.Add(1)
		return sleep(w.run.stopWriting, 100*time.Millisecond)
	}
	w.run.recorder.Record(history.Event{Kind: history.Open, Session: session})
	s := &life{run: w.run, id: session, fatal: make(chan struct{})}
	again = w.sendUntil(producer, s)
	closing, cancelClose := context.WithTimeout(context.Background(), settleLimit)
	defer cancelClose()
	if err := producer.Close(closing); err != nil && closing.Err() != nil {
		w.run.fail("%s did not come to its end in %s: %v", session, settleLimit, err)
	}
	s.open.Wait()
	return again
}

// sendUntil sends bursts until the run ends, the life is over or the producer
// says that it is of no further use.
func (w *writer) sendUntil(p *streamhouse.Producer, s *life) (again bool) {
	var over <-chan time.Time
	if w.run.cfg.Lives > 0 {
		timer := time.NewTimer(w.run.cfg.Lives/2 + time.Duration(w.random.Int64N(int64(w.run.cfg.Lives))))
		defer timer.Stop()
		over = timer.C
	}
	for n := 0; ; {
		for range 1 + w.random.IntN(w.run.cfg.Burst) {
			n++
			w.send(p, s, n)
		}
		select {
		case <-w.run.stopWriting:
			return false
		case <-over:
			return true
		case <-s.fatal:
			return true
		default:
		}
		if !sleep(w.run.stopWriting, w.run.cfg.Pace) {
			return false
		}
	}
}

func (w *writer) send(p *streamhouse.Producer, s *life, n int) {
	id := fmt.Sprintf("%s-%d", s.id, n)
	partition := domain.PartitionID(w.random.Int32N(w.run.cfg.Partitions))
	w.run.Sent.Add(1)
	w.run.recorder.Record(history.Event{Kind: history.Send, Session: s.id, Topic: w.run.cfg.Topic, Partition: int32(partition), ID: id})
	s.open.Add(1)
	r := streamhouse.Record{Topic: w.run.cfg.Topic, Value: []byte(id), Partition: domain.ToPartition(partition)}
	p.SendAsync(context.Background(), r, func(res streamhouse.SendResult, err error) { s.settle(id, res, err) })
}

// life is one producer session and the records it has sent.
type life struct {
	run   *Run
	id    string
	open  sync.WaitGroup // records without a fate
	once  sync.Once
	fatal chan struct{}
}

func (s *life) settle(id string, res streamhouse.SendResult, err error) {
	defer s.open.Done()
	e := history.Event{Session: s.id, Topic: s.run.cfg.Topic, ID: id, Partition: int32(res.Partition), Offset: int64(res.Offset)}
	fate := domain.FateOf(err)
	switch {
	case err == nil:
		e.Kind = history.Ack
		s.run.Acked.Add(1)
	case fate.Stored == domain.StoredYes:
		e.Kind = history.Stored
		s.run.Stored.Add(1)
	case fate.Stored == domain.StoredNo:
		e.Kind = history.Fail
		s.run.Failed.Add(1)
	default:
		e.Kind = history.Unknown
		s.run.Unknown.Add(1)
	}
	s.run.recorder.Record(e)
	if fate.Fatal || errors.Is(err, domain.ErrSessionExpired) {
		s.once.Do(func() { close(s.fatal) })
	}
}
