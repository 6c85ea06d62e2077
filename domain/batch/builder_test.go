package batch_test

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
)

func TestAppend_NeverAddsMoreThanRecordBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b batch.Builder
		for _, it := range rapid.SliceOfN(genItem, 1, 12).Draw(t, "items") {
			before := b.Len()
			near := it.timestamp
			if b.Count() > 0 {
				near = b.BaseTimestamp() + int64(int32(it.timestamp))
			}
			b.Append(near, it.key, it.value, it.headers)
			if added, bound := b.Len()-before, batch.RecordBound(it.key, it.value, it.headers); added > bound {
				t.Fatalf("%d bytes were added, the bound is %d", added, bound)
			}
		}
	})
}

func TestAppend_DoesNotKeepWhatItIsGiven(t *testing.T) {
	key, value := []byte("key"), []byte("value")
	headers := []domain.Header{{Key: "h", Value: []byte("header")}}
	var b batch.Builder
	b.Append(1, key, value, headers)
	clear(key)
	clear(value)
	clear(headers[0].Value)
	out, err := b.Encode(nil, nil, batch.NoProducer)
	if err != nil {
		t.Fatal(err)
	}
	got, err := read(out, 0)
	if err != nil {
		t.Fatal(err)
	}
	requireItems(t, got, []item{{1, []byte("key"), []byte("value"), []domain.Header{{Key: "h", Value: []byte("header")}}}})
}

func TestAppend_DoesNotAllocateWhileThereIsRoom(t *testing.T) {
	var b batch.Builder
	b.Reset(make([]byte, 0, 64<<10))
	value := make([]byte, 100)
	headers := []domain.Header{{Key: "trace", Value: value[:10]}}
	allocs := testing.AllocsPerRun(100, func() { b.Append(5, value[:8], value, headers) })
	if allocs != 0 || b.Count() != 101 {
		t.Fatalf("%v allocations a record", allocs)
	}
}

func TestBuilder_SaysWhatItHolds(t *testing.T) {
	var b batch.Builder
	if b.Len() != batch.HeaderSize || b.Count() != 0 || b.Cap() != 0 {
		t.Fatalf("an empty builder has length %d, count %d", b.Len(), b.Count())
	}
	for _, it := range samples {
		b.Append(it.timestamp, it.key, it.value, it.headers)
	}
	if b.Count() != 5 || b.BaseTimestamp() != samples[0].timestamp || b.MaxTimestamp() != samples[4].timestamp {
		t.Fatalf("count %d, timestamps %d to %d", b.Count(), b.BaseTimestamp(), b.MaxTimestamp())
	}
	out, err := b.Encode(nil, nil, batch.NoProducer)
	if err != nil || b.Len() != len(out) {
		t.Fatalf("Len gives %d, the batch has %d, %v", b.Len(), len(out), err)
	}
}

func TestReset_StartsInTheBufferThatIsGiven(t *testing.T) {
	buf := make([]byte, 0, 1000)
	var b batch.Builder
	b.Append(9, nil, []byte("from before"), nil)
	b.Reset(buf)
	if b.Count() != 0 || b.Cap() != 1000 {
		t.Fatalf("after Reset count is %d, cap %d", b.Count(), b.Cap())
	}
	b.Append(1, []byte("k"), []byte("v"), nil)
	if got := b.Buffer(); &got[0] != &buf[:1][0] {
		t.Fatal("the records are not in the buffer that was given")
	}
	out, err := b.Encode(nil, nil, batch.NoProducer)
	if err != nil {
		t.Fatal(err)
	}
	got, err := read(out, 0)
	if err != nil {
		t.Fatal(err)
	}
	requireItems(t, got, []item{{1, []byte("k"), []byte("v"), nil}})
}

func TestGather_GoesOnInTheNewBuffer(t *testing.T) {
	small, large := make([]byte, 0, 100), make([]byte, 0, 10_000)
	var b batch.Builder
	b.Reset(small)
	b.Append(samples[0].timestamp, samples[0].key, samples[0].value, samples[0].headers)
	var back [][]byte
	b.Gather(large, func(buf []byte) { back = append(back, buf) })
	if len(back) != 1 || &back[0][:1][0] != &small[:1][0] {
		t.Fatal("Gather does not give the former buffer back")
	}
	clear(small[:cap(small)])
	for _, it := range samples[1:] {
		b.Append(it.timestamp, it.key, it.value, it.headers)
	}
	if b.Cap() != 10_000 || &b.Buffer()[0] != &large[:1][0] {
		t.Fatal("the records are not in the new buffer")
	}
	out, err := b.Encode(nil, nil, batch.NoProducer)
	if err != nil {
		t.Fatal(err)
	}
	got, err := read(out, 0)
	if err != nil {
		t.Fatal(err)
	}
	requireItems(t, got, samples)
}

func TestGather_OfAnEmptyBuilder(t *testing.T) {
	var b batch.Builder
	b.Gather(make([]byte, 0, 500), func([]byte) {})
	b.Append(1, nil, nil, nil)
	if b.Cap() != 500 || b.Count() != 1 {
		t.Fatalf("cap %d, count %d", b.Cap(), b.Count())
	}
}

func TestEncode_AppendsAndRepeatsByteForByte(t *testing.T) {
	b := build(samples)
	for _, codec := range []batch.Codec{nil, flateCodec{batch.LZ4}} {
		once, err := b.Encode([]byte("before"), codec, somebody)
		if err != nil || !bytes.HasPrefix(once, []byte("before")) {
			t.Fatalf("%q, %v", once, err)
		}
		again, err := b.Encode(nil, codec, somebody)
		if err != nil || !bytes.Equal(again, once[len("before"):]) {
			t.Fatalf("a second Encode gives other bytes, %v", err)
		}
	}
}

func TestEncode_LeavesRecordsThatDoNotShrinkAsTheyAre(t *testing.T) {
	b := build([]item{{timestamp: 1, value: []byte("x")}})
	plain, err := b.Encode(nil, nil, somebody)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := b.Encode(nil, flateCodec{batch.LZ4}, somebody); err != nil || !bytes.Equal(out, plain) {
		t.Fatalf("got %x, %v", out, err)
	}
}

func TestEncode_RefusesWhatNobodyCouldRead(t *testing.T) {
	dst := []byte("kept")
	var empty batch.Builder
	huge := build([]item{{value: make([]byte, domain.MaxBatchBytes)}})
	for name, c := range map[string]struct {
		builder *batch.Builder
		codec   batch.Codec
		want    error
	}{
		"no records":   {&empty, nil, domain.ErrSerialization},
		"too long":     {huge, nil, domain.ErrSerialization},
		"broken codec": {build(samples), failingCodec{}, domain.ErrCompression},
	} {
		out, err := c.builder.Encode(dst, c.codec, batch.NoProducer)
		if !errors.Is(err, c.want) || string(out) != "kept" {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
}

func TestEncode_OfTheLongestBatchIsRead(t *testing.T) {
	value := make([]byte, domain.MaxBatchBytes-13)
	for _, codec := range []batch.Codec{nil, flateCodec{batch.Zstd}} {
		b := build([]item{{value: value}})
		if b.Len() != batch.HeaderSize+domain.MaxBatchBytes {
			t.Fatalf("the batch has %d bytes", b.Len())
		}
		out, err := b.Encode(nil, codec, batch.NoProducer)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := read(out, 0, flateCodec{batch.Zstd}); err != nil || len(got) != 1 || len(got[0].value) != len(value) {
			t.Fatalf("%d records, %v", len(got), err)
		}
	}
}
