package segment

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"iter"
	"math"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
)

// Segment is a whole object whose header, footer and index are right.
type Segment struct {
	Cluster domain.ClusterID
	ID      domain.SegmentID
	// Extents are sorted by topic id and partition and cover every byte between
	// header and footer.
	Extents []Extent
	object  []byte
}

// Open reads the index of an object and checks header, footer, their checksum
// and that the extents fit together. It does not look into the batches: see Verify.
// The segment shares the memory of object. Every error is a *domain.CorruptError.
func Open(object []byte) (*Segment, error) {
	s, err := openHeader(object)
	if err != nil {
		return nil, err
	}
	footer, err := s.footer()
	if err != nil {
		return nil, err
	}
	if err := s.readIndex(footer); err != nil {
		return nil, err
	}
	return s, nil
}

// Verify is Open and a walk over every batch: its checksum, the fields that the
// checksum leaves out, and the index against what is there. Any change of a single bit
// of an object, and any truncation, is an error. Every error is a *domain.CorruptError.
func Verify(object []byte) (*Segment, error) {
	s, err := Open(object)
	if err != nil {
		return nil, err
	}
	for _, e := range s.Extents {
		if err := s.verifyExtent(e); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// CheckIdentity reports, as a *domain.CorruptError, an object that is whole but
// not the expected one.
func (s *Segment) CheckIdentity(cluster domain.ClusterID, id domain.SegmentID) error {
	if s.ID != id {
		return corrupt(id, "the object calls itself segment %s", s.ID)
	}
	if s.Cluster != cluster {
		return corrupt(id, "the object belongs to cluster %s, not to %s", s.Cluster, cluster)
	}
	return nil
}

// Size returns the length of the object in bytes.
func (s *Segment) Size() int64 { return int64(len(s.object)) }

// Batch is one batch in a segment.
type Batch struct {
	// Position is where it begins in the segment, in bytes.
	Position int64
	Header   batch.Header
	// Bytes are the whole batch. They are part of the object.
	Bytes []byte
}

// Batches walks over the batches of one extent of s. It checks their headers and
// that they end where the extent does, but not their checksums. It ends after the first
// error, which is a *domain.CorruptError.
func (s *Segment) Batches(e Extent) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		end := e.Position + e.Length
		for position := e.Position; position < end; {
			b := s.object[position:end]
			h, err := batch.ParseHeader(b)
			if err != nil {
				yield(Batch{}, in(s.ID, at(position), err))
				return
			}
			if !yield(Batch{Position: position, Header: h, Bytes: b[:h.Length:h.Length]}, nil) {
				return
			}
			position += int64(h.Length)
		}
	}
}

func at(position int64) string { return fmt.Sprintf("at position %d: ", position) }

// VerifyRecords decodes every record of s, beyond what Verify checks: that they
// decompress, and that counts, offsets and timestamps are what the headers say. Every error
// is a *domain.CorruptError, or domain.ErrCompression if d lacks the codec.
func (s *Segment) VerifyRecords(d *batch.Decoder) error {
	for _, e := range s.Extents {
		for b, err := range s.Batches(e) {
			if err != nil {
				return err
			}
			if err := verifyRecords(d, b); err != nil {
				return in(s.ID, at(b.Position), err)
			}
		}
	}
	return nil
}

func verifyRecords(d *batch.Decoder, b Batch) error {
	records, err := d.Decode(b.Bytes)
	if err != nil {
		return err
	}
	var r batch.Record
	newest := int64(math.MinInt64)
	for records.Next(&r) {
		newest = max(newest, r.Timestamp)
	}
	if err := records.Err(); err != nil {
		return err
	}
	if newest != b.Header.MaxTimestamp {
		return &domain.CorruptError{What: fmt.Sprintf("max timestamp %d, the newest record has %d", b.Header.MaxTimestamp, newest)}
	}
	return nil
}

// verifyExtent checks the batches of e and counts them anew.
func (s *Segment) verifyExtent(e Extent) error {
	found := Extent{Topic: e.Topic, Partition: e.Partition, Position: e.Position}
	for b, err := range s.Batches(e) {
		if err != nil {
			return err
		}
		if _, err = batch.Verify(b.Bytes); err == nil {
			err = batch.VerifyStored(b.Bytes)
		}
		if err != nil {
			return in(s.ID, at(b.Position), err)
		}
		found.add(b.Header)
	}
	if found != e {
		return corrupt(s.ID, "index entry of topic %s partition %d is %+v, its batches give %+v", e.Topic, e.Partition, e, found)
	}
	return nil
}

