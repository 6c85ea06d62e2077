package grpc

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	grpcgo "google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// producing is one Produce stream. One goroutine reads requests and hands their
// batches on, one writes outcomes; the handler waits for the end of either.
type producing struct {
	s      *Server
	stream grpcgo.ServerStream
	ctx    context.Context // the stream's own, which ends with the handler
	client *client
	access *access

	wake chan struct{} // holds a token when there is something to write
	cut  chan error    // holds why the stream is to end
	slow *time.Timer   // runs while a message is being sent

	mu       sync.Mutex
	outcomes []outcome
	settled  []context.CancelFunc // of requests that are answered
	open     map[uint64]*producedRequest
	unread   int // batches received whose outcome is not sent
	eof      bool
	tell     bool      // draining, to be told
	refuse   time.Time // when draining, from when on nothing is taken
}

// producedRequest is a request of which some batches are not settled.
type producedRequest struct {
	st      *producing
	id      uint64
	message *produceRequest // whose memory holds the batches
	batches []ports.Batch   // that were taken over
	indexes []uint32        // of these, in the request
	left    int             // guarded by st.mu
	cancel  context.CancelFunc
}

// outcomesPerMessage bounds one answer.
const outcomesPerMessage = 4096

func (l *logService) Produce(stream grpcgo.BidiStreamingServer[agentv1.ProduceRequest, agentv1.ProduceResponse]) error {
	return l.s.produce(stream)
}

func (s *Server) produce(stream grpcgo.ServerStream) error {
	ctx := stream.Context()
	st := &producing{
		s: s, stream: stream, ctx: ctx, client: clientOf(ctx), access: accessOf(ctx),
		wake: make(chan struct{}, 1), cut: make(chan error, 1), open: make(map[uint64]*producedRequest),
	}
	st.slow = time.AfterFunc(time.Hour, func() {
		_ = st.end(statusOf(agentError("produce", ports.Ambiguous, &roomError{"the client does not read its answers", s.cfg.RetryAfter})))
	})
	st.slow.Stop() // until there is something to send
	defer st.slow.Stop()
	if err := s.join(st); err != nil {
		return err
	}
	defer s.leave(st)
	err := s.welcome(stream)
	if err != nil {
		return err
	}
	read, written := make(chan error, 1), make(chan error, 1)
	s.work.Go(func() { read <- st.read() })
	s.work.Go(func() { written <- st.write() })
	for {
		select {
		case err := <-read:
			switch {
			case errors.Is(err, errCut): // the reason is in st.cut
			case err != nil:
				return err
			default:
				st.finish()
			}
		case err := <-written:
			return err
		case err := <-st.cut:
			s.mu.Lock()
			s.counts.Cut++
			s.mu.Unlock()
			return err
		}
	}
}

// join enters a new stream, unless the server drains.
func (s *Server) join(st *producing) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Err() != nil {
		return statusOf(notReady("it is draining"))
	}
	s.streams[st] = struct{}{}
	return nil
}

func (s *Server) leave(st *producing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st)
}

func (s *Server) welcome(stream grpcgo.ServerStream) error {
	return stream.SendMsg(&produceResponse{welcome: &agentv1.Welcome{
		Version: s.cfg.Version, WindowBytes: uint64(s.cfg.ClientBytes),
		MaxBatches: uint32(s.cfg.MaxBatches), MaxRequestBytes: requestBytes,
	}})
}

var errCut = errors.New("the stream is cut off")

// end cuts the stream off, for the first reason that comes. It returns errCut.
func (st *producing) end(why error) error {
	select {
	case st.cut <- why:
	default:
	}
	return errCut
}

