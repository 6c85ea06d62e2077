package direct

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// part is an extent to read, and its bytes once they are read.
type part struct {
	ports.ExtentRef
	bytes []byte
	err   error
}

// read reads the planned extents and fills the answers. An extent whose object
// is missing may have moved since the plan: its partition is planned and read once more.
func (f *fetch) read(ctx context.Context) {
	if f.planned == 0 {
		return
	}
	parts := f.readAll(ctx)
	var missing []int
	for index := range f.extents {
		if p := parts[index]; len(p) > 0 && errors.Is(p[0].err, ports.ErrObjectNotFound) {
			missing = append(missing, index)
		}
	}
	if len(missing) > 0 && ctx.Err() == nil {
		f.readAgain(ctx, missing, parts)
	}
	for index := range f.extents {
		f.answer(index, parts[index])
	}
}

// readAgain plans and reads the partitions of the given indexes once more.
func (f *fetch) readAgain(ctx context.Context, indexes []int, parts [][]part) {
	again := &fetch{
		r: f.r, req: f.req, order: indexes, answers: f.answers, extents: make([][]ports.ExtentRef, len(f.extents)),
	}
	if _, err := again.planFor(ctx, indexes); err != nil {
		for _, index := range indexes {
			parts[index][0].err = err // nobody knows whether anything is missing
		}
		return
	}
	reread := again.readAll(ctx)
	for _, index := range indexes {
		parts[index] = reread[index]
	}
	f.bytes, f.reads = f.bytes+again.bytes, f.reads+again.reads
}

// readAll reads all extents of f, those that lie side by side in one read.
func (f *fetch) readAll(ctx context.Context) [][]part {
	parts := make([][]part, len(f.extents))
	var all []*part
	for _, index := range f.order {
		parts[index] = make([]part, len(f.extents[index]))
		for i, e := range f.extents[index] {
			p := &parts[index][i]
			p.ExtentRef = e
			all = append(all, p)
		}
	}
	runs := runsOf(all)
	f.each(len(runs), func(i int) { f.readRun(ctx, runs[i]) })
	for _, run := range runs {
		f.reads++
		for _, p := range run {
			f.bytes += int64(len(p.bytes))
		}
	}
	return parts
}

// runsOf groups the parts into runs that are byte-adjacent in one object. Runs
// stand in the order of their objects' first mention.
func runsOf(all []*part) [][]*part {
	rank := make(map[domain.SegmentID]int)
	for _, p := range all {
		if _, ok := rank[p.Segment]; !ok {
			rank[p.Segment] = len(rank)
		}
	}
	slices.SortStableFunc(all, func(a, b *part) int {
		return cmp.Or(cmp.Compare(rank[a.Segment], rank[b.Segment]), cmp.Compare(a.Position, b.Position))
	})
	var runs [][]*part
	for i, p := range all {
		if i > 0 {
			if last := all[i-1]; last.Segment == p.Segment && last.Position+last.Length == p.Position {
				runs[len(runs)-1] = append(runs[len(runs)-1], p)
				continue
			}
		}
		runs = append(runs, []*part{p})
	}
	return runs
}