// ParseHeader reads whose segment an object is from its first HeaderSize bytes.
// They have no checksum of their own: Open tells whether the rest agrees. Every error is a
// *domain.CorruptError.
func ParseHeader(b []byte) (cluster domain.ClusterID, id domain.SegmentID, err error) {
	if len(b) < HeaderSize || string(b[:len(headerMagic)]) != headerMagic {
		return cluster, id, corrupt(id, "not a segment: %d bytes without its header", len(b))
	}
	copy(cluster[:], b[atCluster:])
	copy(id[:], b[atSegment:])
	if v := binary.BigEndian.Uint32(b[atVersion:]); v != Version {
		return cluster, id, corrupt(id, "format version %d, this program reads version %d only: a newer program may have written it", v, Version)
	}
	return cluster, id, nil
}

// openHeader checks size, header and trailer magic.
func openHeader(object []byte) (*Segment, error) {
	cluster, id, err := ParseHeader(object)
	if err != nil {
		return nil, err
	}
	s := &Segment{object: object, Cluster: cluster, ID: id}
	if len(object) < int(Size(0, 0)) {
		return nil, corrupt(s.ID, "truncated: %d bytes, the shortest segment has %d", len(object), Size(0, 0))
	}
	if string(s.trailer()[atTrailerMagic:]) != trailerMagic {
		return nil, corrupt(s.ID, "truncated or overwritten: it does not end in a trailer")
	}
	return s, nil
}

func (s *Segment) trailer() []byte { return s.object[len(s.object)-TrailerSize:] }

// footer locates the footer and checks its checksum.
func (s *Segment) footer() ([]byte, error) {
	trailer := s.trailer()
	position := binary.BigEndian.Uint64(trailer[atFooterPosition:])
	length := uint64(binary.BigEndian.Uint32(trailer[atFooterLength:]))
	end := uint64(len(s.object) - TrailerSize)
	if position < HeaderSize || position > end || end-position != length {
		return nil, corrupt(s.ID, "footer of %d bytes at position %d does not fit into %d bytes", length, position, len(s.object))
	}
	sum := CRC32C(s.object[:HeaderSize])
	sum = crc32.Update(sum, castagnoli, s.object[position:end+atCRC])
	if stored := binary.BigEndian.Uint32(trailer[atCRC:]); stored != sum {
		return nil, corrupt(s.ID, "checksum of header and footer is %08x, their bytes have %08x", stored, sum)
	}
	return s.object[position:end], nil
}

// readIndex reads the extents and checks that they are sorted and cover all
// bytes between header and footer.
func (s *Segment) readIndex(footer []byte) error {
	if len(footer) < countSize {
		return corrupt(s.ID, "footer of %d bytes", len(footer))
	}
	count, entries := binary.BigEndian.Uint32(footer), footer[countSize:]
	if uint64(count)*extentSize != uint64(len(entries)) {
		return corrupt(s.ID, "footer counts %d extents, but has %d bytes for them", count, len(entries))
	}
	next, end := int64(HeaderSize), int64(len(s.object)-TrailerSize-len(footer))
	s.Extents = make([]Extent, count)
	for i := range s.Extents {
		e := parseExtent(entries[i*extentSize:])
		if i > 0 && !s.Extents[i-1].before(e.Topic, e.Partition) {
			return corrupt(s.ID, "extent %d is not sorted after the one before it", i)
		}
		if err := s.checkExtent(i, e, next, end); err != nil {
			return err
		}
		s.Extents[i] = e
		next += e.Length
	}
	if next != end {
		return corrupt(s.ID, "bytes %d to %d belong to no extent", next, end)
	}
	return nil
}

// checkExtent checks that e begins at next, ends not after end, and can hold
// what it counts.
func (s *Segment) checkExtent(i int, e Extent, next, end int64) error {
	if e.Position != next || e.Length <= 0 || e.Length > end-next {
		return corrupt(s.ID, "extent %d is %d bytes at position %d, outside of %d to %d", i, e.Length, e.Position, next, end)
	}
	if e.Partition < 0 || e.Batches < 1 || int64(e.Batches)*batch.HeaderSize > e.Length || e.Records < int64(e.Batches) || e.MaxTimestamp < e.MinTimestamp {
		return corrupt(s.ID, "extent %d cannot be right: %+v", i, e)
	}
	return nil
}
