package grpc

import (
	"context"
	"slices"
	"time"

	grpcgo "google.golang.org/grpc"

	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// logService serves records.
type logService struct {
	agentv1.UnimplementedLogServiceServer
	s *Server
}

const (
	// maxPositions bounds the partitions of one Fetch.
	maxPositions = 10_000
	// waitBytes is what a Fetch that found nothing asks for while it waits: it
	// books no more, and what there is more comes with the next.
	waitBytes = 64 << 10
	// deadlineMargin is how long before its deadline a waiting Fetch is answered.
	deadlineMargin = 200 * time.Millisecond
)

// logDescription is the service with a Fetch whose answer the codec writes.
func logDescription() *grpcgo.ServiceDesc {
	d := agentv1.LogService_ServiceDesc
	d.Methods = slices.Clone(d.Methods)
	for i := range d.Methods {
		if d.Methods[i].MethodName == "Fetch" {
			d.Methods[i].Handler = handleFetch
		}
	}
	return &d
}

func handleFetch(srv any, ctx context.Context, decode func(any) error, intercept grpcgo.UnaryServerInterceptor) (any, error) { //nolint:revive // the order is gRPC's
	r := new(agentv1.FetchRequest)
	if err := decode(r); err != nil {
		return nil, err
	}
	info := &grpcgo.UnaryServerInfo{Server: srv, FullMethod: agentv1.LogService_Fetch_FullMethodName}
	return intercept(ctx, r, info, func(ctx context.Context, req any) (any, error) {
		return srv.(*logService).fetch(ctx, req.(*agentv1.FetchRequest))
	})
}

// fetch reads what there is; if there is nothing it waits, with little memory
// booked for it.
func (l *logService) fetch(ctx context.Context, r *agentv1.FetchRequest) (*fetchAnswer, error) {
	cfg := &l.s.cfg
	if len(r.GetPositions()) > maxPositions || r.GetMaxBytes() < 0 {
		return nil, invalid("a fetch of %d partitions and %d bytes", len(r.GetPositions()), r.GetMaxBytes())
	}
	f := &serverFetch{s: l.s, out: make([]ports.FetchedPartition, len(r.GetPositions()))}
	if err := f.read(ctx, r); err != nil {
		return nil, err
	}
	maxBytes := min(r.GetMaxBytes(), cfg.FetchBytes)
	if err := f.fetch(ctx, ports.FetchRequest{Partitions: f.positions, MaxBytes: maxBytes}); err != nil {
		return nil, err
	}
	wait := min(time.Duration(r.GetMaxWaitMs())*time.Millisecond, cfg.FetchMaxWait)
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)-deadlineMargin)
	}
	if f.found || wait <= 0 || maxBytes == 0 || len(f.positions) == 0 {
		return f.answer(ctx), nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.s.draining, cancel)()
	err := f.fetch(ctx, ports.FetchRequest{Partitions: f.positions, MaxBytes: min(maxBytes, waitBytes), MaxWait: wait})
	if err != nil && l.s.draining.Err() == nil {
		return nil, err
	}
	return f.answer(ctx), nil
}

// serverFetch is one Fetch. Positions are those that the caller may read, at
// indexes of the answer.
type serverFetch struct {
	s         *Server
	positions []ports.FetchPosition
	indexes   []int
	out       []ports.FetchedPartition
	found     bool
}

// read takes the positions of r.
func (f *serverFetch) read(ctx context.Context, r *agentv1.FetchRequest) error {
	a := accessOf(ctx)
	for i, p := range r.GetPositions() {
		key, err := decodeKey(p.GetTopicId(), p.GetPartition())
		if err != nil {
			return err
		}
		if err := a.id(ctx, key.Topic); err != nil {
			f.out[i].Err, f.found = err, true
			continue
		}
		f.positions = append(f.positions, ports.FetchPosition{PartitionKey: key, Offset: domain.Offset(p.GetOffset())})
		f.indexes = append(f.indexes, i)
	}
	return nil
}

func (f *serverFetch) fetch(ctx context.Context, r ports.FetchRequest) error {
	if err := f.s.fetches.borrow(ctx, r.MaxBytes); err != nil {
		return err
	}
	booked := r.MaxBytes
	defer func() { f.s.fetches.giveBack(booked) }()
	got, err := f.s.backend.Fetcher.Fetch(ctx, r)
	if err != nil {
		return err
	}
	left, first := r.MaxBytes, true
	for j, p := range got {
		p.Batches = whole(p.Batches, f.positions[j].Offset, left, first)
		n := int64(len(p.Batches))
		left, booked = left-n, booked-n
		first = first && n == 0
		f.out[f.indexes[j]] = p
		f.found = f.found || n > 0 || p.Err != nil
	}
	return nil
}

// answer gives back what is booked for it as it is sent, or when the connection
// ends.
func (f *serverFetch) answer(ctx context.Context) *fetchAnswer {
	c := clientOf(ctx)
	for i := range f.out {
		if n := int64(len(f.out[i].Batches)); !c.lend(n) {
			f.s.fetches.giveBack(n)
		}
	}
	return &fetchAnswer{f.out, func(n int64) { f.s.fetches.giveBack(c.back(n)) }}
}

// whole returns of b, which holds whole batches, those from offset on that have
// room in most bytes; the first of all is returned whatever its size. An extent may be larger
// than what a message may hold.
func whole(b []byte, offset domain.Offset, most int64, first bool) []byte {
	if int64(len(b)) <= most {
		return b
	}
	begin, end := 0, 0
	for end < len(b) {
		h, err := batch.ParseHeader(b[end:])
		if err != nil && end == begin {
			return b[begin:min(len(b), begin+waitBytes)] // whoever decodes it is told
		}
		if err != nil {
			return b[begin:end]
		}
		switch {
		case h.BaseOffset+domain.Offset(h.Records) <= offset:
			begin = end + h.Length
		case int64(end+h.Length-begin) > most && mutant.On(mutantFetchCuts):
			return b[begin : begin+int(most)]
		case int64(end+h.Length-begin) > most && (!first || end > begin):
			return b[begin:end]
		}
		end += h.Length
	}
	return b[begin:end]
}

// OffsetAt implements the service.
func (l *logService) OffsetAt(ctx context.Context, r *agentv1.OffsetAtRequest) (*agentv1.OffsetAtResponse, error) {
	key, err := decodeKey(r.GetTopicId(), r.GetPartition())
	if err != nil {
		return nil, err
	}
	offset, err := l.s.backend.Fetcher.OffsetAt(ctx, key, time.Unix(r.GetSeconds(), int64(r.GetNanos())))
	if err != nil {
		return nil, err
	}
	return &agentv1.OffsetAtResponse{Offset: int64(offset)}, nil
}
