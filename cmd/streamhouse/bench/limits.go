package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/adapters/codec"
	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

// Limits is what the machine can do at most of each thing that producing needs.
type Limits struct {
	// LZ4 is the compression of the same records by Cores cores, in MB/s.
	LZ4 float64 `json:"lz4_mb_per_second"`
	// AppendFsync is writing 8 MiB and fsync, one after the other, in MB/s.
	AppendFsync float64 `json:"append_fsync_mb_per_second"`
	// ObjectCommits is durable puts of 4 KiB, one after the other, per second.
	ObjectCommits float64 `json:"object_commits_per_second"`
	// MetadataCommits is commits of one batch each, one after the other.
	MetadataCommits float64 `json:"metadata_commits_per_second"`
	// Puts is durable puts of objects of PutBytes, as many at once as a writer
	// makes, in MB/s; PutP50 is how long one of them takes.
	Puts     float64 `json:"put_mb_per_second"`
	PutP50MS float64 `json:"put_p50_ms"`
	Cores    int     `json:"cores"`
}

// Scratch is a place to measure limits in: stores of the same kind on the same
// disk, whose contents are thrown away.
type Scratch struct {
	Dir      string
	Metadata ports.MetadataStore
	Segments ports.SegmentStore
}

// lz4Cores is on how many cores the compression is measured, if there are so
// many.
const lz4Cores = 2

const (
	appendBytes = 8 << 20
	objectBytes = 4 << 10
	// PutBytes is the size of the large objects that are put: that of a full
	// segment.
	PutBytes = 8 << 20
)

// MeasureLimits takes about five times each. RecordSize is that of the records
// to be compressed.
func MeasureLimits(ctx context.Context, s Scratch, recordSize int, each time.Duration) (Limits, error) {
	l := Limits{Cores: min(lz4Cores, runtime.GOMAXPROCS(0))}
	l.LZ4 = lz4Limit(l.Cores, recordSize, each)
	var err error
	if l.AppendFsync, err = appendLimit(s.Dir, each); err != nil {
		return l, fmt.Errorf("measure append and fsync: %w", err)
	}
	objects := objectPutter{store: s.Segments, body: make([]byte, objectBytes)}
	if l.ObjectCommits, err = perSecond(ctx, each, objects.put); err != nil {
		return l, fmt.Errorf("measure object commits: %w", err)
	}
	if err = l.measurePuts(ctx, s.Segments, each); err != nil {
		return l, fmt.Errorf("measure puts: %w", err)
	}
	commits, err := newCommitter(ctx, s.Metadata)
	if err != nil {
		return l, fmt.Errorf("measure metadata commits: %w", err)
	}
	if l.MetadataCommits, err = perSecond(ctx, each, commits.commit); err != nil {
		return l, fmt.Errorf("measure metadata commits: %w", err)
	}
	return l, nil
}

// measurePuts puts large objects that do not compress, as many at once as a
// writer does by default.
func (l *Limits) measurePuts(ctx context.Context, store ports.SegmentStore, each time.Duration) error {
	body := make([]byte, PutBytes)
	for i := range len(body) / 8 {
		binary.LittleEndian.PutUint64(body[8*i:], mix(uint64(i)))
	}
	var wg sync.WaitGroup
	var times histogram
	uploads := direct.DefaultConfig().MaxUploads
	errs := make([]error, uploads)
	began := time.Now()
	for i := range uploads {
		wg.Go(func() {
			objects := objectPutter{store: store, body: body, n: uint64(i) << 32}
			for time.Since(began) < each && errs[i] == nil {
				var took time.Duration
				if took, errs[i] = objects.put(ctx); errs[i] == nil {
					times.add(took)
				}
			}
		})
	}
	wg.Wait()
	l.Puts = float64(times.count.Load()) * PutBytes / 1e6 / time.Since(began).Seconds()
	l.PutP50MS = milliseconds(times.quantile(0.5))
	return errors.Join(errs...)
}

