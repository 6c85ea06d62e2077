package producer

import (
	"context"
	"testing"

	"github.com/streamhouse/streamhouse/adapters/codec"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// sink is a transport that acknowledges everything at once.
type sink struct{ next domain.Offset }

func (s *sink) Append(_ context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
	for i := range batches {
		s.next++
		settle(i, ports.AppendResult{Base: s.next})
	}
	return nil
}

func (s *sink) Close(context.Context) error { return nil }

// jsonLike is a 100-byte value of which each benchmark iteration changes a part.
const jsonLike = `{"id":"0123456789abcdef","user":"u-4711","action":"click","page":"/products/42","ts":1732400000000}   `

// BenchmarkSendAsync measures the path from SendAsync to the callback without
// stores: what the producer itself costs a record.
func BenchmarkSendAsync(b *testing.B) {
	for _, c := range []struct {
		name     string
		callback Callback
		compress bool
	}{
		{"pending", nil, false},
		{"callback", func(domain.SendResult, error) {}, false},
		{"callback-lz4", func(domain.SendResult, error) {}, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			meta := memory.NewMetadata(memory.MetadataOptions{Seed: 1})
			if _, err := meta.CreateTopic(b.Context(), domain.TopicSpec{Name: "t", Partitions: 16}); err != nil {
				b.Fatal(err)
			}
			cfg := DefaultConfig()
			if c.compress {
				cfg.Codec = codec.NewLZ4()
			}
			p, err := New(b.Context(), Ports{Topics: meta, Producers: meta, Transport: &sink{}, Telemetry: ports.NoTelemetry{}}, cfg)
			if err != nil {
				b.Fatal(err)
			}
			value := []byte(jsonLike)
			b.SetBytes(int64(len(value)))
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				n++
				for i, v := 7, n; i < 23; i++ {
					value[i] = 'a' + byte(v&15)
					v >>= 2
				}
				p.SendAsync(b.Context(), domain.Record{Topic: "t", Value: value}, c.callback)
			}
			if err := p.Close(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}
