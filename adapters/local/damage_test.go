package local_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/adapters/local"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/segment"
)

const damagedPartitions = 2

var flips = flag.Int("flips", 60, "how many bits of the metadata file to flip")

// writeLog stores count batches of one record each, in turn in the partitions of
// topic "orders", every one in a segment of its own, and closes the store.
func writeLog(t *testing.T, dir string, count int) {
	t.Helper()
	store := open(t, dir)
	if _, err := streamhouse.NewTopics(store.Metadata()).Create(t.Context(), streamhouse.TopicSpec{Name: "orders", Partitions: damagedPartitions}); err != nil {
		t.Fatal(err)
	}
	p, err := streamhouse.NewProducerBuilder().Cluster(store).Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range count {
		id := domain.PartitionID(i % damagedPartitions)
		r, err := p.Send(t.Context(), streamhouse.Record{Topic: "orders", Partition: domain.ToPartition(id), Value: valueAt(id, domain.Offset(i/damagedPartitions))})
		if err != nil || r.Offset != domain.Offset(i/damagedPartitions) {
			t.Fatalf("record %d is at %d, %v", i, r.Offset, err)
		}
	}
	if err := errors.Join(p.Close(t.Context()), store.Close()); err != nil {
		t.Fatal(err)
	}
}

func valueAt(id domain.PartitionID, at domain.Offset) []byte {
	return fmt.Appendf(nil, "partition %d offset %d", id, at)
}

// readLog reads each partition up to its end or its first error. It demands that
// every record is the one that was written at its offset, and returns how many
// came and the errors.
func readLog(t *testing.T, store *local.Store) (records int, failures []error) {
	t.Helper()
	for id := range domain.PartitionID(damagedPartitions) {
		n, err := readPartition(t, store, id)
		records += n
		if err != nil {
			failures = append(failures, err)
		}
	}
	return records, failures
}

func readPartition(t *testing.T, store *local.Store, id domain.PartitionID) (records int, err error) {
	t.Helper()
	c, err := streamhouse.NewConsumerBuilder().Cluster(store).Assign("orders", streamhouse.FromStart(), id).Build(t.Context())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for m, err := range c.ReadToEnd(ctx) {
		if err != nil {
			return records, err
		}
		if want := valueAt(m.Partition, m.Offset); m.Partition != id || !bytes.Equal(m.Value, want) {
			t.Errorf("partition %d offset %d holds %q", m.Partition, m.Offset, m.Value)
		}
		records++
	}
	return records, nil
}

// segmentFiles returns the files below segments/.
func segmentFiles(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(filepath.Join(dir, "segments"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestDamage_OfASegmentIsAnErrorAndTheFileStays(t *testing.T) {
	const count = 12
	dir := t.TempDir()
	writeLog(t, dir, count)
	files := segmentFiles(t, dir)
	if len(files) != count {
		t.Fatalf("%d segments, want one a record", len(files))
	}
	random := rand.New(rand.NewPCG(1, 17))
	for _, file := range files {
		whole, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := segment.Open(whole)
		if err != nil {
			t.Fatal(err)
		}
		// The batch is what a reader reads; `segment verify` reads all.
		from, length := int(sealed.Extents[0].Position), int(sealed.Extents[0].Length)
		damaged := bytes.Clone(whole)
		damaged[from+random.IntN(length)] ^= 1 << random.IntN(8)
		for _, b := range [][]byte{damaged, whole[:from+random.IntN(length)], nil} {
			overwrite(t, file, b)
			store := open(t, dir)
			records, failures := readLog(t, store)
			if err := store.Close(); err != nil {
				t.Error(err)
			}
			if records < count/damagedPartitions || records == count || len(failures) != 1 {
				t.Errorf("%s: %d records and the errors %v; want the other partition whole, and an error", file, records, failures)
			}
			for _, err := range failures {
				var c *domain.CorruptError
				if !errors.As(err, &c) || c.Segment != sealed.ID {
					t.Errorf("error %v, want a *domain.CorruptError that names segment %s", err, sealed.ID)
				}
			}
			if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, b) {
				t.Errorf("reading changed the damaged file: %v", err)
			}
		}
		overwrite(t, file, whole)
	}
}

func overwrite(t *testing.T, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDamage_OfTheMetadataFileGivesNoOtherRecords flips bits of the metadata
// file: it is refused, or reading tells of it, or all is read as it was written.
func TestDamage_OfTheMetadataFileGivesNoOtherRecords(t *testing.T) {
	const count = 12
	dir := t.TempDir()
	writeLog(t, dir, count)
	file := filepath.Join(dir, "metadata.db")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var used []int
	for i, b := range whole {
		if b != 0 {
			used = append(used, i)
		}
	}
	random := rand.New(rand.NewPCG(1, 18))
	refused, told := 0, 0
	for range *flips {
		damaged := bytes.Clone(whole)
		at := used[random.IntN(len(used))]
		damaged[at] ^= 1 << random.IntN(8)
		overwrite(t, file, damaged)
		store, err := local.Open(t.Context(), dir)
		if err != nil {
			refused++
			continue
		}
		records, failures := readLog(t, store)
		if len(failures) > 0 {
			told++
		} else if records != count {
			t.Errorf("byte %d: %d of %d records are read, without an error", at, records, count)
		}
		// A store that found the damage says so again.
		_ = store.Close()
	}
	t.Logf("%d flips: %d refused, %d told of", *flips, refused, told)
}
