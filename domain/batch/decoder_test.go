package batch_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
)

func TestDecode_RefusesRecordsThatCannotBeRight(t *testing.T) {
	one := []byte{12, 0, 0, 0, 1, 1, 0} // nil key, nil value, no headers
	headers := func(count ...byte) []byte {
		body := append([]byte{0, 0, 0, 1, 1}, count...)
		return append([]byte{byte(len(body)) << 1}, body...)
	}
	for name, c := range map[string]struct {
		records int32
		body    []byte
	}{
		"trailing byte":            {1, append(bytes.Clone(one), 0)},
		"trailing record":          {1, append(bytes.Clone(one), one...)},
		"second offset delta 0":    {2, append(bytes.Clone(one), one...)},
		"first offset delta 1":     {1, []byte{12, 0, 0, 2, 1, 1, 0}},
		"length negative":          {1, []byte{11, 0, 0, 0, 1, 1, 0}},
		"length too short":         {1, []byte{10, 0, 0, 0, 1, 1, 0}},
		"length beyond the end":    {1, []byte{14, 0, 0, 0, 1, 1, 0}},
		"length without end":       {1, bytes.Repeat([]byte{0x80}, 12)},
		"length of 2^62":           {1, []byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}},
		"length of 2^63-1":         {1, []byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0, 0}},
		"length of -2^63":          {1, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0, 0}},
		"length over 64 bits":      {1, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0}},
		"key beyond the end":       {1, []byte{12, 0, 0, 0, 8, 1, 0}},
		"key of 2^62":              {1, []byte{28, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 0}},
		"key of 2^63-1":            {1, []byte{30, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 1, 0}},
		"key length -2":            {1, []byte{12, 0, 0, 0, 3, 1, 0}},
		"value beyond the end":     {1, []byte{12, 0, 0, 0, 1, 8, 0}},
		"value length -2":          {1, []byte{12, 0, 0, 0, 1, 3, 0}},
		"ends after the key":       {1, []byte{14, 0, 0, 0, 4, 'k', 'e', 'y'}[:8]},
		"bytes after the record":   {1, []byte{14, 0, 0, 0, 1, 1, 0, 0}},
		"header count negative":    {1, headers(1)},
		"header count too high":    {1, headers(4, 2, 'k', 1)},
		"header count too low":     {1, headers(2, 2, 'k', 1, 2, 'l', 1)},
		"header key nil":           {1, headers(2, 1, 1)},
		"header key beyond":        {1, headers(2, 10, 'k', 1)},
		"header value beyond":      {1, headers(2, 2, 'k', 10)},
		"header value length -2":   {1, headers(2, 2, 'k', 3)},
		"header count of 2^63-1":   {1, headers(0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 2, 'k', 1)},
		"header value missing":     {1, headers(2, 2, 'k')},
		"timestamp without end":    {1, []byte{12, 0, 0x80, 0x80, 0x80, 0x80, 0x80}},
		"offset delta without end": {1, []byte{12, 0, 0, 0x80, 0x80, 0x80, 0x80}},
	} {
		got, err := read(raw(c.records, c.body), 0)
		if err == nil {
			t.Errorf("%s: accepted as %+v", name, got)
			continue
		}
		requireCorrupt(t, err)
	}
	if got, err := read(raw(1, one), 0); err != nil || len(got) != 1 {
		t.Fatalf("the record that the others are made of: %v, %v", got, err)
	}
}

func TestDecode_HoldsTheLimitOnHeaders(t *testing.T) {
	headers := make([]domain.Header, domain.MaxHeaders+1)
	if got, err := read(encode(t, []item{{headers: headers[1:]}}, nil, batch.NoProducer), 0); err != nil || len(got[0].headers) != domain.MaxHeaders {
		t.Fatal(err)
	}
	_, err := read(encode(t, []item{{headers: headers}}, nil, batch.NoProducer), 0)
	requireCorrupt(t, err)
}

