package janitor

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// readGap is up to how many bytes between two extents are read with them, where
// a second request would cost more.
const readGap = 64 << 10

// span is what one ranged read fetches: extents near each other in one object.
type span struct {
	position, length int64
	wanted           int64 // bytes of parts
	parts            []*part
}

// part is one extent to read.
type part struct {
	ports.ExtentRef
	into *[]byte
	err  error
}

// spans groups the extents of all copies by what can be read at once.
func (b *build) spans() []*span {
	var parts []*part
	for i := range b.copies {
		c := &b.copies[i]
		c.bytes = make([][]byte, len(c.refs))
		for k := range c.refs {
			parts = append(parts, &part{ExtentRef: c.refs[k], into: &c.bytes[k]})
		}
	}
	slices.SortFunc(parts, func(x, y *part) int {
		return cmp.Or(bytes.Compare(x.Segment[:], y.Segment[:]), cmp.Compare(x.Position, y.Position))
	})
	var spans []*span
	for i, p := range parts {
		if i > 0 && parts[i-1].Segment == p.Segment {
			s := spans[len(spans)-1]
			gap, longer := p.Position-s.position-s.length, p.Position+p.Length-s.position
			if 0 <= gap && gap <= readGap && longer <= b.pass.j.cfg.CompactSegmentBytes {
				s.length, s.wanted, s.parts = longer, s.wanted+p.Length, append(s.parts, p)
				continue
			}
		}
		spans = append(spans, &span{p.Position, p.Length, p.Length, []*part{p}})
	}
	return spans
}

// read reads and verifies the batches of all copies, and leaves out the copies
// that it cannot have. If the store gives nothing at all, that is the error.
func (b *build) read(ctx context.Context) error {
	spans := b.spans()
	each(len(spans), b.pass.j.cfg.Deletes, func(i int) bool {
		b.readSpan(ctx, spans[i])
		return ctx.Err() == nil
	})
	if err := ctx.Err(); err != nil {
		return err
	}
	var had, damaged int
	var refused error
	for _, s := range spans {
		b.pass.report.Reads++
		b.pass.report.ReadBytes += s.length
		b.moved += s.length
		for _, p := range s.parts {
			switch {
			case p.err == nil:
				had++
			case unreadable(p.err):
				damaged++
			default:
				refused = p.err
			}
		}
	}
	if had+damaged == 0 {
		return refused
	}
	for _, s := range spans {
		for _, p := range s.parts {
			b.judge(p)
		}
	}
	b.copies = slices.DeleteFunc(b.copies, func(c source) bool {
		return slices.ContainsFunc(c.bytes, func(p []byte) bool { return p == nil })
	})
	return nil
}

// unreadable reports whether err is about the object, not about the store.
func unreadable(err error) bool {
	return errors.Is(err, domain.ErrCorrupt) || errors.Is(err, ports.ErrObjectNotFound)
}

// judge notes a part that could not be read, and tells of one that is given up.
func (b *build) judge(p *part) {
	if p.err == nil || !b.pass.j.compact.suspects.failed(p.Extent, time.Now()) {
		return
	}
	err := failedAt("compaction", p.Key(), p.err)
	if unreadable(p.err) {
		b.pass.j.tel.Record(ports.Event{Kind: ports.CorruptionFound, Bytes: p.Length, Err: err})
	}
	b.pass.damaged.note(err)
}

// readSpan reads a span at once. If the object ends too early it reads the
// extents one by one, so that only those fail that are behind its end.
func (b *build) readSpan(ctx context.Context, s *span) {
	body, err := b.readRange(ctx, s.parts[0], s.position, s.length)
	sparse := s.length > 2*s.wanted
	for _, p := range s.parts {
		switch {
		case err == nil:
			at := p.Position - s.position
			p.check(body[at:at+p.Length:at+p.Length], sparse)
		case len(s.parts) > 1 && errors.Is(err, domain.ErrCorrupt):
			var own []byte
			if own, p.err = b.readRange(ctx, p, p.Position, p.Length); p.err == nil {
				p.check(own, false)
			}
		default:
			p.err = err
		}
	}
}

func (b *build) readRange(ctx context.Context, p *part, position, length int64) ([]byte, error) {
	body, err := b.pass.j.store.ReadRange(ctx, p.ObjectKey, position, length)
	if err == nil && int64(len(body)) != length {
		err = &domain.CorruptError{Segment: p.Segment, What: fmt.Sprintf("a read of %d bytes at %d gave %d", length, position, len(body))}
	}
	return body, err
}

// check takes own if it is what was committed. It copies what shares its memory
// with much that nobody wants.
func (p *part) check(own []byte, sparse bool) {
	if p.err = verify(p.Extent, own); p.err != nil {
		return
	}
	if sparse {
		own = bytes.Clone(own)
	}
	*p.into = own
}

// verify demands that b is exactly the batches that were committed as e.
func verify(e commit.Extent, b []byte) error {
	if mutant.On(mutantCopyUnverified) {
		return nil
	}
	var records, batches int64
	for len(b) > 0 {
		h, err := batch.ParseHeader(b)
		if err == nil {
			_, err = batch.Verify(b[:h.Length])
		}
		if err == nil {
			err = batch.VerifyStored(b[:h.Length])
		}
		if err != nil {
			return &domain.CorruptError{Segment: e.Segment, What: fmt.Sprintf("batch %d of the extent at %d: %v", batches, e.Position, err)}
		}
		records, batches, b = records+int64(h.Records), batches+1, b[h.Length:]
	}
	if records != int64(e.Last-e.Base)+1 || batches != int64(e.Batches) {
		return &domain.CorruptError{Segment: e.Segment, What: fmt.Sprintf(
			"%d batches with %d records at %d, committed were %d with %d", batches, records, e.Position, e.Batches, e.Last-e.Base+1)}
	}
	return nil
}
