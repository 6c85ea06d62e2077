package grpc

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/ports"
)

// The messages of the hot path are read and written by hand: the bytes are those
// of the generated code, which a test holds them to, but batches are neither copied once
// more nor wrapped in a message each.

// produceRequest is agentv1.ProduceRequest. One that was received shares the
// memory of its message, until free.
type produceRequest struct {
	memory    mem.Buffer
	id        uint64
	timeoutMS uint32
	batches   []ports.Batch
	cancels   []uint64
	trace     ports.TraceContext
}

// Field numbers of log.proto.
const (
	fieldRequestID      = 1
	fieldRequestTimeout = 2
	fieldRequestBatches = 3
	fieldRequestCancels = 4
	fieldRequestTrace   = 5

	fieldBatchTopic     = 1
	fieldBatchPartition = 2
	fieldBatchData      = 3

	fieldResponseWelcome  = 1
	fieldResponseOutcomes = 2
	fieldResponseDraining = 3

	fieldOutcomeRequest = 1
	fieldOutcomeIndex   = 2
	fieldOutcomeBase    = 3
	fieldOutcomeError   = 4

	fieldFetched = 1

	fieldFetchedStart   = 1
	fieldFetchedHigh    = 2
	fieldFetchedBatches = 3
	fieldFetchedError   = 4
	fieldFetchedSource  = 5

	fieldSourceSegment  = 1
	fieldSourcePosition = 2
	fieldSourceLength   = 3
)

var errMalformed = errors.New("malformed message")

// eachField calls f for every field of the message b. F returns the rest of b
// behind the field's value, or nil and no error if it leaves the field alone.
func eachField(b []byte, f func(n protowire.Number, t protowire.Type, b []byte) (rest []byte, err error)) error {
	for len(b) > 0 {
		n, t, size := protowire.ConsumeTag(b)
		if size < 0 {
			return errMalformed
		}
		b = b[size:]
		rest, err := f(n, t, b)
		if err != nil {
			return err
		}
		if rest == nil {
			if size = protowire.ConsumeFieldValue(n, t, b); size < 0 {
				return errMalformed
			}
			rest = b[size:]
		}
		b = rest
	}
	return nil
}

// takeVarint reads a varint into v. The rest is never nil.
func takeVarint[T ~uint64 | ~int64 | ~uint32 | ~int32](b []byte, v *T) ([]byte, error) {
	x, n := protowire.ConsumeVarint(b)
	if n < 0 {
		return nil, errMalformed
	}
	*v = T(x)
	return b[n:], nil
}

// takeBytes reads bytes into v, which shares their memory. The rest is never nil.
func takeBytes(b []byte, v *[]byte) ([]byte, error) {
	x, n := protowire.ConsumeBytes(b)
	if n < 0 {
		return nil, errMalformed
	}
	*v = x[:len(x):len(x)]
	return b[n:], nil
}

// free gives back the message's memory. The batches are of no use any more.
func (r *produceRequest) free() {
	if r.memory != nil {
		r.memory.Free()
		r.memory = nil
	}
}

func (r *produceRequest) unmarshal(b []byte) error {
	return eachField(b, func(n protowire.Number, t protowire.Type, b []byte) ([]byte, error) {
		switch {
		case n == fieldRequestID && t == protowire.VarintType:
			return takeVarint(b, &r.id)
		case n == fieldRequestTimeout && t == protowire.VarintType:
			return takeVarint(b, &r.timeoutMS)
		case n == fieldRequestCancels && t == protowire.VarintType:
			r.cancels = append(r.cancels, 0)
			return takeVarint(b, &r.cancels[len(r.cancels)-1])
		case n == fieldRequestCancels && t == protowire.BytesType:
			return r.takePacked(b)
		case n == fieldRequestTrace && t == protowire.BytesType:
			var text []byte
			rest, err := takeBytes(b, &text)
			r.trace = ports.ParseTraceparent(text)
			return rest, err
		case n == fieldRequestBatches && t == protowire.BytesType:
			var body []byte
			rest, err := takeBytes(b, &body)
			if err != nil {
				return nil, err
			}
			r.batches = append(r.batches, ports.Batch{})
			return rest, unmarshalBatch(body, &r.batches[len(r.batches)-1])
		}
		return nil, nil
	})
}

func (r *produceRequest) takePacked(b []byte) ([]byte, error) {
	var packed []byte
	rest, err := takeBytes(b, &packed)
	for err == nil && len(packed) > 0 {
		var id uint64
		packed, err = takeVarint(packed, &id)
		r.cancels = append(r.cancels, id)
	}
	return rest, err
}

