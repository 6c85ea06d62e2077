package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/streamhouse/streamhouse/cmd/streamhouse/recordio"
	"github.com/streamhouse/streamhouse/domain"
)

// inputFormat says how lines become records.
type inputFormat struct {
	topic     string
	json      bool
	separator []byte
	partition domain.PartitionChoice
}

// maxLine is how long a line may be: a little over what a record may hold, so
// that the producer judges records and this bounds memory.
func (f inputFormat) maxLine() int {
	if f.json {
		return recordio.MaxJSONLine
	}
	return domain.MaxRecordBytes + len(f.separator)
}

// recordSource reads records from lines.
type recordSource struct {
	format  inputFormat
	scanner *recordio.Scanner
	parser  recordio.Parser
}

func newRecordSource(r io.Reader, f inputFormat) *recordSource {
	return &recordSource{format: f, scanner: recordio.NewScanner(r, f.maxLine())}
}

// lineError is one line that cannot be a record. The lines after it can.
type lineError struct{ err error }

func (e *lineError) Error() string { return e.err.Error() }
func (e *lineError) Unwrap() error { return e.err }

// next reads the next record into r, whose bytes are valid until the following
// call, and returns its line number. After a *lineError it goes on; io.EOF is the end.
func (s *recordSource) next(r *domain.Record) (int64, error) {
	line, err := s.scanner.Next()
	var long *recordio.LineTooLongError
	switch {
	case errors.As(err, &long):
		return s.scanner.Line(), &lineError{s.tooLong(long)}
	case err != nil:
		return s.scanner.Line(), err
	}
	*r = domain.Record{Topic: s.format.topic}
	if s.format.json {
		if err := s.parser.Parse(line, r); err != nil {
			return s.scanner.Line(), &lineError{err}
		}
	} else if r.Value = line; s.format.separator != nil {
		r.Key, r.Value = recordio.Split(line, s.format.separator)
	}
	if _, explicit := r.Partition.Explicit(); !explicit {
		r.Partition = s.format.partition
	}
	return s.scanner.Line(), nil
}

func (s *recordSource) tooLong(e *recordio.LineTooLongError) error {
	if s.format.json {
		return fmt.Errorf("%w: %w", domain.ErrRecordTooLarge, e)
	}
	size := int(min(e.Size, 1<<62))
	return &domain.RecordTooLargeError{Topic: s.format.topic, What: "bytes", Size: size, Limit: domain.MaxRecordBytes}
}

// chunkBytes is how much of the input is read at once.
const chunkBytes = 256 << 10

// abandonable reads from another reader, and can be left while that one waits.
//
// Its goroutine is the only one in the tool that may outlive its command: it
// hangs in the other reader until that returns, since a read of a terminal or a pipe
// cannot be taken back.
type abandonable struct {
	ctx    context.Context
	chunks chan chunk
	free   chan []byte
	now    chunk
	taken  int
}

type chunk struct {
	bytes []byte
	err   error
}

// newAbandonable begins to read r. Its reads fail once ctx has ended.
func newAbandonable(ctx context.Context, r io.Reader) *abandonable {
	// Two buffers: one is filled while the other is used.
	a := &abandonable{ctx: ctx, chunks: make(chan chunk), free: make(chan []byte, 2)}
	a.free <- make([]byte, chunkBytes)
	a.free <- make([]byte, chunkBytes)
	go a.fill(r)
	return a
}

func (a *abandonable) fill(r io.Reader) {
	for {
		var buf []byte
		select {
		case buf = <-a.free:
		case <-a.ctx.Done():
			return
		}
		n, err := r.Read(buf[:chunkBytes])
		select {
		case a.chunks <- chunk{buf[:n], err}:
		case <-a.ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// Read reads; the error is the cause of the context once it has ended.
func (a *abandonable) Read(p []byte) (int, error) {
	if a.ctx.Err() != nil {
		return 0, context.Cause(a.ctx)
	}
	for a.taken == len(a.now.bytes) {
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.now.bytes != nil {
			a.free <- a.now.bytes
		}
		select {
		case a.now = <-a.chunks:
			a.taken = 0
		case <-a.ctx.Done():
			a.now = chunk{}
			a.taken = 0
			return 0, context.Cause(a.ctx)
		}
	}
	n := copy(p, a.now.bytes[a.taken:])
	a.taken += n
	return n, nil
}
