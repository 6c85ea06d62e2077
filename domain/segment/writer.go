package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/mutant"
)

// Writer builds one segment in one buffer. It copies each batch once and sums
// each byte once.
type Writer struct {
	id      domain.SegmentID
	buf     []byte
	start   int
	extents []Extent
	// headerCRC is the checksum of the header alone, crc that of all bytes so
	// far.
	headerCRC uint32
	crc       uint32
	closed    bool
}

// NewWriter begins the segment id of a cluster. It appends to dst, which it owns
// until Close, and which grows like append does if it is too small; see Size.
func NewWriter(dst []byte, cluster domain.ClusterID, id domain.SegmentID) *Writer {
	w := &Writer{id: id, start: len(dst)}
	dst = append(dst, headerMagic...)
	dst = binary.BigEndian.AppendUint32(dst, Version)
	dst = append(dst, cluster[:]...)
	w.buf = append(dst, id[:]...)
	w.headerCRC = CRC32C(w.buf[w.start:])
	w.crc = w.headerCRC
	return w
}

// Len returns how many bytes the segment has so far, without its footer.
func (w *Writer) Len() int64 { return int64(len(w.buf) - w.start) }

// Extents returns the index so far: one entry for each partition. It changes
// with the next Add.
func (w *Writer) Extents() []Extent { return w.extents }

// Add appends one batch, as Encode made it, and returns where it begins in the
// segment. Batches come sorted by topic id and partition; those of one partition in
// the order they are to be committed. The checksum of the batch is not computed: whoever took
// it in has done so.
//
// *domain.CorruptError: it is not exactly one batch as segments store them.
// domain.ErrInternal: the partition is negative or out of order, or the segment is closed. Nothing was added.
func (w *Writer) Add(topic domain.TopicID, partition domain.PartitionID, b []byte) (position int64, err error) {
	if w.closed {
		return 0, fmt.Errorf("segment %s is closed: %w", w.id, domain.ErrInternal)
	}
	h, err := checkBatch(w.id, b)
	if err != nil {
		return 0, err
	}
	e, err := w.extent(topic, partition)
	if err != nil {
		return 0, err
	}
	position = w.Len()
	w.buf = append(w.buf, b...)
	w.crc = crc32.Update(w.crc, castagnoli, w.buf[len(w.buf)-len(b):])
	e.add(h)
	if mutant.On(mutantPosition) {
		return e.Position, nil
	}
	return position, nil
}

// extent returns the entry that a batch of the partition belongs to: the last
// one, or a new one after it.
func (w *Writer) extent(topic domain.TopicID, partition domain.PartitionID) (*Extent, error) {
	if n := len(w.extents); n > 0 {
		last := &w.extents[n-1]
		if last.Topic == topic && last.Partition == partition {
			return last, nil
		}
		if !last.before(topic, partition) {
			return nil, fmt.Errorf("segment %s: topic %s partition %d comes after topic %s partition %d: %w",
				w.id, topic, partition, last.Topic, last.Partition, domain.ErrInternal)
		}
	}
	if partition < 0 {
		return nil, fmt.Errorf("segment %s: topic %s partition %d: %w", w.id, topic, partition, domain.ErrInternal)
	}
	w.extents = append(w.extents, Extent{Topic: topic, Partition: partition, Position: w.Len()})
	return &w.extents[len(w.extents)-1], nil
}

// Close appends footer and trailer. It returns the object, which is the
// caller's from then on, and its checksum. domain.ErrInternal: it was closed before.
func (w *Writer) Close() (object []byte, crc32c uint32, err error) {
	if w.closed {
		return nil, 0, fmt.Errorf("segment %s is closed: %w", w.id, domain.ErrInternal)
	}
	w.closed = true
	be := binary.BigEndian
	position := len(w.buf)
	w.buf = be.AppendUint32(w.buf, uint32(len(w.extents)))
	for i := range w.extents {
		w.buf = appendExtent(w.buf, &w.extents[i])
	}
	length := len(w.buf) - position
	w.buf = be.AppendUint64(w.buf, uint64(position-w.start))
	w.buf = be.AppendUint32(w.buf, uint32(length))
	w.buf = be.AppendUint32(w.buf, crc32.Update(w.headerCRC, castagnoli, w.buf[position:]))
	w.buf = append(w.buf, trailerMagic...)
	if !mutant.On(mutantObjectCRC) {
		w.crc = crc32.Update(w.crc, castagnoli, w.buf[position:])
	}
	object = w.buf[w.start:]
	w.buf = nil
	return object, w.crc, nil
}

// checkBatch checks that b is exactly one batch as segments store it, all but
// its checksum.
func checkBatch(id domain.SegmentID, b []byte) (batch.Header, error) {
	h, err := batch.ParseOne(b)
	if err == nil {
		err = batch.VerifyStored(b)
	}
	if err != nil {
		return h, in(id, "", err)
	}
	return h, nil
}

// corrupt returns a *domain.CorruptError about the segment id.
func corrupt(id domain.SegmentID, format string, args ...any) error {
	return &domain.CorruptError{Segment: id, What: fmt.Sprintf(format, args...)}
}

// in puts the name of the segment, and where in it, to an error about a batch.
func in(id domain.SegmentID, where string, err error) error {
	var c *domain.CorruptError
	if errors.As(err, &c) {
		return &domain.CorruptError{Segment: id, What: where + c.What}
	}
	return err
}
