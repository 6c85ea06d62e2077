package verify

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/domain/segment"
)

// judge compares a whole object with the row and the extents. The store says
// that its checksum is stored.
func (c *check) judge(object []byte, stored uint32) []finding {
	s, err := segment.Verify(object)
	if err != nil {
		return c.damaged(object, err)
	}
	if err := s.CheckIdentity(c.v.metadata.ClusterID(), c.row.id); err != nil {
		return []finding{c.whole(WrongIdentity, "%v", err)}
	}
	var findings []finding
	if sum := segment.CRC32C(object); sum != c.row.crc32c || stored != c.row.crc32c {
		findings = append(findings, c.whole(WrongChecksum, "the object has checksum %08x, the store says %08x, committed was %08x", sum, stored, c.row.crc32c))
	}
	end := int64(0)
	for i := range c.extents {
		e := &c.extents[i]
		if what := misfit(s, c.w.topics[e.topic], e, object); what != "" {
			findings = append(findings, c.one(WrongExtent, e, 0, "%s", what))
		} else if e.position < end {
			findings = append(findings, c.one(WrongExtent, e, 0, "its bytes at %d are those of the extent before it too", e.position))
		}
		if e.length > 0 && e.length <= math.MaxInt64-e.position {
			end = max(end, e.position+e.length)
		}
	}
	return append(findings, c.undecodable(s)...)
}

// damaged finds which extents the damage of an object concerns. It may be none.
func (c *check) damaged(object []byte, err error) []finding {
	var findings []finding
	for i := range c.extents {
		e := &c.extents[i]
		if !e.inside(int64(len(object))) {
			continue
		}
		if sum, err := sumBatches(object[e.position : e.position+e.length]); err != nil {
			findings = append(findings, c.one(CorruptObject, e, sum.records, "at position %d: %v", e.position+sum.bytes, err))
		}
	}
	if len(findings) == 0 {
		findings = append(findings, c.whole(CorruptObject, "%v, where no live record is", err))
	}
	return findings
}

// inside reports whether the extent can lie in an object of so many bytes.
func (e *extent) inside(size int64) bool {
	return e.position >= segment.HeaderSize && e.length > 0 && e.position <= size && e.length <= size-e.position
}

// misfit says why an extent is not what the segment has at its place, or "".
func misfit(s *segment.Segment, topic domain.TopicID, e *extent, object []byte) string {
	i, found := slices.BinarySearchFunc(s.Extents, e, func(x segment.Extent, e *extent) int {
		return cmp.Or(bytes.Compare(x.Topic[:], topic[:]), cmp.Compare(x.Partition, e.partition))
	})
	if !found && !mutant.On(mutantIndexUnchecked) {
		return "the segment has no batches of the partition"
	}
	in := segment.Extent{Position: segment.HeaderSize, Length: int64(len(object)) - segment.HeaderSize}
	if !mutant.On(mutantIndexUnchecked) {
		in = s.Extents[i]
	}
	if e.length <= 0 || e.position < in.Position || e.position > in.Position+in.Length || e.length > in.Position+in.Length-e.position {
		return fmt.Sprintf("%d bytes at %d, the partition has %d at %d of the segment", e.length, e.position, in.Length, in.Position)
	}
	sum, err := sumBatches(object[e.position : e.position+e.length])
	switch {
	case err != nil:
		return fmt.Sprintf("%d bytes at %d are not whole batches: %v", e.length, e.position, err)
	case sum.records != int64(e.last-e.base)+1 || sum.batches != int64(e.batches):
		return fmt.Sprintf("%d batches with %d records, the segment has %d with %d there", e.batches, e.last-e.base+1, sum.batches, sum.records)
	case sum.maxTimestamp != e.maxTimestamp:
		return fmt.Sprintf("its newest record is of %d, in the segment of %d", e.maxTimestamp, sum.maxTimestamp)
	}
	return ""
}

// sums is what whole batches have together.
type sums struct {
	batches, records, bytes int64
	maxTimestamp            int64
}

// sumBatches counts the batches that b consists of. With an error it returns the
// sums of those before the one that is not right.
func sumBatches(b []byte) (sums, error) {
	sum := sums{maxTimestamp: math.MinInt64}
	for len(b) > 0 {
		h, err := batch.ParseHeader(b)
		if err == nil {
			_, err = batch.Verify(b[:h.Length])
		}
		if err == nil {
			err = batch.VerifyStored(b[:h.Length])
		}
		if err != nil {
			return sum, err
		}
		sum.batches++
		sum.records += int64(h.Records)
		sum.bytes += int64(h.Length)
		sum.maxTimestamp = max(sum.maxTimestamp, h.MaxTimestamp)
		b = b[h.Length:]
	}
	return sum, nil
}

// undecodable finds the records that cannot be decoded, if they are to be: of
// each extent the first batch of them.
func (c *check) undecodable(s *segment.Segment) []finding {
	if c.v.decoder == nil {
		return nil
	}
	all := s.VerifyRecords(c.v.decoder)
	if all == nil {
		return nil
	}
	var findings []finding
	for i := range c.extents {
		if skip, err := c.undecodableIn(s, &c.extents[i]); err != nil {
			findings = append(findings, c.one(CorruptRecords, &c.extents[i], skip, "%v", err))
		}
	}
	if len(findings) == 0 {
		findings = append(findings, c.whole(CorruptRecords, "%v, where no live record is", all))
	}
	return findings
}

// undecodableIn returns why the first batch of e that cannot be decoded cannot,
// and how many records are before it.
func (c *check) undecodableIn(s *segment.Segment, e *extent) (skip int64, err error) {
	if !e.inside(s.Size()) {
		return 0, nil // which is found elsewhere
	}
	for b, err := range s.Batches(segment.Extent{Position: e.position, Length: e.length}) {
		if err != nil {
			return skip, nil // likewise
		}
		one := *s
		one.Extents = []segment.Extent{{Position: b.Position, Length: int64(b.Header.Length)}}
		if err := one.VerifyRecords(c.v.decoder); err != nil {
			return skip, err
		}
		skip += int64(b.Header.Records)
	}
	return skip, nil
}
