package ports_test

import (
	"context"
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// example is that of the W3C recommendation.
const example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestParseTraceparent_ReadsWhatTheStandardSays(t *testing.T) {
	for text, want := range map[string]string{
		example: example,
		strings.Replace(example, "-01", "-00", 1): strings.Replace(example, "-01", "-00", 1),
		strings.Replace(example, "-01", "-03", 1): example, // flags of a later level are not ours to pass on
		"cc" + example[2:] + "-later":             example, // a later version may have more
		"cc" + example[2:]:                        example,
		example + "-later":                        "", // this one may not
		"cc" + example[2:] + "later":              "",
		"ff" + example[2:]:                        "",
		strings.ToUpper(example):                  "",
		example[:54]:                              "",
		strings.Replace(example, "4bf92f3577b34da6a3ce929d0e0e4736", strings.Repeat("0", 32), 1): "",
		strings.Replace(example, "00f067aa0ba902b7", strings.Repeat("0", 16), 1):                 "",
		strings.Replace(example, "4b", "4g", 1):                                                  "",
		"":                                                                                       "",
	} {
		if got := ports.ParseTraceparent([]byte(text)).String(); got != want {
			t.Errorf("%q is read as %q, want %q", text, got, want)
		}
	}
}

func FuzzParseTraceparent(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte("cc" + example[2:] + "-later"))
	f.Add([]byte("00-"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := ports.ParseTraceparent(b)
		if text := got.String(); got.Valid() && ports.ParseTraceparent([]byte(text)) != got || !got.Valid() && text != "" {
			t.Errorf("%q is read as %+v, which is %q", b, got, text)
		}
	})
}

func TestTraceOf_FindsWhatIsThere(t *testing.T) {
	want := ports.ParseTraceparent([]byte(example))
	if got := ports.TraceOf(ports.ContextWithTrace(context.Background(), want)); got != want || !got.Sampled() {
		t.Errorf("of a context: %v, want %v", got, want)
	}
	if got := ports.TraceOf(context.Background()); got.Valid() {
		t.Errorf("of an empty context: %v", got)
	}
	headers := []domain.Header{{Key: "tracestate"}, {Key: ports.TraceparentHeader, Value: []byte(example)}}
	if got := ports.TraceOfHeaders(headers); got != want {
		t.Errorf("of headers: %v, want %v", got, want)
	}
	if got := ports.TraceOfHeaders(headers[:1]); got.Valid() {
		t.Errorf("of headers without: %v", got)
	}
}

func TestAddTrace_KeepsTheFirstSampledOnesOnceEach(t *testing.T) {
	var traces []ports.TraceContext
	for i := range 3 * ports.MaxSpanLinks {
		trace := ports.TraceContext{TraceID: [16]byte{1}, SpanID: [8]byte{byte(i/2 + 1)}, Flags: 1}
		traces = ports.AddTrace(traces, trace)
		trace.Flags = 0
		traces = ports.AddTrace(traces, trace)
	}
	if len(traces) != ports.MaxSpanLinks || traces[1].SpanID[0] != 2 || !traces[1].Sampled() {
		t.Errorf("%d traces, the second %v", len(traces), traces[1])
	}
}
