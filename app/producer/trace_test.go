package producer

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

// recorder is a tracer that keeps what it is told. It samples all, or nothing.
type recorder struct {
	ports.NoTelemetry
	nothing bool

	mu    sync.Mutex
	spans []*recordedSpan
}

type recordedSpan struct {
	r     *recorder
	start ports.SpanStart
	trace ports.TraceContext
	ends  []ports.SpanEnd
}

func (r *recorder) Begin(_ context.Context, s ports.SpanStart) ports.Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.For = slices.Clone(s.For)
	span := &recordedSpan{r: r, start: s}
	binary.BigEndian.PutUint64(span.trace.SpanID[:], uint64(len(r.spans))+1)
	span.trace.TraceID[0] = 1
	if !r.nothing {
		span.trace.Flags = 1
	}
	r.spans = append(r.spans, span)
	return span
}

func (s *recordedSpan) Trace() ports.TraceContext { return s.trace }

func (s *recordedSpan) End(e ports.SpanEnd) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.ends = append(s.ends, e)
}

// of returns the spans of a kind, in the order of their beginnings.
func (r *recorder) of(kind ports.SpanKind) []*recordedSpan {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.spans), func(s *recordedSpan) bool { return s.start.Kind != kind })
}

// gate is a transport that answers when it is told to, and keeps the records and
// the trace of each Append.
type gate struct {
	calls   chan func(error) // one for each Append
	traces  []ports.TraceContext
	headers [][]domain.Header
}

func (g *gate) Append(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
	g.traces = append(g.traces, ports.TraceOf(ctx))
	for _, b := range batches {
		records, err := batch.NewDecoder().Decode(b.Bytes)
		if err != nil {
			return err
		}
		var r batch.Record
		for records.Next(&r) {
			g.headers = append(g.headers, r.AppendHeaders(nil))
		}
	}
	g.calls <- func(err error) {
		for i := range batches {
			settle(i, ports.AppendResult{Base: 7, Err: err})
		}
	}
	return nil
}

func (g *gate) Close(context.Context) error { return nil }

// traced runs f in virtual time with a producer whose spans go to tracer.
func inTrace(t *testing.T, tracer *recorder, f func(t *testing.T, p *Producer, g *gate)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		meta := memory.NewMetadata(memory.MetadataOptions{Seed: 1})
		if _, err := meta.CreateTopic(t.Context(), domain.TopicSpec{Name: "orders", Partitions: 1}); err != nil {
			t.Fatal(err)
		}
		g := &gate{calls: make(chan func(error), 16)}
		p, err := New(t.Context(), Ports{Topics: meta, Producers: meta, Transport: g, Telemetry: tracer}, DefaultConfig())
		if err != nil {
			t.Fatal(err)
		}
		f(t, p, g)
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
		for _, s := range tracer.spans {
			if len(s.ends) != 1 {
				t.Errorf("a span of kind %d ended %d times", s.start.Kind, len(s.ends))
			}
		}
	})
}

