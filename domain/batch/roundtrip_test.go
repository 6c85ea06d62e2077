package batch_test

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
)

var somebody = batch.Producer{ID: 7, Epoch: 3, Sequence: 1 << 30}

func TestEncode_ComesBackAsItWasSent(t *testing.T) {
	for _, codec := range []batch.Codec{nil, flateCodec{batch.Gzip}, flateCodec{batch.LZ4}} {
		b := encode(t, samples, codec, somebody)
		batch.SetBaseOffset(b, 42)
		got, err := read(b, 42, flateCodec{batch.Gzip}, flateCodec{batch.LZ4})
		if err != nil {
			t.Fatal(err)
		}
		requireItems(t, got, samples)
	}
}

func genBytes(label string) *rapid.Generator[[]byte] {
	return rapid.OneOf(
		rapid.Just([]byte(nil)),
		rapid.Just([]byte{}),
		rapid.SliceOfN(rapid.Byte(), 1, 80),
		rapid.Custom(func(t *rapid.T) []byte { return make([]byte, rapid.IntRange(8000, 8300).Draw(t, label)) }),
	)
}

var genItem = rapid.Custom(func(t *rapid.T) item {
	it := item{
		timestamp: rapid.OneOf(rapid.Int64Range(1e12, 1e12+1000), rapid.Int64()).Draw(t, "timestamp"),
		key:       genBytes("key size").Draw(t, "key"),
		value:     genBytes("value size").Draw(t, "value"),
	}
	for range rapid.IntRange(0, 3).Draw(t, "headers") {
		it.headers = append(it.headers, domain.Header{
			Key:   rapid.String().Draw(t, "header key"),
			Value: genBytes("header size").Draw(t, "header value"),
		})
	}
	return it
})

func TestEncode_AnyRecordsComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		items := rapid.SliceOfN(genItem, 1, 12).Draw(t, "items")
		b := build(items)
		codec := rapid.SampledFrom([]batch.Codec{nil, flateCodec{batch.Zstd}}).Draw(t, "codec")
		raw, err := b.Encode(nil, codec, batch.NoProducer)
		if err != nil {
			t.Fatal(err)
		}
		got, err := read(raw, 0, flateCodec{batch.Zstd})
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(items) {
			t.Fatalf("%d records came back, %d were sent", len(got), len(items))
		}
		largest := int64(math.MinInt64)
		for i := range items {
			largest = max(largest, items[i].timestamp)
			if !sameItem(got[i], items[i]) {
				t.Fatalf("record %d came back as %+v, sent as %+v", i, got[i], items[i])
			}
		}
		h, err := batch.Verify(raw)
		if err != nil || h.MaxTimestamp != largest || h.BaseTimestamp != items[0].timestamp {
			t.Fatalf("header %+v, %v: want max timestamp %d", h, err, largest)
		}
	})
}

// kafkaRecords reads a batch as another implementation of the format does.
func kafkaRecords(tb testing.TB, raw []byte) (kmsg.RecordBatch, []kmsg.Record) {
	tb.Helper()
	var kb kmsg.RecordBatch
	if err := kb.ReadFrom(raw); err != nil {
		tb.Fatal(err)
	}
	var records []kmsg.Record
	for rest := kb.Records; len(rest) > 0; {
		body, n := binary.Varint(rest)
		size := n + int(body)
		var r kmsg.Record
		if err := r.ReadFrom(rest[:size]); err != nil {
			tb.Fatal(err)
		}
		records = append(records, r)
		rest = rest[size:]
	}
	return kb, records
}

func TestEncode_IsReadByFranzGo(t *testing.T) {
	raw := encode(t, samples, nil, somebody)
	kb, records := kafkaRecords(t, raw)
	if kb.Magic != 2 || kb.NumRecords != 5 || kb.LastOffsetDelta != 4 || kb.ProducerID != 7 || kb.ProducerEpoch != 3 ||
		kb.FirstSequence != 1<<30 || kb.FirstTimestamp != 1_700_000_000_000 || kb.MaxTimestamp != 1_700_000_100_000 ||
		kb.PartitionLeaderEpoch != -1 || int(kb.Length) != len(raw)-12 {
		t.Fatalf("header is %+v", kb)
	}
	var got []item
	for i := range records {
		r := &records[i]
		if int(r.OffsetDelta) != i {
			t.Fatalf("record %d has offset delta %d", i, r.OffsetDelta)
		}
		it := item{timestamp: kb.FirstTimestamp + r.TimestampDelta64, key: r.Key, value: r.Value}
		for _, h := range r.Headers {
			it.headers = append(it.headers, domain.Header{Key: h.Key, Value: h.Value})
		}
		got = append(got, it)
	}
	requireItems(t, got, samples)
	if again := kb.AppendTo(nil); string(again) != string(raw) {
		t.Fatal("franz-go writes other bytes for the same batch")
	}
}

// kafkaBatch makes a batch as another implementation of the format does.
func kafkaBatch(items []item, p batch.Producer) []byte {
	kb := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: int32(len(items) - 1), NumRecords: int32(len(items)),
		FirstTimestamp: items[0].timestamp, MaxTimestamp: items[0].timestamp,
		ProducerID: int64(p.ID), ProducerEpoch: int16(p.Epoch), FirstSequence: int32(p.Sequence),
	}
	for i, it := range items {
		kb.MaxTimestamp = max(kb.MaxTimestamp, it.timestamp)
		r := kmsg.Record{TimestampDelta64: it.timestamp - kb.FirstTimestamp, OffsetDelta: int32(i), Key: it.key, Value: it.value}
		for _, h := range it.headers {
			r.Headers = append(r.Headers, kmsg.Header{Key: h.Key, Value: h.Value})
		}
		r.Length = int32(len(r.AppendTo(nil)) - 1) // less the length itself, which is one byte of 0 here
		kb.Records = r.AppendTo(kb.Records)
	}
	return seal(kb.AppendTo(nil))
}

func TestBuilder_WritesWhatFranzGoWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		items := rapid.SliceOfN(genItem, 1, 8).Draw(t, "items")
		p := rapid.SampledFrom([]batch.Producer{batch.NoProducer, somebody, {}}).Draw(t, "producer")
		want := kafkaBatch(items, p)
		ours, err := build(items).Encode(nil, nil, p)
		if err != nil || string(ours) != string(want) {
			t.Fatalf("ours is\n%x (%v), franz-go's is\n%x", ours, err, want)
		}
		got, err := read(want, 0)
		if err != nil {
			t.Fatal(err)
		}
		for i := range items {
			if !sameItem(got[i], items[i]) {
				t.Fatalf("record %d of franz-go's batch is read as %+v, want %+v", i, got[i], items[i])
			}
		}
	})
}