func TestNext_GivesTheRecordsBeforeABadOneAndStaysEnded(t *testing.T) {
	body := []byte{12, 0, 0, 0, 1, 1, 0, 12, 0, 0, 2, 1, 1, 0, 12, 0, 0, 9, 1, 1, 0}
	records, err := batch.NewDecoder().Decode(raw(3, body))
	if err != nil {
		t.Fatal(err)
	}
	var r batch.Record
	n := 0
	for records.Next(&r) {
		n++
	}
	requireCorrupt(t, records.Err())
	if records.Header().Records != 3 {
		t.Fatalf("header is %+v", records.Header())
	}
	if n != 2 || records.Next(&r) || !strings.Contains(records.Err().Error(), "record 2 of 3") {
		t.Fatalf("%d records, then %v", n, records.Err())
	}
}

func TestDecode_RefusesBombsAndLies(t *testing.T) {
	bomb, err := flateCodec{batch.LZ4}.Compress(nil, make([]byte, domain.MaxBatchBytes+1))
	if err != nil {
		t.Fatal(err)
	}
	packed := func(records int32, body []byte) []byte {
		b := raw(records, body)
		b[22] = byte(batch.LZ4)
		return seal(b)
	}
	few, err := flateCodec{batch.LZ4}.Compress(nil, make([]byte, 20))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"bomb": packed(1, bomb), "fewer records than counted": packed(3, few), "no records": packed(1, nil)} {
		if _, err := read(b, 0, flateCodec{batch.LZ4}); err == nil {
			t.Errorf("%s: accepted", name)
		} else {
			requireCorrupt(t, err)
		}
	}
}

func TestDecode_SaysWhichCodecIsMissing(t *testing.T) {
	b := encode(t, samples, flateCodec{batch.Zstd}, batch.NoProducer)
	_, err := batch.NewDecoder(flateCodec{batch.Gzip}).Decode(b)
	if !errors.Is(err, domain.ErrCompression) || errors.Is(err, domain.ErrCorrupt) || !strings.Contains(err.Error(), "zstd") {
		t.Fatalf("error is %v", err)
	}
	if _, err := batch.NewDecoder(failingCodec{}).Decode(encode(t, samples, flateCodec{batch.LZ4}, batch.NoProducer)); !errors.Is(err, errBroken) {
		t.Fatalf("error is %v", err)
	}
}

func TestDecode_RefusesAWrongChecksum(t *testing.T) {
	b := golden(t, "samples")
	b[len(b)-1] ^= 1
	_, err := batch.NewDecoder().Decode(b)
	requireCorrupt(t, err)
}

func TestNext_SharesTheBatchsMemoryAndDoesNotAllocate(t *testing.T) {
	b := encode(t, samples, nil, batch.NoProducer)
	d := batch.NewDecoder()
	allocs := testing.AllocsPerRun(100, func() {
		records, err := d.Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		var r batch.Record
		for records.Next(&r) {
			if cap(r.Key) != len(r.Key) || cap(r.Value) != len(r.Value) {
				t.Fatal("appending to a record's bytes would write over those after them")
			}
		}
	})
	if allocs != 0 {
		t.Fatalf("%v allocations a batch", allocs)
	}
}

func TestAppendHeaders_AllocatesTheUsualKeysOnce(t *testing.T) {
	const n = 1000
	var items []item
	for range n {
		items = append(items, item{headers: []domain.Header{{Key: "trace-id", Value: []byte("abc")}, {Key: "span", Value: nil}}})
	}
	b := encode(t, items, nil, batch.NoProducer)
	arena := make([]domain.Header, 0, 2*n)
	allocs := testing.AllocsPerRun(10, func() {
		records, err := batch.NewDecoder().Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		arena = arena[:0]
		var r batch.Record
		for records.Next(&r) {
			if r.HeaderCount() != 2 {
				t.Fatal("header count is not right")
			}
			arena = r.AppendHeaders(arena)
		}
	})
	if allocs > 4 || len(arena) != 2*n || arena[2*n-1].Key != "span" || arena[2*n-2].Key != "trace-id" {
		t.Fatalf("%v allocations a batch, %d headers", allocs, len(arena))
	}
}