func unmarshalBatch(b []byte, out *ports.Batch) error {
	var topic []byte
	err := eachField(b, func(n protowire.Number, t protowire.Type, b []byte) ([]byte, error) {
		switch {
		case n == fieldBatchTopic && t == protowire.BytesType:
			return takeBytes(b, &topic)
		case n == fieldBatchPartition && t == protowire.VarintType:
			return takeVarint(b, &out.Partition)
		case n == fieldBatchData && t == protowire.BytesType:
			return takeBytes(b, &out.Bytes)
		}
		return nil, nil
	})
	if err == nil && copy(out.Topic[:], topic) != len(topic) || len(topic) != len(out.Topic) {
		return fmt.Errorf("%w: a topic id of %d bytes", errMalformed, len(topic))
	}
	return err
}

// batchSize is how many bytes b takes in a request.
func batchSize(b ports.Batch) int {
	n := batchBody(b)
	return 1 + protowire.SizeVarint(uint64(n)) + n
}

func batchBody(b ports.Batch) int {
	n := 1 + protowire.SizeBytes(len(b.Topic)) + 1 + protowire.SizeBytes(len(b.Bytes))
	if b.Partition != 0 {
		n += 1 + protowire.SizeVarint(uint64(int64(b.Partition)))
	}
	return n
}

// requestOverhead bounds what a request takes besides its batches and cancels.
const requestOverhead = 96

// append appends the request's bytes to dst.
func (r *produceRequest) append(dst []byte) []byte {
	dst = appendVarint(dst, fieldRequestID, r.id)
	dst = appendVarint(dst, fieldRequestTimeout, uint64(r.timeoutMS))
	for _, b := range r.batches {
		dst = protowire.AppendTag(dst, fieldRequestBatches, protowire.BytesType)
		dst = protowire.AppendVarint(dst, uint64(batchBody(b)))
		dst = protowire.AppendTag(dst, fieldBatchTopic, protowire.BytesType)
		dst = protowire.AppendBytes(dst, b.Topic[:])
		dst = appendVarint(dst, fieldBatchPartition, uint64(int64(b.Partition)))
		dst = protowire.AppendTag(dst, fieldBatchData, protowire.BytesType)
		dst = protowire.AppendBytes(dst, b.Bytes)
	}
	for _, id := range r.cancels {
		dst = protowire.AppendTag(dst, fieldRequestCancels, protowire.VarintType)
		dst = protowire.AppendVarint(dst, id)
	}
	if r.trace.Valid() {
		dst = protowire.AppendString(protowire.AppendTag(dst, fieldRequestTrace, protowire.BytesType), r.trace.String())
	}
	return dst
}

// appendVarint appends a field, unless it is 0.
func appendVarint(dst []byte, n protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, n, protowire.VarintType), v)
}

// produceResponse is agentv1.ProduceResponse.
type produceResponse struct {
	welcome  *agentv1.Welcome
	outcomes []outcome
	draining bool
}

// outcome is agentv1.Outcome.
type outcome struct {
	request uint64
	index   uint32
	base    int64
	err     *agentv1.Error
}

func (r *produceResponse) unmarshal(b []byte) error {
	return eachField(b, func(n protowire.Number, t protowire.Type, b []byte) ([]byte, error) {
		var body []byte
		switch {
		case n == fieldResponseWelcome && t == protowire.BytesType:
			rest, err := takeBytes(b, &body)
			if err != nil {
				return nil, err
			}
			r.welcome = new(agentv1.Welcome)
			return rest, proto.Unmarshal(body, r.welcome)
		case n == fieldResponseOutcomes && t == protowire.BytesType:
			rest, err := takeBytes(b, &body)
			if err != nil {
				return nil, err
			}
			r.outcomes = append(r.outcomes, outcome{})
			return rest, r.outcomes[len(r.outcomes)-1].unmarshal(body)
		case n == fieldResponseDraining && t == protowire.VarintType:
			var v uint64
			rest, err := takeVarint(b, &v)
			r.draining = v != 0
			return rest, err
		}
		return nil, nil
	})
}

func (o *outcome) unmarshal(b []byte) error {
	return eachField(b, func(n protowire.Number, t protowire.Type, b []byte) ([]byte, error) {
		switch {
		case n == fieldOutcomeRequest && t == protowire.VarintType:
			return takeVarint(b, &o.request)
		case n == fieldOutcomeIndex && t == protowire.VarintType:
			return takeVarint(b, &o.index)
		case n == fieldOutcomeBase && t == protowire.VarintType:
			return takeVarint(b, &o.base)
		case n == fieldOutcomeError && t == protowire.BytesType:
			var body []byte
			rest, err := takeBytes(b, &body)
			if err != nil {
				return nil, err
			}
			o.err = new(agentv1.Error)
			return rest, proto.Unmarshal(body, o.err)
		}
		return nil, nil
	})
}

