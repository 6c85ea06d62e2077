package batch

import (
	"fmt"

	"github.com/streamhouse/streamhouse/domain"
)

// Decoder reads batches. It is safe for concurrent use.
type Decoder struct {
	codecs [codecMask + 1]Codec
}

// NewDecoder returns a decoder of uncompressed batches and of those that the
// codecs are for.
func NewDecoder(codecs ...Codec) *Decoder {
	d := new(Decoder)
	for _, c := range codecs {
		d.codecs[c.ID()&codecMask] = c
	}
	return d
}

// Decode verifies b, which is exactly one batch, and returns its records. It
// decompresses into one new buffer, of at most domain.MaxBatchBytes.
//
// *domain.CorruptError: b is not a whole, right batch. domain.ErrCompression: the
// decoder has no codec for it.
func (d *Decoder) Decode(b []byte) (Records, error) {
	h, err := Verify(b)
	if err != nil {
		return Records{}, err
	}
	data := b[HeaderSize:]
	if h.Codec != None {
		if data, err = d.decompress(h, data); err != nil {
			return Records{}, err
		}
	}
	return Records{header: h, data: data}, nil
}

func (d *Decoder) decompress(h Header, body []byte) ([]byte, error) {
	codec := d.codecs[h.Codec]
	if codec == nil {
		return nil, fmt.Errorf("record batch is compressed with %s: %w: no such codec here", h.Codec, domain.ErrCompression)
	}
	data, err := codec.Decompress(nil, body, domain.MaxBatchBytes)
	if err != nil {
		return nil, err
	}
	if int64(h.Records)*minRecordSize > int64(len(data)) {
		return nil, corrupt("%d records cannot be in %d bytes", h.Records, len(data))
	}
	return data, nil
}

// Records walks over the records of one batch. It is a value: a copy goes on
// from where the original stands.
type Records struct {
	header Header
	data   []byte
	pos    int
	count  int32
	err    error
}

// Record is one record of a batch. Key, Value and headers share the batch's
// memory or that of the buffer it was decompressed into, neither of which is ever used
// again; so they may be kept.
type Record struct {
	Offset domain.Offset
	// Timestamp is in Unix milliseconds.
	Timestamp int64
	// Key and Value are nil if they were sent as nil.
	Key     []byte
	Value   []byte
	headers []byte
	count   int
}

// Header returns the batch's header.
func (rs *Records) Header() Header { return rs.header }

// Err returns why Next ended: nil after the last record, or a
// *domain.CorruptError. The records before it were whole.
func (rs *Records) Err() error { return rs.err }

// Next sets r to the next record and reports whether there was one.
func (rs *Records) Next(r *Record) bool {
	if rs.count == rs.header.Records || rs.err != nil {
		rs.finish()
		return false
	}
	size, i := varint(rs.data, rs.pos)
	if size < minRecordSize-1 || size > int64(len(rs.data)-i) {
		return rs.fail("its length is not right")
	}
	end := i + int(size)
	return rs.parse(r, rs.data[:end:end], i+1) // attributes: none are defined
}

// parse reads the record that goes from i to the end of b.
func (rs *Records) parse(r *Record, b []byte, i int) bool {
	timeDelta, i := varint(b, i)
	offsetDelta, i := varint(b, i)
	if offsetDelta != int64(rs.count) {
		return rs.fail("its offset delta is not right")
	}
	key, i, ok := field(b, i)
	if !ok {
		return rs.fail("its key is not right")
	}
	value, i, ok := field(b, i)
	if !ok {
		return rs.fail("its value is not right")
	}
	count, i := varint(b, i)
	if count != 0 || i != len(b) {
		if !checkHeaders(b, i, count) {
			return rs.fail("its headers are not right")
		}
		r.headers = b[i:]
	} else {
		r.headers = nil
	}
	r.Offset = rs.header.BaseOffset + domain.Offset(rs.count)
	r.Timestamp = rs.header.BaseTimestamp + timeDelta
	r.Key, r.Value, r.count = key, value, int(count)
	rs.pos = len(b)
	rs.count++
	return true
}

// finish checks, after the last record, that nothing follows.
func (rs *Records) finish() {
	if rs.err == nil && rs.pos != len(rs.data) {
		rs.err = corrupt("%d bytes follow the last record", len(rs.data)-rs.pos)
	}
}

func (rs *Records) fail(why string) bool {
	rs.err = corrupt("record %d of %d: %s", rs.count, rs.header.Records, why)
	return false
}

// HeaderCount returns how many headers the record has.
func (r *Record) HeaderCount() int { return r.count }

// AppendHeaders appends the record's headers to dst, in the order they were
// sent, and returns the extended slice. Their values share the batch's memory. Keys are
// strings of their own; but one that the record before, if dst ends in its headers,
// has in the same place is used again, so that a batch's usual keys are allocated once.
func (r *Record) AppendHeaders(dst []domain.Header) []domain.Header {
	before := len(dst) - r.count
	i := 0
	for j := range r.count {
		var raw []byte
		h := domain.Header{}
		raw, i, _ = field(r.headers, i)
		h.Value, i, _ = field(r.headers, i)
		if before >= 0 && dst[before+j].Key == string(raw) {
			h.Key = dst[before+j].Key
		} else {
			h.Key = string(raw)
		}
		dst = append(dst, h)
	}
	return dst
}

// field reads a length and that many bytes, nil if the length is -1, of b from i
// on. It returns where they end.
func field(b []byte, i int) (value []byte, next int, ok bool) {
	n, i := varint(b, i)
	if n < 0 {
		return nil, i, n == -1 && i <= len(b)
	}
	if n > int64(len(b)-i) {
		return nil, 0, false
	}
	end := i + int(n)
	return b[i:end:end], end, true
}

// checkHeaders reports whether b, from i on, is count headers and nothing else.
func checkHeaders(b []byte, i int, count int64) bool {
	if count < 0 || count > domain.MaxHeaders {
		return false
	}
	for range count {
		key, at, ok := field(b, i)
		if !ok || key == nil {
			return false
		}
		if _, i, ok = field(b, at); !ok {
			return false
		}
	}
	return i == len(b)
}
