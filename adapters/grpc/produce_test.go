package grpc

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// script is a Produce stream whose requests are given, and whose answers are
// kept.
type script struct {
	ctx      context.Context
	requests [][]byte

	mu      sync.Mutex
	answers []*agentv1.ProduceResponse
}

func (s *script) Context() context.Context     { return s.ctx }
func (s *script) SetHeader(metadata.MD) error  { return nil }
func (s *script) SendHeader(metadata.MD) error { return nil }
func (s *script) SetTrailer(metadata.MD)       {}

func (s *script) RecvMsg(m any) error {
	if len(s.requests) == 0 {
		return io.EOF
	}
	b := s.requests[0]
	s.requests = s.requests[1:]
	return newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, m)
}

func (s *script) SendMsg(m any) error {
	data, err := newCodec().Marshal(m)
	if err != nil {
		return err
	}
	answer := new(agentv1.ProduceResponse)
	if err := proto.Unmarshal(data.Materialize(), answer); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = append(s.answers, answer)
	return nil
}

// storing is a transport that stores everything at offset 7.
type storing struct{ nothing }

func (storing) Append(_ context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
	for i := range batches {
		settle(i, ports.AppendResult{Base: 7})
	}
	return nil
}

// FuzzProduce gives arbitrary bytes to the handler as two requests: it answers
// each batch of a request that is one exactly once, and holds nothing afterwards.
func FuzzProduce(f *testing.F) {
	var b batch.Builder
	b.Reset(nil)
	b.Append(1, nil, []byte("value"), nil)
	good, err := b.Encode(nil, nil, batch.NoProducer)
	if err != nil {
		f.Fatal(err)
	}
	key := commit.PartitionKey{Topic: domain.TopicID{1}, Partition: 2}
	for _, r := range []produceRequest{
		{},
		{id: 1, batches: []ports.Batch{{PartitionKey: key, Bytes: good}, {PartitionKey: key}}},
		{id: 1 << 63, timeoutMS: 1<<32 - 1, batches: []ports.Batch{{PartitionKey: commit.PartitionKey{Partition: -1}, Bytes: good}}, cancels: []uint64{0, 1, 1 << 63}},
	} {
		f.Add(newFrame(&r).buffer.ReadOnlyData(), []byte{})
	}
	f.Add([]byte{}, []byte{0x1a, 0x00})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		backend := backendOfNothing()
		backend.Transport = storing{}
		cfg := DefaultServerConfig()
		cfg.MaxBatches = 64
		s, err := NewServer(backend, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Stop()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream := &script{ctx: ctx, requests: [][]byte{bytes.Clone(first), bytes.Clone(second)}}
		err = s.produce(stream)
		cancel()
		s.work.Wait()
		answered := make(map[[2]uint64]bool)
		for _, a := range stream.answers {
			for _, o := range a.GetOutcomes() {
				at := [2]uint64{o.GetRequestId(), uint64(o.GetIndex())}
				if answered[at] || o.GetError() == nil && o.GetBaseOffset() != 7 {
					t.Errorf("outcome %v", o)
				}
				answered[at] = true
			}
		}
		want, last, valid := 0, uint64(0), true
		for _, b := range [][]byte{first, second} {
			var r produceRequest
			valid = valid && r.unmarshal(b) == nil && len(r.batches) <= 64 && (len(r.batches) == 0 || r.id > last)
			if valid && len(r.batches) > 0 {
				last = r.id
				want += len(r.batches)
			}
		}
		if valid != (err == nil) || len(answered) > want || valid && len(answered) != want {
			t.Errorf("%d of %d batches are answered, error %v", len(answered), want, err)
		}
		if s.limiter.held() != 0 {
			t.Errorf("%d bytes are held", s.limiter.held())
		}
	})
}

// TestWhole_ReturnsWholeBatchesFromTheOffsetOn cuts runs of batches down.
func TestWhole_ReturnsWholeBatchesFromTheOffsetOn(t *testing.T) {
	var all []byte
	var starts []int // of batch i, which holds the offsets 2i and 2i+1
	for i := range 5 {
		var b batch.Builder
		b.Reset(nil)
		b.Append(1, nil, bytes.Repeat([]byte{'x'}, 100*i), nil)
		b.Append(1, nil, nil, nil)
		one, err := b.Encode(nil, nil, batch.NoProducer)
		if err != nil {
			t.Fatal(err)
		}
		batch.SetBaseOffset(one, domain.Offset(2*i))
		starts = append(starts, len(all))
		all = append(all, one...)
	}
	starts = append(starts, len(all))
	cut := func(b []byte, offset domain.Offset, most int64, first bool) []byte {
		begin, end := whole(b, offset, most, first)
		return b[begin:end]
	}
	if got := cut(all, 5, int64(len(all)), true); !bytes.Equal(got, all) {
		t.Error("what has room is cut")
	}
	for offset := range domain.Offset(10) {
		for _, first := range []bool{true, false} {
			for most := range int64(len(all)) {
				got := cut(all, offset, most, first)
				from := int(offset) / 2
				to := from
				for to < 5 && int64(starts[to+1]-starts[from]) <= most {
					to++
				}
				if to == from && first {
					to++
				}
				if want := all[starts[from]:starts[to]]; !bytes.Equal(got, want) {
					t.Fatalf("offset %d, %d bytes, first %v: %d bytes, want %d", offset, most, first, len(got), len(want))
				}
			}
		}
	}
	if got := cut([]byte("damaged, and longer than what may be"), 0, 5, true); len(got) == 0 {
		t.Error("damaged bytes are nothing: their reader would wait for ever")
	}
}
