package batch_test

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"testing"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
)

// item is a record before it is encoded.
type item struct {
	timestamp  int64
	key, value []byte
	headers    []domain.Header
}

// flateCodec is a codec that the tests of this package can have without an
// adapter. It claims the number of a format that clients know.
type flateCodec struct{ id batch.CodecID }

func (c flateCodec) ID() batch.CodecID { return c.id }

func (flateCodec) Compress(dst, src []byte) ([]byte, error) {
	out := bytes.NewBuffer(dst)
	w, err := flate.NewWriter(out, flate.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(src); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func (flateCodec) Decompress(dst, src []byte, limit int) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(src)), int64(limit)+1))
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, &domain.CorruptError{What: err.Error()}
	}
	if len(raw) > limit {
		return nil, &domain.CorruptError{What: "over the limit"}
	}
	return append(dst, raw...), nil
}

// failingCodec fails at everything.
type failingCodec struct{}

var errBroken = errors.New("broken codec")

func (failingCodec) ID() batch.CodecID { return batch.LZ4 }

func (failingCodec) Compress(_, _ []byte) ([]byte, error) { return nil, errBroken }

func (failingCodec) Decompress(_, _ []byte, _ int) ([]byte, error) { return nil, errBroken }

func build(items []item) *batch.Builder {
	b := new(batch.Builder)
	for _, it := range items {
		b.Append(it.timestamp, it.key, it.value, it.headers)
	}
	return b
}

func encode(tb testing.TB, items []item, codec batch.Codec, p batch.Producer) []byte {
	tb.Helper()
	out, err := build(items).Encode(nil, codec, p)
	if err != nil {
		tb.Fatalf("Encode: %v", err)
	}
	return out
}

// read decodes one batch into items, whose offsets must be dense from base on.
func read(b []byte, base domain.Offset, codecs ...batch.Codec) ([]item, error) {
	records, err := batch.NewDecoder(codecs...).Decode(b)
	if err != nil {
		return nil, err
	}
	var items []item
	var r batch.Record
	for records.Next(&r) {
		if want := base + domain.Offset(len(items)); r.Offset != want {
			return nil, errors.New("offsets are not dense")
		}
		items = append(items, item{r.Timestamp, r.Key, r.Value, r.AppendHeaders(nil)})
	}
	return items, records.Err()
}

func sameBytes(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

func sameItem(a, b item) bool {
	if a.timestamp != b.timestamp || !sameBytes(a.key, b.key) || !sameBytes(a.value, b.value) || len(a.headers) != len(b.headers) {
		return false
	}
	for i := range a.headers {
		if a.headers[i].Key != b.headers[i].Key || !sameBytes(a.headers[i].Value, b.headers[i].Value) {
			return false
		}
	}
	return true
}

func requireItems(tb testing.TB, got, want []item) {
	tb.Helper()
	if len(got) != len(want) {
		tb.Fatalf("%d records came back, %d were sent", len(got), len(want))
	}
	for i := range got {
		if !sameItem(got[i], want[i]) {
			tb.Fatalf("record %d came back as %+v, sent as %+v", i, got[i], want[i])
		}
	}
}

func requireCorrupt(tb testing.TB, err error) {
	tb.Helper()
	var c *domain.CorruptError
	if !errors.As(err, &c) || !errors.Is(err, domain.ErrCorrupt) {
		tb.Fatalf("error is %v, want a *domain.CorruptError", err)
	}
}

// samples covers what records can look like.
var samples = []item{
	{1_700_000_000_000, []byte("user123"), []byte("signed up"), nil},
	{1_700_000_000_005, nil, nil, nil},
	{1_700_000_000_004, []byte{}, []byte{}, []domain.Header{}},
	{1_699_999_999_000, []byte("older than the first"), []byte("negative delta"), nil},
	{1_700_000_100_000, nil, bytes.Repeat([]byte("long value "), 300), []domain.Header{
		{Key: "trace", Value: []byte("abc")}, {Key: "", Value: nil}, {Key: "empty", Value: []byte{}},
	}},
}

// seal sets length and checksum of a batch that was changed.
func seal(b []byte) []byte {
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// raw makes a batch whose checksum is right of a body that need not be.
func raw(records int32, body []byte) []byte {
	var b batch.Builder
	b.Append(1_700_000_000_000, nil, nil, nil)
	out, err := b.Encode(nil, nil, batch.NoProducer)
	if err != nil {
		panic(err)
	}
	binary.BigEndian.PutUint32(out[23:], uint32(records-1))
	binary.BigEndian.PutUint32(out[57:], uint32(records))
	return seal(append(out[:batch.HeaderSize], body...))
}
