package direct

import (
	"context"
	"errors"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// lookAhead is how many bytes of extents are planned at once in search of a
// time. They are read one by one, and only if they hold it.
const lookAhead = 64 << 20

// OffsetAt implements ports.Fetcher. *domain.CorruptError: a segment that it has
// to look into is missing or damaged. domain.ErrCompression: no codec for a batch.
func (r *Reader) OffsetAt(ctx context.Context, key commit.PartitionKey, t time.Time) (domain.Offset, error) {
	ms := t.UnixMilli()
	if t.After(time.UnixMilli(ms)) {
		ms++
	}
	offset, err := r.offsetAt(ctx, key, ms)
	if errors.Is(err, ports.ErrObjectNotFound) { // it may have moved
		offset, err = r.offsetAt(ctx, key, ms)
	}
	if errors.Is(err, ports.ErrObjectNotFound) {
		err = &domain.CorruptError{What: err.Error()}
	}
	if errors.Is(err, domain.ErrCorrupt) {
		r.tel.Record(ports.Event{Kind: ports.CorruptionFound, Err: err})
	}
	return offset, err
}

func (r *Reader) offsetAt(ctx context.Context, key commit.PartitionKey, ms int64) (domain.Offset, error) {
	// The bounds come first: what is appended afterwards lies above the watermark.
	bounds, err := r.planOne(ctx, ports.PlanRequest{PartitionKey: key})
	if err != nil {
		return 0, err
	}
	e, found, err := r.log.ExtentAt(ctx, key, ms)
	if err != nil || !found {
		return bounds.HighWatermark, err
	}
	offset, found, err := r.search(ctx, e, ms, bounds.LogStart)
	if err != nil || found {
		return offset, err
	}
	return r.searchFrom(ctx, key, e.Last+1, ms)
}

func (r *Reader) planOne(ctx context.Context, req ports.PlanRequest) (ports.Plan, error) {
	plans, err := r.log.Plan(ctx, []ports.PlanRequest{req})
	if err != nil {
		return ports.Plan{}, err
	}
	return plans[0], plans[0].Err
}

// searchFrom looks at one extent after the other. It is needed only if the first
// one with the time in it was trimmed in its middle.
func (r *Reader) searchFrom(ctx context.Context, key commit.PartitionKey, from domain.Offset, ms int64) (domain.Offset, error) {
	for {
		p, err := r.planOne(ctx, ports.PlanRequest{PartitionKey: key, From: from, MaxBytes: lookAhead})
		if err == nil && from < p.LogStart { // trimmed meanwhile
			from = p.LogStart
			continue
		}
		if err == nil {
			err = checkPlan(p, from, true, true)
		}
		if err != nil || len(p.Extents) == 0 {
			return p.HighWatermark, err
		}
		for _, e := range p.Extents {
			from = e.Last + 1
			if e.MaxTimestamp < ms {
				continue
			}
			if offset, found, err := r.search(ctx, e, ms, p.LogStart); err != nil || found {
				return offset, err
			}
		}
	}
}

// search reads one extent and returns the first offset in it, from least on,
// whose timestamp is at least ms.
func (r *Reader) search(ctx context.Context, e ports.ExtentRef, ms int64, least domain.Offset) (domain.Offset, bool, error) {
	p := part{ExtentRef: e}
	p.bytes, p.err = r.readRange(ctx, e, e.Length)
	r.heal(ctx, &p)
	if p.err == nil {
		p.err = p.setOffsets()
	}
	if p.err != nil {
		return 0, false, p.err
	}
	offset, found, err := r.searchBatches(p.bytes, ms, least)
	if errors.Is(err, domain.ErrCorrupt) {
		err = damaged(e, "%v", err)
	}
	return offset, found, err
}

func (r *Reader) searchBatches(b []byte, ms int64, least domain.Offset) (domain.Offset, bool, error) {
	for len(b) > 0 {
		h, err := batch.ParseHeader(b)
		if err != nil {
			return 0, false, err
		}
		one, rest := b[:h.Length], b[h.Length:]
		b = rest
		if h.MaxTimestamp < ms {
			continue
		}
		records, err := r.decoder.Decode(one)
		if err != nil {
			return 0, false, err
		}
		var rec batch.Record
		for records.Next(&rec) {
			if rec.Timestamp >= ms && rec.Offset >= least {
				return rec.Offset, true, nil
			}
		}
		if err := records.Err(); err != nil {
			return 0, false, err
		}
	}
	return 0, false, nil
}