func (r *produceResponse) append(dst []byte) ([]byte, error) {
	if r.welcome != nil {
		body, err := proto.Marshal(r.welcome)
		if err != nil {
			return nil, err
		}
		dst = protowire.AppendBytes(protowire.AppendTag(dst, fieldResponseWelcome, protowire.BytesType), body)
	}
	for i := range r.outcomes {
		o := &r.outcomes[i]
		var detail []byte
		if o.err != nil {
			var err error
			if detail, err = proto.Marshal(o.err); err != nil {
				return nil, err
			}
		}
		dst = protowire.AppendTag(dst, fieldResponseOutcomes, protowire.BytesType)
		dst = protowire.AppendVarint(dst, uint64(o.size(detail)))
		dst = appendVarint(dst, fieldOutcomeRequest, o.request)
		dst = appendVarint(dst, fieldOutcomeIndex, uint64(o.index))
		dst = appendVarint(dst, fieldOutcomeBase, uint64(o.base))
		if o.err != nil {
			dst = protowire.AppendBytes(protowire.AppendTag(dst, fieldOutcomeError, protowire.BytesType), detail)
		}
	}
	if r.draining {
		dst = appendVarint(dst, fieldResponseDraining, 1)
	}
	return dst, nil
}

func (o *outcome) size(detail []byte) int {
	n := sizeVarint(o.request) + sizeVarint(uint64(o.index)) + sizeVarint(uint64(o.base))
	if o.err != nil {
		n += 1 + protowire.SizeBytes(len(detail))
	}
	return n
}

func sizeVarint(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

// unmarshalFetched reads agentv1.FetchResponse. The batches share b's memory.
func unmarshalFetched(b []byte) ([]ports.FetchedPartition, error) {
	var all []ports.FetchedPartition
	err := eachField(b, func(n protowire.Number, t protowire.Type, b []byte) ([]byte, error) {
		if n != fieldFetched || t != protowire.BytesType {
			return nil, nil
		}
		var body []byte
		rest, err := takeBytes(b, &body)
		if err != nil {
			return nil, err
		}
		all = append(all, ports.FetchedPartition{})
		return rest, unmarshalFetchedPartition(body, &all[len(all)-1])
	})
	return all, err
}

func unmarshalFetchedPartition(b []byte, p *ports.FetchedPartition) error {
	return eachField(b, func(n protowire.Number, t protowire.Type, b []byte) ([]byte, error) {
		switch {
		case n == fieldFetchedStart && t == protowire.VarintType:
			return takeVarint(b, &p.LogStart)
		case n == fieldFetchedHigh && t == protowire.VarintType:
			return takeVarint(b, &p.HighWatermark)
		case n == fieldFetchedBatches && t == protowire.BytesType:
			return takeBytes(b, &p.Batches)
		case n == fieldFetchedError && t == protowire.BytesType:
			var body []byte
			rest, err := takeBytes(b, &body)
			if err != nil {
				return nil, err
			}
			detail := new(agentv1.Error)
			err = proto.Unmarshal(body, detail)
			p.Err = decodeError(detail)
			return rest, err
		case n == fieldFetchedSource && t == protowire.BytesType && len(p.Sources) < maxSources:
			var body []byte
			rest, err := takeBytes(b, &body)
			if err != nil {
				return nil, err
			}
			p.Sources = append(p.Sources, ports.Source{})
			return rest, unmarshalSource(body, &p.Sources[len(p.Sources)-1])
		}
		return nil, nil
	})
}

// sourceSize is how many bytes appendSource writes behind the tag and length.
func sourceSize(s ports.Source) int {
	size := sizeVarint(uint64(s.Position)) + sizeVarint(uint64(s.Length))
	if id := encodeSegment(s.Segment); id != nil {
		size += 1 + protowire.SizeBytes(len(id))
	}
	return size
}

func appendSource(dst []byte, s ports.Source) []byte {
	dst = protowire.AppendVarint(protowire.AppendTag(dst, fieldFetchedSource, protowire.BytesType), uint64(sourceSize(s)))
	if id := encodeSegment(s.Segment); id != nil {
		dst = protowire.AppendBytes(protowire.AppendTag(dst, fieldSourceSegment, protowire.BytesType), id)
	}
	return appendVarint(appendVarint(dst, fieldSourcePosition, uint64(s.Position)), fieldSourceLength, uint64(s.Length))
}

func unmarshalSource(b []byte, s *ports.Source) error {
	return eachField(b, func(n protowire.Number, t protowire.Type, b []byte) ([]byte, error) {
		switch {
		case n == fieldSourceSegment && t == protowire.BytesType:
			var id []byte
			rest, err := takeBytes(b, &id)
			copy(s.Segment[:], id)
			return rest, err
		case n == fieldSourcePosition && t == protowire.VarintType:
			return takeVarint(b, &s.Position)
		case n == fieldSourceLength && t == protowire.VarintType:
			return takeVarint(b, &s.Length)
		}
		return nil, nil
	})
}
