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
	// nearBytes is what a Fetch borrows that is at most nearRecords behind.
	nearBytes   = 256 << 10
	nearRecords = 10_000
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
	f := &serverFetch{s: l.s, client: clientOf(ctx), out: make([]ports.FetchedPartition, len(r.GetPositions()))}
	if err := f.read(ctx, r); err != nil {
		return nil, err
	}
	wait := min(time.Duration(r.GetMaxWaitMs())*time.Millisecond, cfg.FetchMaxWait)
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)-deadlineMargin)
	}
	end := time.Now().Add(wait)
	maxBytes := min(r.GetMaxBytes(), cfg.FetchBytes)
	if err := f.now(ctx, maxBytes); err != nil {
		return nil, err
	}
	if !f.found && wait > 0 && maxBytes > 0 && len(f.positions) > 0 {
		if err := f.wait(ctx, min(maxBytes, waitBytes), end); err != nil {
			return nil, err
		}
	}
	return f.answer(), nil
}

// serverFetch is one Fetch. Positions are those that the caller may read, at
// indexes of the answer.
type serverFetch struct {
	s         *Server
	client    *client
	positions []ports.FetchPosition
	indexes   []int
	out       []ports.FetchedPartition
	sources   int // in out
	found     bool
	from      *budget // that the bytes of out are borrowed from, if there are any
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

// now reads what there is, once there is room for it. How far behind the fetch is
// needs to be known only if there is none.
func (f *serverFetch) now(ctx context.Context, maxBytes int64) error {
	b := f.s.lending.behind
	maxBytes = min(maxBytes, b.most)
	if b.try(f.client, maxBytes) {
		return f.fetch(ctx, b, ports.FetchRequest{Partitions: f.positions, MaxBytes: maxBytes})
	}
	lag, err := f.lag(ctx)
	if err != nil || lag == 0 {
		return err
	}
	if lag <= nearRecords && !mutant.On(mutantTailsQueue) {
		b, maxBytes = f.s.lending.near, min(maxBytes, nearBytes, f.s.lending.near.most)
	}
	if err := b.borrow(ctx, f.client, maxBytes); err != nil {
		return err
	}
	return f.fetch(ctx, b, ports.FetchRequest{Partitions: f.positions, MaxBytes: maxBytes})
}

// lag asks for the watermarks and returns how many records there are to read. An
// error of a partition is found already.
func (f *serverFetch) lag(ctx context.Context) (records int64, err error) {
	got, err := f.s.backend.Fetcher.Fetch(ctx, ports.FetchRequest{Partitions: f.positions})
	if err != nil {
		return 0, err
	}
	for j, p := range got {
		f.out[f.indexes[j]] = p
		f.found = f.found || p.Err != nil
		if p.Err == nil && records <= nearRecords {
			records += int64(max(p.HighWatermark-f.positions[j].Offset, 0))
		}
	}
	return records, nil
}

// wait waits for records until end. If there is no room for one more that waits, it
// is as if none came: the caller asks again.
func (f *serverFetch) wait(ctx context.Context, maxBytes int64, end time.Time) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(f.s.draining, cancel)()
	b := f.s.lending.waiting
	maxBytes = min(maxBytes, b.most)
	queued, giveUp := context.WithDeadline(ctx, end)
	defer giveUp()
	err := b.borrow(queued, f.client, maxBytes)
	left := time.Until(end)
	switch {
	case err != nil && ctx.Err() == nil:
		return nil
	case err == nil && left <= 0:
		b.giveBack(f.client, maxBytes)
		return nil
	case err == nil:
		err = f.fetch(ctx, b, ports.FetchRequest{Partitions: f.positions, MaxBytes: maxBytes, MaxWait: left})
	}
	if f.s.draining.Err() != nil {
		return nil
	}
	return err
}

// fetch fetches with r.MaxBytes that are borrowed from b, and gives back what it
// needs no more.
func (f *serverFetch) fetch(ctx context.Context, b *budget, r ports.FetchRequest) error {
	booked := r.MaxBytes
	defer func() { b.giveBack(f.client, booked) }()
	got, err := f.s.backend.Fetcher.Fetch(ctx, r)
	if err != nil {
		return err
	}
	f.from = b
	left, first := r.MaxBytes, true
	for j, p := range got {
		fetched := p.Batches
		begin, end := whole(fetched, f.positions[j].Offset, left, first)
		p.Batches, p.Sources = fetched[begin:end], told(p.Sources, begin, &f.sources)
		n := int64(len(p.Batches))
		left, booked = left-n, booked-n
		first = first && n == 0
		f.out[f.indexes[j]] = p
		f.found = f.found || n > 0 || p.Err != nil
	}
	return nil
}

// answer gives back what is borrowed for it as it is sent, or when the connection
// ends.
func (f *serverFetch) answer() *fetchAnswer {
	c, b := f.client, f.from
	for i := range f.out {
		if n := int64(len(f.out[i].Batches)); n > 0 && !c.lend(b, n) {
			b.giveBack(c, n)
		}
	}
	return &fetchAnswer{f.out, func(n int64) { b.giveBack(c, c.back(b, n)) }}
}

// maxSources is how many sources an answer has at most. Where extents are small
// there may be one for every few bytes.
const maxSources = 4096

// told returns the sources from byte begin on, as many as the answer still has
// room for.
func told(s ports.Sources, begin int, used *int) ports.Sources {
	if begin > 0 {
		s = s.Skip(int64(begin))
	}
	s = s[:min(len(s), maxSources-*used)]
	*used += len(s)
	return s
}

// whole returns where in b, which holds whole batches, those from offset on
// begin and end that have room in most bytes; the first of all is among them whatever its size.
// An extent may be larger than what a message may hold.
func whole(b []byte, offset domain.Offset, most int64, first bool) (begin, end int) {
	if int64(len(b)) <= most {
		return 0, len(b)
	}
	for end < len(b) {
		h, err := batch.ParseHeader(b[end:])
		if err != nil && end == begin {
			return begin, min(len(b), begin+waitBytes) // whoever decodes it is told
		}
		if err != nil {
			return begin, end
		}
		switch {
		case h.BaseOffset+domain.Offset(h.Records) <= offset:
			begin = end + h.Length
		case int64(end+h.Length-begin) > most && mutant.On(mutantFetchCuts):
			return begin, begin + int(most)
		case int64(end+h.Length-begin) > most && (!first || end > begin):
			return begin, end
		}
		end += h.Length
	}
	return begin, end
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