// each calls f for 0 to n-1, in at most MaxReads goroutines, and waits for them.
func (f *fetch) each(n int, do func(int)) {
	if n == 1 {
		do(0)
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, max(f.r.cfg.MaxReads, 1)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	wg.Wait()
}

// readRun reads a run at once. If that fails it reads its parts one by one, so
// that only those fail whose bytes cannot be had.
func (f *fetch) readRun(ctx context.Context, run []*part) {
	first, last := run[0], run[len(run)-1]
	body, err := f.r.readRange(ctx, first.ExtentRef, last.Position+last.Length-first.Position)
	if err != nil && len(run) > 1 && ctx.Err() == nil && !errors.Is(err, ports.ErrObjectNotFound) {
		for _, p := range run {
			p.bytes, p.err = f.r.readRange(ctx, p.ExtentRef, p.Length)
			f.r.heal(ctx, p)
		}
		return
	}
	for _, p := range run {
		if p.err = err; err == nil {
			at := p.Position - first.Position
			p.bytes = body[at : at+p.Length : at+p.Length]
		}
		f.r.heal(ctx, p)
	}
}

// heal reads p once more if it is damaged and the store keeps bytes: what was
// damaged on its way there, once, would else be so for every reader.
func (r *Reader) heal(ctx context.Context, p *part) {
	if r.memory == nil || p.err == nil && sound(p.bytes) || p.err != nil && !errors.Is(p.err, domain.ErrCorrupt) || mutant.On(mutantDamageKept) {
		return
	}
	r.memory.Forget(p.ObjectKey)
	p.bytes, p.err = r.readRange(ctx, p.ExtentRef, p.Length)
}

// sound reports whether b is whole batches as they were stored.
func sound(b []byte) bool {
	for len(b) > 0 {
		h, err := batch.ParseHeader(b)
		if err != nil || batch.VerifyStored(b) != nil {
			return false
		}
		if _, err := batch.Verify(b[:h.Length]); err != nil {
			return false
		}
		b = b[h.Length:]
	}
	return true
}

// readRange reads length bytes from where e begins. A read that gives another
// number of bytes is corrupt, as is one that says so.
func (r *Reader) readRange(ctx context.Context, e ports.ExtentRef, length int64) ([]byte, error) {
	body, err := r.store.ReadRange(ctx, e.ObjectKey, e.Position, length)
	switch {
	case err == nil && int64(len(body)) != length:
		return nil, damaged(e, "a read of %d bytes at %d gave %d", length, e.Position, len(body))
	case err != nil && errors.Is(err, domain.ErrCorrupt):
		return nil, damaged(e, "a read of %d bytes at %d: %v", length, e.Position, err)
	}
	return body, err
}

func damaged(e ports.ExtentRef, format string, args ...any) error {
	return &domain.CorruptError{Segment: e.Segment, What: fmt.Sprintf(format, args...)}
}

// answer puts together what was read for one partition, up to the first extent
// that could not be read. If that is the very first, its error is the answer.
func (f *fetch) answer(index int, parts []part) {
	a := &f.answers[index]
	for i := range parts {
		p := &parts[i]
		if p.err == nil {
			p.err = p.setOffsets()
		}
		if errors.Is(p.err, ports.ErrObjectNotFound) {
			p.err = damaged(p.ExtentRef, "object %s is missing", p.ObjectKey)
		}
		if p.err == nil {
			continue
		}
		if errors.Is(p.err, domain.ErrCorrupt) {
			f.r.tel.Record(ports.Event{Kind: ports.CorruptionFound, Bytes: p.Length, Err: p.err})
		}
		if mutant.On(mutantBadExtentSkipped) && i+1 < len(parts) {
			p.bytes = nil
			continue
		}
		if parts = parts[:i]; i == 0 {
			a.Err = p.err
		}
		break
	}
	a.Batches, a.Sources = join(parts), sourcesOf(parts)
}

// sourcesOf says where the bytes lie that join puts together.
func sourcesOf(parts []part) ports.Sources {
	if len(parts) == 0 {
		return nil
	}
	sources := make(ports.Sources, len(parts))
	for i := range parts {
		sources[i] = ports.Source{Segment: parts[i].Segment, Position: parts[i].Position, Length: int64(len(parts[i].bytes))}
	}
	return sources
}

// join returns the bytes of all parts, one after the other.
func join(parts []part) []byte {
	switch len(parts) {
	case 0:
		return nil
	case 1:
		return parts[0].bytes
	}
	all := make([][]byte, len(parts))
	for i := range parts {
		all[i] = parts[i].bytes
	}
	return bytes.Join(all, nil)
}

// setOffsets gives each batch of the part its base offset, and checks that the
// batches are those of the extent: as many, with as many records.
func (p *part) setOffsets() error {
	b, next, batches := p.bytes, p.Base, int32(0)
	for len(b) > 0 {
		h, err := batch.ParseHeader(b)
		if err != nil {
			return damaged(p.ExtentRef, "batch at %d: %v", p.Position+p.Length-int64(len(b)), err)
		}
		if !mutant.On(mutantBaseNotSet) {
			batch.SetBaseOffset(b, next)
		}
		next += domain.Offset(h.Records)
		b = b[h.Length:]
		batches++
	}
	if (next != p.Last+1 || batches != p.Batches) && !mutant.On(mutantExtentUnchecked) {
		return damaged(p.ExtentRef, "%d batches with %d records at %d, committed were %d with %d",
			batches, next-p.Base, p.Position, p.Batches, p.Last+1-p.Base)
	}
	return nil
}
