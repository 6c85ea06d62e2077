package grpc

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

func drawBatch(t *rapid.T) ports.Batch {
	var topic domain.TopicID
	copy(topic[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "topic"))
	return ports.Batch{
		PartitionKey: commit.PartitionKey{Topic: topic, Partition: domain.PartitionID(rapid.Int32().Draw(t, "partition"))},
		Bytes:        rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "bytes"),
	}
}

// TestWire_IsWhatTheGeneratedCodeWrites holds the messages that are written and
// read by hand to those of the protocol.
func TestWire_IsWhatTheGeneratedCodeWrites(t *testing.T) {
	t.Run("ProduceRequest", rapid.MakeCheck(requestIsTheSame))
	t.Run("ProduceResponse", rapid.MakeCheck(responseIsTheSame))
	t.Run("FetchResponse", rapid.MakeCheck(fetchedIsTheSame))
}

func requestIsTheSame(t *rapid.T) {
	r := produceRequest{
		id: rapid.Uint64().Draw(t, "id"), timeoutMS: rapid.Uint32().Draw(t, "timeout"),
		batches: rapid.SliceOfN(rapid.Custom(drawBatch), 0, 5).Draw(t, "batches"),
		cancels: rapid.SliceOfN(rapid.Uint64(), 0, 5).Draw(t, "cancels"),
		trace:   ports.TraceContext{SpanID: [8]byte{7}, Flags: rapid.ByteRange(0, 1).Draw(t, "flags")},
	}
	if rapid.Bool().Draw(t, "traced") {
		r.trace.TraceID[0] = 1
	} else {
		r.trace = ports.TraceContext{}
	}
	frame := newFrame(&r)
	ours := frame.buffer.ReadOnlyData()
	theirs := new(agentv1.ProduceRequest)
	if err := proto.Unmarshal(ours, theirs); err != nil {
		t.Fatal(err)
	}
	if theirs.GetTraceparent() != r.trace.String() {
		t.Fatalf("%s became %q", r.trace, theirs.GetTraceparent())
	}
	if theirs.GetId() != r.id || theirs.GetTimeoutMs() != r.timeoutMS || len(theirs.GetBatches()) != len(r.batches) {
		t.Fatalf("%+v became %v", r, theirs)
	}
	for i, b := range theirs.GetBatches() {
		if !bytes.Equal(b.GetTopicId(), r.batches[i].Topic[:]) || b.GetPartition() != int32(r.batches[i].Partition) || !bytes.Equal(b.GetData(), r.batches[i].Bytes) {
			t.Fatalf("batch %d: %+v became %v", i, r.batches[i], b)
		}
	}
	if len(theirs.GetCancels())+len(r.cancels) > 0 && !reflect.DeepEqual(theirs.GetCancels(), r.cancels) {
		t.Fatalf("cancels %v became %v", r.cancels, theirs.GetCancels())
	}
	again, err := proto.Marshal(theirs) // which packs the cancels
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{ours, again} {
		var back produceRequest
		if err := newCodec().Unmarshal(split(t, b), &back); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(toProto(&back), toProto(&r)) {
			t.Fatalf("%+v came back as %+v", r, back)
		}
	}
}

func toProto(r *produceRequest) *agentv1.ProduceRequest {
	out := &agentv1.ProduceRequest{Id: r.id, TimeoutMs: r.timeoutMS, Cancels: r.cancels, Traceparent: r.trace.String()}
	for _, b := range r.batches {
		out.Batches = append(out.Batches, &agentv1.Batch{TopicId: b.Topic[:], Partition: int32(b.Partition), Data: b.Bytes})
	}
	return out
}

// split cuts b into buffers as they come from the network.
func split(t *rapid.T, b []byte) mem.BufferSlice {
	at := rapid.IntRange(0, len(b)).Draw(t, "cut")
	return mem.BufferSlice{mem.SliceBuffer(b[:at]), mem.SliceBuffer(b[at:])}
}

func responseIsTheSame(t *rapid.T) {
	r := produceResponse{draining: rapid.Bool().Draw(t, "draining")}
	want := &agentv1.ProduceResponse{Draining: r.draining}
	if rapid.Bool().Draw(t, "welcome") {
		r.welcome = &agentv1.Welcome{Version: "v1", WindowBytes: rapid.Uint64().Draw(t, "window"), MaxBatches: 3}
		want.Welcome = r.welcome
	}
	for range rapid.IntRange(0, 5).Draw(t, "outcomes") {
		o := outcome{
			request: rapid.Uint64().Draw(t, "request"), index: rapid.Uint32().Draw(t, "index"),
			base: rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{0, -1, math.MaxInt64})).Draw(t, "base"),
		}
		if rapid.Bool().Draw(t, "fails") {
			o.err = encodeError(ports.MetadataError("commit", ports.Ambiguous, &domain.TopicNotFoundError{Topic: "orders"}))
		}
		r.outcomes = append(r.outcomes, o)
		want.Outcomes = append(want.Outcomes, &agentv1.Outcome{RequestId: o.request, Index: o.index, BaseOffset: o.base, Error: o.err})
	}
	data, err := newCodec().Marshal(&r)
	if err != nil {
		t.Fatal(err)
	}
	got := new(agentv1.ProduceResponse)
	if err := proto.Unmarshal(data.Materialize(), got); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) {
		t.Fatalf("%v became %v", want, got)
	}
	b, err := proto.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var back produceResponse
	if err := newCodec().Unmarshal(split(t, b), &back); err != nil {
		t.Fatal(err)
	}
	if back.draining != r.draining || !proto.Equal(back.welcome, r.welcome) || len(back.outcomes) != len(r.outcomes) {
		t.Fatalf("%v came back as %+v", want, back)
	}
	for i, o := range back.outcomes {
		if o.request != r.outcomes[i].request || o.index != r.outcomes[i].index || o.base != r.outcomes[i].base || !proto.Equal(o.err, r.outcomes[i].err) {
			t.Fatalf("outcome %+v came back as %+v", r.outcomes[i], o)
		}
	}
}

