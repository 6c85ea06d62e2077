package grpc

import (
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/streamhouse/streamhouse/ports"
)

// codec is protobuf on the wire. It knows the messages of wire.go; all others are
// left to the codec of gRPC.
type codec struct{ encoding.CodecV2 }

func newCodec() encoding.CodecV2 { return codec{encoding.GetCodecV2(protocodec.Name)} }

// messages is for requests, on both ends.
var messages = newMemory(4<<10, 16<<10, 64<<10, 256<<10, 1<<20, requestBytes+64<<10)

// frame is a message that is encoded already.
type frame struct{ buffer mem.Buffer }

// fetched is agentv1.FetchResponse as a client reads it.
type fetched struct{ partitions []ports.FetchedPartition }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case *frame:
		return mem.BufferSlice{m.buffer}, nil
	case *produceResponse:
		b, err := m.append(nil)
		return mem.BufferSlice{mem.SliceBuffer(b)}, err
	case *fetchAnswer:
		return m.marshal()
	}
	return c.CodecV2.Marshal(v)
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch m := v.(type) {
	case *produceRequest:
		m.memory = data.MaterializeToBuffer(messages)
		return m.unmarshal(m.memory.ReadOnlyData())
	case *produceResponse:
		return m.unmarshal(data.Materialize())
	case *fetched:
		var err error
		m.partitions, err = unmarshalFetched(data.Materialize())
		return err
	}
	return c.CodecV2.Unmarshal(data, v)
}

// newFrame encodes r. Its batches' bytes are not used afterwards.
func newFrame(r *produceRequest) *frame {
	size := requestOverhead + 11*len(r.cancels)
	for _, b := range r.batches {
		size += batchSize(b)
	}
	if mem.IsBelowBufferPoolingThreshold(size) {
		return &frame{mem.SliceBuffer(r.append(make([]byte, 0, size)))}
	}
	buf := messages.Get(size)
	*buf = r.append((*buf)[:0])
	return &frame{mem.NewBuffer(buf, messages)}
}

// fetchAnswer is agentv1.FetchResponse as a server writes it.
type fetchAnswer struct {
	partitions []ports.FetchedPartition
	// sent is told how many bytes of batches have left, or never will, piece by
	// piece.
	sent func(n int64)
}

// marshal writes m without copying its batches.
func (m *fetchAnswer) marshal() (mem.BufferSlice, error) {
	var out mem.BufferSlice
	var small []byte
	for i := range m.partitions {
		p := &m.partitions[i]
		var detail []byte
		size := sizeVarint(uint64(p.LogStart)) + sizeVarint(uint64(p.HighWatermark))
		if p.Err != nil {
			var err error
			if detail, err = proto.Marshal(encodeError(p.Err)); err != nil {
				return nil, err
			}
			size += 1 + protowire.SizeBytes(len(detail))
		}
		if n := len(p.Batches); n > 0 {
			size += 1 + protowire.SizeBytes(n)
		}
		for _, s := range p.Sources {
			size += 1 + protowire.SizeBytes(sourceSize(s))
		}
		small = protowire.AppendVarint(protowire.AppendTag(small, fieldFetched, protowire.BytesType), uint64(size))
		small = appendVarint(small, fieldFetchedStart, uint64(p.LogStart))
		small = appendVarint(small, fieldFetchedHigh, uint64(p.HighWatermark))
		if p.Err != nil {
			small = protowire.AppendBytes(protowire.AppendTag(small, fieldFetchedError, protowire.BytesType), detail)
		}
		for _, s := range p.Sources {
			small = appendSource(small, s)
		}
		if b := p.Batches; len(b) > 0 {
			small = protowire.AppendTag(small, fieldFetchedBatches, protowire.BytesType)
			small = protowire.AppendVarint(small, uint64(len(b)))
			out = append(out, mem.SliceBuffer(small), m.lend(b))
			small = nil
		}
	}
	return append(out, mem.SliceBuffer(small)), nil
}

// lend gives b to gRPC, which tells when it needs it no more.
func (m *fetchAnswer) lend(b []byte) mem.Buffer {
	if mem.IsBelowBufferPoolingThreshold(cap(b)) {
		m.sent(int64(len(b)))
		return mem.SliceBuffer(b)
	}
	return mem.NewBuffer(&b, sentPool{m.sent})
}

// sentPool takes back what was lent.
type sentPool struct{ sent func(n int64) }

func (sentPool) Get(n int) *[]byte { b := make([]byte, n); return &b }
func (p sentPool) Put(b *[]byte)   { p.sent(int64(len(*b))) }
