package cache_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/adapters/cache"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// below is the store below: it counts the reads, and a test may take one over.
type below struct {
	*memory.Segments
	reads, bytes atomic.Int64
	put          func(ctx context.Context, key string, body []byte) error
	read         func(ctx context.Context, key string, position, length int64) ([]byte, error)
}

func (b *below) Put(ctx context.Context, key string, body []byte) error {
	if b.put != nil {
		return b.put(ctx, key, body)
	}
	return b.Segments.Put(ctx, key, body)
}

func (b *below) ReadRange(ctx context.Context, key string, position, length int64) ([]byte, error) {
	return b.count(b.Segments.ReadRange(ctx, key, position, length))
}

func (b *below) ReadUpTo(ctx context.Context, key string, position, length int64) ([]byte, error) {
	if b.read != nil {
		return b.count(b.read(ctx, key, position, length))
	}
	return b.count(b.Segments.ReadUpTo(ctx, key, position, length))
}

func (b *below) count(got []byte, err error) ([]byte, error) {
	b.reads.Add(1)
	b.bytes.Add(int64(len(got)))
	return got, err
}

// small is a configuration with blocks of 100 bytes.
func small(change ...func(*cache.Config)) cache.Config {
	cfg := cache.Config{
		RecentBytes: 1 << 20, BlockBytes: 1 << 20, BlockSize: 100, ReadBytes: 400, FreshReads: 2, ColdReads: 2, FreshFor: time.Minute,
	}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

func open(t testing.TB, cfg cache.Config) (*cache.Store, *below, *memory.Telemetry) {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	b, tel := &below{Segments: memory.NewSegments()}, memory.NewTelemetry()
	s := cache.New(b, tel, cfg)
	t.Cleanup(s.Close)
	return s, b, tel
}

// keyAt is the key of a segment whose id was made at a time.
func keyAt(at time.Time, n byte) string {
	id := domain.SegmentID{6: 0x70, 8: 0x80, 15: n}
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(at.UnixMilli()))
	copy(id[:6], ms[2:])
	return segment.Key(id)
}

// body is an object of n bytes no hundred of which are like another.
func body(n int) []byte {
	b := make([]byte, 0, n+8)
	for i := 0; len(b) < n; i++ {
		b = binary.BigEndian.AppendUint32(b, uint32(i)*2654435761)
	}
	return b[:n]
}

// stored puts an object of n bytes into the store below alone.
func stored(t testing.TB, b *below, key string, n int) []byte {
	t.Helper()
	o := body(n)
	if err := b.Segments.Put(context.Background(), key, o); err != nil {
		t.Fatal(err)
	}
	return o
}

func reads(t testing.TB, s ports.SegmentStore, key string, position, length int64, want []byte) {
	t.Helper()
	got, err := s.ReadRange(t.Context(), key, position, length)
	if err != nil || !bytes.Equal(got, want[position:position+length]) {
		t.Fatalf("%d bytes at %d: %d bytes, %v", length, position, len(got), err)
	}
}

const oldKey = "segments/00/old"

func TestStore_KeepsTheContract(t *testing.T) {
	for name, cfg := range map[string]cache.Config{
		"default":      cache.DefaultConfig(),
		"no recent":    small(func(c *cache.Config) { c.RecentBytes, c.BlockSize, c.ReadBytes, c.BlockBytes = 0, 4096, 1<<20, 64<<20 }),
		"no blocks":    small(func(c *cache.Config) { c.BlockBytes = 0 }),
		"nothing":      small(func(c *cache.Config) { c.RecentBytes, c.BlockBytes = 0, 0 }),
		"little":       small(func(c *cache.Config) { c.RecentBytes, c.BlockBytes = 1000, 10_000 }),
		"blocks of 1B": small(func(c *cache.Config) { c.RecentBytes, c.BlockSize, c.ReadBytes = 0, 1, 7 }),
	} {
		t.Run(name, func(t *testing.T) {
			portstest.TestSegmentStore(t, func(t testing.TB) ports.SegmentStore {
				s, _, _ := open(t, cfg)
				return s
			})
		})
	}
}

func TestPut_LetsReadersOfTheEndAskNothing(t *testing.T) {
	s, b, tel := open(t, small())
	want := body(5000)
	buffer := bytes.Clone(want)
	if err := s.Put(t.Context(), "segments/00/new", buffer); err != nil {
		t.Fatal(err)
	}
	clear(buffer) // a transport uses its buffers again
	for range 3 {
		reads(t, s, "segments/00/new", 0, 5000, want)
		reads(t, s, "segments/00/new", 4990, 10, want)
	}
	if n := b.reads.Load(); n != 0 {
		t.Errorf("%d reads of the store below, want none", n)
	}
	if got := tel.Totals(ports.RecentHit); got.Events != 6 || got.Bytes != 3*5010 {
		t.Errorf("told of %+v", got)
	}
}

func TestPut_ThatFailedKeepsNothing(t *testing.T) {
	s, b, _ := open(t, small())
	b.put = func(_ context.Context, key string, _ []byte) error {
		return ports.StorageError("put "+key, ports.Ambiguous, errors.New("no answer"))
	}
	if err := s.Put(t.Context(), oldKey, body(100)); ports.KindOf(err) != ports.Ambiguous {
		t.Errorf("put: %v", err)
	}
	if _, err := s.ReadRange(t.Context(), oldKey, 0, 1); !errors.Is(err, ports.ErrObjectNotFound) {
		t.Errorf("read: %v", err)
	}
}