func fetchedIsTheSame(t *rapid.T) {
	var lent, sent int64
	a := &fetchAnswer{sent: func(n int64) { sent += n }}
	want := new(agentv1.FetchResponse)
	for range rapid.IntRange(0, 5).Draw(t, "partitions") {
		p := ports.FetchedPartition{
			LogStart: domain.Offset(rapid.Int64().Draw(t, "start")), HighWatermark: domain.Offset(rapid.Int64().Draw(t, "high")),
			Batches: rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "batches"),
		}
		if rapid.Bool().Draw(t, "fails") {
			p.Err = &domain.OutOfRangeError{Offset: 5, HighWatermark: 3}
		}
		lent += int64(len(p.Batches))
		message := &agentv1.FetchedPartition{
			LogStart: int64(p.LogStart), HighWatermark: int64(p.HighWatermark), Batches: p.Batches, Error: encodeError(p.Err),
		}
		for range rapid.IntRange(0, 3).Draw(t, "sources") {
			source := ports.Source{
				Segment:  domain.SegmentID{rapid.Byte().Draw(t, "segment")},
				Position: rapid.Int64().Draw(t, "position"), Length: rapid.Int64().Draw(t, "length"),
			}
			p.Sources = append(p.Sources, source)
			message.Sources = append(message.Sources, &agentv1.Source{SegmentId: encodeSegment(source.Segment), Position: source.Position, Length: source.Length})
		}
		a.partitions = append(a.partitions, p)
		want.Partitions = append(want.Partitions, message)
	}
	data, err := newCodec().Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	b := data.Materialize()
	data.Free()
	if sent != lent {
		t.Fatalf("%d bytes were lent, %d came back", lent, sent)
	}
	got := new(agentv1.FetchResponse)
	if err := proto.Unmarshal(b, got); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) {
		t.Fatalf("%v became %v", want, got)
	}
	var back fetched
	if err := newCodec().Unmarshal(split(t, b), &back); err != nil {
		t.Fatal(err)
	}
	if len(back.partitions) != len(a.partitions) {
		t.Fatalf("%d partitions came back, %d were sent", len(back.partitions), len(a.partitions))
	}
	for i, p := range back.partitions {
		w := a.partitions[i]
		if p.LogStart != w.LogStart || p.HighWatermark != w.HighWatermark || !bytes.Equal(p.Batches, w.Batches) || !slices.Equal(p.Sources, w.Sources) || fmt.Sprint(p.Err) != fmt.Sprint(w.Err) {
			t.Fatalf("%+v came back as %+v", w, p)
		}
	}
}

// FuzzWire gives arbitrary bytes to everything that is read by hand: it agrees
// with the generated code on what is no message, and on what the message says.
func FuzzWire(f *testing.F) {
	r := produceRequest{id: 1, timeoutMS: 2, cancels: []uint64{3}, batches: []ports.Batch{{Bytes: []byte("batch")}}}
	f.Add(newFrame(&r).buffer.ReadOnlyData())
	response := produceResponse{welcome: &agentv1.Welcome{Version: "v"}, outcomes: []outcome{{request: 1, base: -1, err: encodeError(domain.ErrFenced)}}, draining: true}
	b, err := response.append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0x22, 0x03, 1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		var ours produceRequest
		oursErr := ours.unmarshal(bytes.Clone(b))
		theirs := new(agentv1.ProduceRequest)
		theirsErr := proto.Unmarshal(b, theirs)
		if oursErr == nil && theirsErr == nil && !proto.Equal(withoutUnknown(theirs), toProto(&ours)) {
			t.Errorf("reads %v as %v", theirs, toProto(&ours))
		}
		if theirsErr == nil && oursErr != nil && !errors.Is(oursErr, errMalformed) {
			t.Errorf("a message is refused: %v", oursErr)
		}
		var out produceResponse
		if err := out.unmarshal(bytes.Clone(b)); err == nil {
			for _, o := range out.outcomes {
				_ = decodeError(o.err)
			}
		}
		_, _ = unmarshalFetched(bytes.Clone(b))
	})
}

// withoutUnknown returns r without unknown fields, and with the trace that its
// traceparent names: one that names none is no reason to refuse a request.
func withoutUnknown(r *agentv1.ProduceRequest) *agentv1.ProduceRequest {
	r = proto.Clone(r).(*agentv1.ProduceRequest)
	r.ProtoReflect().SetUnknown(nil)
	r.Traceparent = ports.ParseTraceparent([]byte(r.GetTraceparent())).String()
	for _, b := range r.GetBatches() {
		b.ProtoReflect().SetUnknown(nil)
	}
	return r
}