func TestSend_PutsItsTraceIntoTheRecordAndNotIntoTheCallersHeaders(t *testing.T) {
	tracer := new(recorder)
	inTrace(t, tracer, func(t *testing.T, p *Producer, g *gate) {
		shared := append(make([]domain.Header, 0, 8), domain.Header{Key: "a"})
		pending := p.SendAsync(t.Context(), domain.Record{Topic: "orders", Headers: shared}, nil)
		(<-g.calls)(nil)
		result, err := pending.Wait(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		sends := tracer.of(ports.SendSpan)
		if len(sends) != 1 || sends[0].start.Topic != "orders" || sends[0].ends[0].Offset != result.Offset {
			t.Fatalf("spans %+v of a record at %d", sends, result.Offset)
		}
		got := g.headers[0]
		if len(got) != 2 || got[1].Key != "traceparent" || string(got[1].Value) != sends[0].trace.String() {
			t.Errorf("headers %v, want one with %s", got, sends[0].trace)
		}
		if extra := shared[:2][1]; extra.Key != "" {
			t.Errorf("the caller's array has got %q", extra.Key)
		}
	})
}

func TestSend_LeavesARecordThatCarriesATraceOrHasNoRoomAsItIs(t *testing.T) {
	inTrace(t, new(recorder), func(t *testing.T, p *Producer, g *gate) {
		for _, r := range []domain.Record{
			{Headers: []domain.Header{{Key: "traceparent", Value: []byte("mine")}}},
			{Headers: make([]domain.Header, domain.MaxHeaders)},
			{Value: make([]byte, domain.MaxRecordBytes)},
		} {
			r.Topic = "orders"
			pending := p.SendAsync(t.Context(), r, nil)
			(<-g.calls)(nil)
			if _, err := pending.Wait(t.Context()); err != nil {
				t.Errorf("record with %d headers: %v", len(r.Headers), err)
			}
			if got := g.headers[len(g.headers)-1]; len(got) != len(r.Headers) || len(got) == 1 && string(got[0].Value) != "mine" {
				t.Errorf("%d headers became %d", len(r.Headers), len(got))
			}
		}
	})
}

func TestSend_OfWhatIsNotSampledLeavesNothingBehind(t *testing.T) {
	tracer := &recorder{nothing: true}
	inTrace(t, tracer, func(t *testing.T, p *Producer, g *gate) {
		pending := p.SendAsync(t.Context(), domain.Record{Topic: "orders"}, nil)
		(<-g.calls)(nil)
		if _, err := pending.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(g.headers[0]) != 0 || g.traces[0].Valid() || len(tracer.of(ports.PublishSpan)) != 0 {
			t.Errorf("headers %v, trace %s, %d publish spans", g.headers[0], g.traces[0], len(tracer.of(ports.PublishSpan)))
		}
	})
}

func TestPublish_IsOneSpanARequestForItsFirstSenders(t *testing.T) {
	tracer := new(recorder)
	inTrace(t, tracer, func(t *testing.T, p *Producer, g *gate) {
		send := func() { p.SendAsync(t.Context(), domain.Record{Topic: "orders"}, nil) }
		send()
		first := <-g.calls
		for range 2 * ports.MaxSpanLinks { // they wait for the first, in one batch
			send()
		}
		synctest.Wait()
		refused := errors.New("refused")
		first(ports.MetadataError("commit", ports.Transient, refused))
		(<-g.calls)(nil) // the first again, alone or with the others
		synctest.Wait()
		for len(g.calls) > 0 {
			(<-g.calls)(nil)
			synctest.Wait()
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		sends, publishes := tracer.of(ports.SendSpan), tracer.of(ports.PublishSpan)
		if !errors.Is(publishes[0].ends[0].Err, refused) || publishes[1].ends[0].Err != nil {
			t.Errorf("attempts ended with %v and %v", publishes[0].ends[0].Err, publishes[1].ends[0].Err)
		}
		largest := 0
		for i, s := range publishes {
			if g.traces[i] != s.trace {
				t.Errorf("request %d went out for %s, want %s", i, g.traces[i], s.trace)
			}
			largest = max(largest, len(s.start.For))
		}
		if got := publishes[0].start.For; len(got) != 1 || got[0] != sends[0].trace {
			t.Errorf("the first request is for %v, want %v", got, sends[0].trace)
		}
		if largest != ports.MaxSpanLinks {
			t.Errorf("the largest request is for %d senders, want %d", largest, ports.MaxSpanLinks)
		}
	})
}

func TestTrySend_EndsTheSpanOfARecordThatIsRefused(t *testing.T) {
	tracer := new(recorder)
	inTrace(t, tracer, func(t *testing.T, p *Producer, _ *gate) {
		called := false
		if _, err := p.TrySend(domain.Record{Topic: "../x"}, func(domain.SendResult, error) { called = true }); !errors.Is(err, domain.ErrInvalidName) || called {
			t.Errorf("error %v, callback called: %t", err, called)
		}
		if end := tracer.of(ports.SendSpan)[0].ends; len(end) != 1 || !errors.Is(end[0].Err, domain.ErrInvalidName) {
			t.Errorf("the span ended with %v", end)
		}
	})
}