// perSecond repeats f, which returns how long its measured part took, until
// those parts add up to each.
func perSecond(ctx context.Context, each time.Duration, f func(context.Context) (time.Duration, error)) (float64, error) {
	var spent time.Duration
	n := 0
	for ; spent < each; n++ {
		d, err := f(ctx)
		if err != nil {
			return 0, err
		}
		spent += d
	}
	return float64(n) / spent.Seconds(), nil
}

// lz4Limit compresses batches of records on each core and returns MB/s.
func lz4Limit(cores, recordSize int, each time.Duration) float64 {
	var wg sync.WaitGroup
	rates := make([]float64, cores)
	for i := range cores {
		wg.Go(func() {
			chunks, perChunk := payload(recordSize)
			lz4 := codec.NewLZ4()
			var out []byte
			began, n := time.Now(), 0
			for time.Since(began) < each {
				// Records that an encoder refused cannot be here: payload made them.
				out, _ = lz4.Compress(out[:0], chunks[n%len(chunks)])
				n++
			}
			rates[i] = float64(n*perChunk*recordSize) / 1e6 / time.Since(began).Seconds()
		})
	}
	wg.Wait()
	total := 0.0
	for _, r := range rates {
		total += r
	}
	return total
}

// payload returns batches of about 1 MiB of records, as the codec gets them,
// and how many records are in each.
func payload(recordSize int) (chunks [][]byte, perChunk int) {
	g := NewGenerator(recordSize, 1)
	perChunk = max((1<<20)/(recordSize+10), 1)
	for range 8 {
		var b batch.Builder
		b.Reset(nil)
		for range perChunk {
			b.Append(time.Now().UnixMilli(), nil, g.Next(), nil)
		}
		chunks = append(chunks, b.Buffer()[batch.HeaderSize:])
	}
	return chunks, perChunk
}

func appendLimit(dir string, each time.Duration) (mbPerSecond float64, err error) {
	f, err := os.Create(filepath.Join(dir, "append"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := make([]byte, appendBytes)
	for i := range len(buf) / 8 {
		binary.LittleEndian.PutUint64(buf[8*i:], mix(uint64(i)))
	}
	began, n := time.Now(), 0
	for time.Since(began) < each {
		if _, err := f.Write(buf); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		n++
	}
	return float64(n*len(buf)) / 1e6 / time.Since(began).Seconds(), nil
}

// objectPutter puts one object after the other.
type objectPutter struct {
	store ports.SegmentStore
	body  []byte
	n     uint64
}

func (o *objectPutter) put(ctx context.Context) (time.Duration, error) {
	o.n++
	var random [10]byte
	binary.LittleEndian.PutUint64(random[2:], mix(o.n))
	key := segment.Key(domain.SegmentID(domain.NewUUIDv7(time.Now(), random)))
	began := time.Now()
	err := o.store.Put(ctx, key, o.body)
	return time.Since(began), err
}

// committer commits one segment of one batch after the other.
type committer struct {
	log      ports.Log
	topic    domain.TopicID
	reserved []ports.SegmentRef
}

func newCommitter(ctx context.Context, m ports.MetadataStore) (*committer, error) {
	const name = "limits"
	topic, err := m.CreateTopic(ctx, domain.TopicSpec{Name: name, Partitions: 1})
	if errors.Is(err, domain.ErrTopicExists) {
		topic, err = m.Topic(ctx, name)
	}
	return &committer{log: m, topic: topic.ID}, err
}

func (c *committer) commit(ctx context.Context) (time.Duration, error) {
	if len(c.reserved) == 0 {
		var err error
		if c.reserved, err = c.log.Reserve(ctx, 64); err != nil {
			return 0, err
		}
	}
	s := commit.Segment{ID: c.reserved[0].ID, Size: 200, Batches: []commit.Batch{{
		Topic: c.topic, Producer: commit.NoProducer, Records: 1, Position: segment.HeaderSize, Length: 100, MaxTimestamp: 1,
	}}}
	c.reserved = c.reserved[1:]
	began := time.Now()
	results, err := c.log.Commit(ctx, []commit.Segment{s})
	took := time.Since(began)
	if err == nil {
		err = results[0].Err
	}
	return took, err
}