func TestRecent_GivesUpTheOldestAndTakesNoGiant(t *testing.T) {
	s, b, _ := open(t, small(func(c *cache.Config) { c.RecentBytes = 4000 }))
	want := body(1001)
	if err := s.Put(t.Context(), "segments/00/giant", want); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := s.Put(t.Context(), fmt.Sprintf("segments/00/%d", i), want[:900]); err != nil {
			t.Fatal(err)
		}
		reads(t, s, "segments/00/0", 0, 1, want) // use does not make it younger
	}
	if recent, _, _ := s.Held(); recent > 4000 || recent < 3000 {
		t.Errorf("%d bytes of recent segments are held", recent)
	}
	before := b.reads.Load()
	for i := 7; i < 10; i++ {
		reads(t, s, fmt.Sprintf("segments/00/%d", i), 0, 900, want)
	}
	if n := b.reads.Load() - before; n != 0 {
		t.Errorf("%d reads for the three youngest", n)
	}
	reads(t, s, "segments/00/giant", 0, 1000, want)
	if n := b.reads.Load() - before; n == 0 {
		t.Error("the giant is held")
	}
}

func TestBlocks_AreReadOnceAndSideBySideTogether(t *testing.T) {
	s, b, tel := open(t, small())
	want := stored(t, b, oldKey, 1050)
	for i, k := range []struct{ position, length, reads int64 }{
		{410, 20, 1},  // block 4
		{499, 1, 0},   // the same
		{350, 250, 2}, // blocks 3 and 5, which do not lie side by side
		{0, 300, 1},   // 0 to 2
		{0, 600, 0},   // all that
		{600, 450, 2}, // 6 to 9, and 10, which is no whole one
		{1040, 10, 0}, // its end
		{0, 1050, 0},  // all
		{1049, 1, 0},  // the last byte
	} {
		before := b.reads.Load()
		reads(t, s, oldKey, k.position, k.length, want)
		if n := b.reads.Load() - before; n != k.reads {
			t.Errorf("%d: %d reads for %d bytes at %d, want %d", i, n, k.length, k.position, k.reads)
		}
	}
	if n := b.bytes.Load(); n != 1050 {
		t.Errorf("read %d bytes of 1050", n)
	}
	if got := tel.Totals(ports.CacheRead); got.Events != 6 || got.Bytes != 1050 || got.Count != 11 {
		t.Errorf("told of %+v", got)
	}
	if hits, misses := tel.Count(ports.CacheHit), tel.Count(ports.CacheMiss); hits != 5 || misses != 4 {
		t.Errorf("told of %d hits and %d misses", hits, misses)
	}
}

func TestBlocks_OfAnEndThatMovedAreReadAgain(t *testing.T) {
	s, b, _ := open(t, small())
	want := stored(t, b, oldKey, 250)
	b.read = func(ctx context.Context, key string, position, _ int64) ([]byte, error) {
		return b.Segments.ReadUpTo(ctx, key, position, min(220-position, 100)) // as of an object that was cut
	}
	reads(t, s, oldKey, 200, 10, want)
	b.read = nil
	reads(t, s, oldKey, 200, 50, want)
	if _, err := s.ReadRange(t.Context(), oldKey, 200, 51); !errors.Is(err, domain.ErrCorrupt) {
		t.Errorf("past the end: %v", err)
	}
	reads(t, s, oldKey, 0, 250, want)
}

func TestForget_ReadsAnew(t *testing.T) {
	s, b, _ := open(t, small())
	want := stored(t, b, oldKey, 250)
	b.read = func(ctx context.Context, key string, position, length int64) ([]byte, error) {
		got, err := b.Segments.ReadUpTo(ctx, key, position, length)
		got[7] ^= 1
		return got, err
	}
	if got, err := s.ReadRange(t.Context(), oldKey, 0, 100); err != nil || bytes.Equal(got, want[:100]) {
		t.Fatalf("the damage does not come through: %v", err)
	}
	b.read = nil
	s.Forget(oldKey)
	reads(t, s, oldKey, 0, 250, want)
}

func TestFailure_IsToldAndNotKept(t *testing.T) {
	s, b, tel := open(t, small())
	want := stored(t, b, oldKey, 250)
	cause := errors.New("busy")
	b.read = func(context.Context, string, int64, int64) ([]byte, error) {
		return nil, ports.StorageError("read", ports.Transient, cause)
	}
	for range 2 {
		if _, err := s.ReadRange(t.Context(), oldKey, 0, 10); !errors.Is(err, cause) || ports.KindOf(err) != ports.Transient {
			t.Errorf("read: %v", err)
		}
	}
	if got := tel.Totals(ports.CacheRead); got.Failures != 2 {
		t.Errorf("told of %+v", got)
	}
	b.read = nil
	reads(t, s, oldKey, 0, 10, want)
	if _, err := s.ReadRange(t.Context(), "segments/00/later", 0, 10); !errors.Is(err, ports.ErrObjectNotFound) {
		t.Errorf("read of nothing: %v", err)
	}
	later := stored(t, b, "segments/00/later", 10)
	reads(t, s, "segments/00/later", 0, 10, later)
}

func TestConfig_ReportsEveryFault(t *testing.T) {
	if err := cache.DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	err := cache.Config{RecentBytes: -1, BlockBytes: -1, BlockSize: 0, ReadBytes: -1, FreshReads: 0, ColdReads: 1 << 20, FreshFor: -1}.Validate()
	for _, field := range []string{"RecentBytes", "BlockBytes", "BlockSize", "ReadBytes", "FreshReads", "ColdReads", "FreshFor"} {
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte(field)) {
			t.Errorf("%s is not named in %v", field, err)
		}
	}
}

func nothing(context.Context, string, []byte) error { return nil }
