package batch_test

import (
	"bytes"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
)

// FuzzDecode decodes anything. What is accepted must be read alike by franz-go.
func FuzzDecode(f *testing.F) {
	for name := range goldens(f) {
		f.Add(golden(f, name), false)
		f.Add(golden(f, name), true)
	}
	f.Add(encode(f, samples, flateCodec{batch.LZ4}, somebody), false)
	f.Add(raw(1, []byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0, 0}), false) // a length of 2^63-1
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		if sealed && len(b) >= batch.HeaderSize {
			b = seal(bytes.Clone(b))
		}
		items, err := read(b, base(b), flateCodec{batch.LZ4})
		if err != nil {
			requireCorruptOrMissing(t, err)
			return
		}
		if h, err := batch.Verify(b); err != nil || int(h.Records) != len(items) {
			t.Fatalf("decoded %d records of %+v, %v", len(items), h, err)
		}
		if b[22] == byte(batch.None) {
			requireSameAsKafka(t, b, items)
		}
	})
}

// base returns the base offset of a batch that may not be one.
func base(b []byte) domain.Offset {
	h, err := batch.ParseHeader(b)
	if err != nil {
		return 0
	}
	return h.BaseOffset
}

func requireCorruptOrMissing(t *testing.T, err error) {
	t.Helper()
	if domain.FateOf(err).Stored != domain.StoredNo {
		t.Fatalf("error %v does not say that the bytes are of no use", err)
	}
}

func requireSameAsKafka(t *testing.T, b []byte, items []item) {
	t.Helper()
	kb, records := kafkaRecords(t, b)
	if len(records) != len(items) {
		t.Fatalf("%d records, franz-go reads %d", len(items), len(records))
	}
	for i := range records {
		r := &records[i]
		want := item{timestamp: kb.FirstTimestamp + r.TimestampDelta64, key: r.Key, value: r.Value, headers: headersOf(r)}
		if !sameItem(items[i], want) {
			t.Fatalf("record %d is %+v, franz-go reads %+v", i, items[i], want)
		}
	}
}

func headersOf(r *kmsg.Record) (headers []domain.Header) {
	for _, h := range r.Headers {
		headers = append(headers, domain.Header{Key: h.Key, Value: h.Value})
	}
	return headers
}

// FuzzRecord encodes any record and reads it back.
func FuzzRecord(f *testing.F) {
	f.Add(int64(0), int64(1), []byte("key"), []byte("value"), "header", []byte("header value"), uint8(0))
	f.Add(int64(1<<62), int64(-1<<62), []byte{}, []byte{}, "", []byte{}, uint8(255))
	f.Fuzz(func(t *testing.T, first, second int64, key, value []byte, name string, header []byte, nils uint8) {
		if nils&1 != 0 {
			key = nil
		}
		if nils&2 != 0 {
			value = nil
		}
		if nils&4 != 0 {
			header = nil
		}
		items := []item{{first, key, value, nil}, {second, value, key, []domain.Header{{Key: name, Value: header}}}}
		got, err := read(encode(t, items, nil, batch.NoProducer), 0)
		if err != nil {
			t.Fatal(err)
		}
		requireItems(t, got, items)
	})
}
