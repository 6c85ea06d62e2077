package segment_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/segment"
)

func FuzzVerify(f *testing.F) {
	for name := range goldens(f) {
		object, err := os.ReadFile(filepath.Join("testdata", name+".segment"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(object, true)
		f.Add(object[:len(object)/2], false)
	}
	f.Fuzz(func(t *testing.T, object []byte, sealed bool) {
		if sealed && len(object) >= segment.HeaderSize+segment.TrailerSize {
			object = reseal(slices.Clone(object))
		}
		s, err := segment.Verify(object)
		if err != nil {
			requireCorrupt(t, err)
			return
		}
		w := segment.NewWriter(nil, s.Cluster, s.ID)
		for _, e := range s.Extents {
			for b, err := range s.Batches(e) {
				if err != nil {
					t.Fatal(err)
				}
				if _, err := w.Add(e.Topic, e.Partition, b.Bytes); err != nil {
					t.Fatal(err)
				}
			}
		}
		again, _, err := w.Close()
		if err != nil || !bytes.Equal(again, object) {
			t.Fatal("a segment that is right is not written again as it was")
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	one := newBatch(b, epoch, 2000, batch.NoProducer)
	const count = 128
	dst := make([]byte, 0, segment.Size(int64(count*len(one)), count))
	b.SetBytes(int64(count * len(one)))
	b.ReportAllocs()
	for b.Loop() {
		w := segment.NewWriter(dst, cluster, id)
		for i := range count {
			if _, err := w.Add(topicA, domain.PartitionID(i), one); err != nil {
				b.Fatal(err)
			}
		}
		if _, _, err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	one := newBatch(b, epoch, 2000, batch.NoProducer)
	var entries []entry
	for i := range 128 {
		entries = append(entries, entry{topicA, domain.PartitionID(i), one})
	}
	object, _ := write(b, nil, entries)
	b.SetBytes(int64(len(object)))
	for b.Loop() {
		if _, err := segment.Verify(object); err != nil {
			b.Fatal(err)
		}
	}
}