// read takes requests until the client ends the stream, which gives nil.
func (st *producing) read() error {
	var last uint64
	for {
		r := new(produceRequest)
		if err := st.stream.RecvMsg(r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		for _, id := range r.cancels {
			st.give(id)
		}
		if len(r.batches) == 0 {
			r.free()
			continue
		}
		if r.id <= last {
			return st.end(invalid("request %d follows request %d: ids must rise", r.id, last))
		}
		last = r.id
		if len(r.batches) > st.s.cfg.MaxBatches {
			return st.end(invalid("a request of %d batches: at most %d are allowed", len(r.batches), st.s.cfg.MaxBatches))
		}
		if err := st.take(r); err != nil {
			return err
		}
	}
}

// give withdraws what can still be refused of a request.
func (st *producing) give(id uint64) {
	st.mu.Lock()
	r := st.open[id]
	st.mu.Unlock()
	if r != nil {
		r.cancel()
	}
}

// take judges the batches of r, each by itself, and hands over those that are
// right and have room. An error is the end of the stream.
func (st *producing) take(r *produceRequest) error {
	st.mu.Lock()
	st.unread += len(r.batches)
	over := st.unread > st.s.cfg.MaxUnread
	late := !st.refuse.IsZero() && time.Now().After(st.refuse)
	st.mu.Unlock()
	if over {
		return st.end(statusOf(noRoom("the client does not read its answers", st.s.cfg.RetryAfter)))
	}
	p := &producedRequest{st: st, id: r.id, message: r, batches: make([]ports.Batch, 0, len(r.batches)), indexes: make([]uint32, 0, len(r.batches))}
	for i, b := range r.batches {
		err := st.judge(b, late)
		if err != nil {
			st.complain(b, err)
			st.answer(outcome{request: r.id, index: uint32(i), base: -1, err: encodeError(err)})
			continue
		}
		b.Checked = true
		p.batches = append(p.batches, b)
		p.indexes = append(p.indexes, uint32(i))
	}
	st.s.count(p.batches, len(r.batches)-len(p.batches))
	if p.left = len(p.batches); p.left > 0 {
		p.append(r.timeoutMS)
	} else {
		r.free()
	}
	return nil
}

// complain notes a batch that is refused for what it is. Want of room and of
// readiness are the agent's own.
func (st *producing) complain(b ports.Batch, err error) {
	switch codeOf(err) {
	case codes.InvalidArgument, codes.DataLoss, codes.PermissionDenied:
		st.s.conns.complaints.add(st.client.peer, agentv1.LogService_Produce_FullMethodName, err,
			"topic_id", b.Topic.String(), "partition", int(b.Partition), "bytes", len(b.Bytes))
	}
}

// judge returns why b is not taken over, or books it.
func (st *producing) judge(b ports.Batch, late bool) error {
	if late {
		return notReady("it is draining")
	}
	if err := st.s.notReady(); err != nil {
		return err
	}
	if b.Partition < 0 {
		return &domain.InvalidPartitionError{Topic: b.Topic.String(), Partition: b.Partition}
	}
	if _, err := batch.Verify(b.Bytes); err != nil && !mutant.On(mutantBatchUnchecked) {
		return err
	}
	if err := batch.VerifyStored(b.Bytes); err != nil {
		return err
	}
	if err := st.access.id(st.ctx, b.Topic); err != nil {
		return err
	}
	return st.s.limiter.take(st.client, b.Topic, int64(len(b.Bytes)))
}

func (s *Server) count(taken []ports.Batch, refused int) {
	var bytes int64
	for i := range taken {
		bytes += int64(len(taken[i].Bytes))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Batches += int64(len(taken))
	s.counts.BatchBytes += bytes
	s.counts.Refused += int64(refused)
}

// append hands the batches over. Their time is bounded by what the client asked
// for, within reason, and by the stream.
func (r *producedRequest) append(timeoutMS uint32) {
	cfg := &r.st.s.cfg
	timeout := cfg.DefaultTimeout
	if timeoutMS > 0 {
		timeout = min(time.Duration(timeoutMS)*time.Millisecond, cfg.MaxTimeout)
	}
	var ctx context.Context
	ctx, r.cancel = context.WithTimeout(r.st.ctx, timeout)
	if trace := r.message.trace; trace.Valid() {
		ctx = ports.ContextWithTrace(ctx, trace)
	}
	r.st.mu.Lock()
	r.st.open[r.id] = r
	r.st.mu.Unlock()
	settle := r.settle
	if mutant.On(mutantAnswerBeforeOutcome) {
		settle = func(int, ports.AppendResult) {}
		defer func() {
			for i := range r.batches {
				r.settle(i, ports.AppendResult{})
			}
		}()
	}
	err := r.st.s.backend.Transport.Append(ctx, r.batches, settle)
	if err == nil {
		return
	}
	for i := range r.batches {
		r.settle(i, ports.AppendResult{Base: -1, Err: err})
	}
}

// settle takes the fate of one batch. It never blocks.
func (r *producedRequest) settle(i int, result ports.AppendResult) {
	b := &r.batches[i]
	r.st.s.limiter.give(r.st.client, b.Topic, int64(len(b.Bytes)))
	b.Bytes = nil
	o := outcome{request: r.id, index: r.indexes[i], base: int64(result.Base)}
	if mutant.On(mutantOutcomeOfAnother) {
		o.index = uint32(i)
	}
	if result.Err != nil {
		o.base, o.err = -1, encodeError(result.Err)
	}
	r.st.mu.Lock()
	r.st.outcomes = append(r.st.outcomes, o)
	r.left--
	done := r.left == 0
	if done {
		delete(r.st.open, r.id)
		r.st.settled = append(r.st.settled, r.cancel)
	}
	r.st.mu.Unlock()
	if done {
		r.message.free()
	}
	r.st.signal()
}

func (st *producing) answer(o outcome) {
	st.mu.Lock()
	st.outcomes = append(st.outcomes, o)
	st.mu.Unlock()
	st.signal()
}

func (st *producing) signal() {
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

// finish notes that no request will follow.
func (st *producing) finish() {
	st.mu.Lock()
	st.eof = true
	st.mu.Unlock()
	st.signal()
}

// tellDraining asks the client to go. It may still send for DrainGrace what it
// sent before it knew.
func (st *producing) tellDraining() {
	st.mu.Lock()
	st.tell, st.refuse = !mutant.On(mutantDrainNotTold), time.Now().Add(st.s.cfg.DrainGrace)
	st.mu.Unlock()
	st.signal()
}

// write sends what is due, until all is answered and no request will follow.
func (st *producing) write() error {
	for {
		m, done := st.due()
		if m == nil {
			if done {
				return nil
			}
			select {
			case <-st.wake:
				continue
			case <-st.ctx.Done():
				return context.Cause(st.ctx)
			}
		}
		st.slow.Reset(st.s.cfg.SlowReader)
		err := st.stream.SendMsg(m)
		st.slow.Stop()
		if err != nil {
			return err
		}
	}
}

// due returns the next message, nil if there is none now; done says that there
// will be none.
func (st *producing) due() (m *produceResponse, done bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, cancel := range st.settled {
		cancel()
	}
	st.settled = st.settled[:0]
	n := min(len(st.outcomes), outcomesPerMessage)
	if n == 0 && !st.tell {
		return nil, st.eof && len(st.open) == 0
	}
	m = &produceResponse{outcomes: st.outcomes[:n:n], draining: st.tell}
	if st.outcomes = st.outcomes[n:]; len(st.outcomes) == 0 {
		st.outcomes = nil
	}
	st.unread -= n
	st.tell = false
	return m, false
}
