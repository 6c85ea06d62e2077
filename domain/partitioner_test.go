package domain_test

import (
	"math"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/domain"
)

var sipHashVectors = []struct {
	key        string
	hash       uint64
	of3, of10  domain.PartitionID
	ofMaxInt32 domain.PartitionID
}{
	{"", 0xe849e8bb6ffe2567, 2, 9, domain.PartitionID(uint64(0xe849e8bb6ffe2567) % math.MaxInt32)},
	{"a", 0xfeb15081b68ca86b, 1, 7, domain.PartitionID(uint64(0xfeb15081b68ca86b) % math.MaxInt32)},
	{"user123", 0xada53a6022f628fc, 2, 4, domain.PartitionID(uint64(0xada53a6022f628fc) % math.MaxInt32)},
	{"user456", 0x8dd0e64eb2336ffd, 2, 5, domain.PartitionID(uint64(0x8dd0e64eb2336ffd) % math.MaxInt32)},
	{"order-42", 0x0d51800629a7428a, 1, 0, domain.PartitionID(uint64(0x0d51800629a7428a) % math.MaxInt32)},
	{"0123456789abcdef", 0xc4d0363f590e0c1b, 0, 3, domain.PartitionID(uint64(0xc4d0363f590e0c1b) % math.MaxInt32)},
}

func TestSipHash_HasThePublishedVectors(t *testing.T) {
	for _, v := range sipHashVectors {
		if got := domain.SipHash([]byte(v.key)); got != v.hash {
			t.Errorf("hash of %q is %x, want %x", v.key, got, v.hash)
		}
	}
}

func TestSipHashPartitioner_TakesTheHashModuloTheCount(t *testing.T) {
	p := domain.NewSipHashPartitioner()
	for _, v := range sipHashVectors {
		for n, want := range map[int32]domain.PartitionID{1: 0, 3: v.of3, 10: v.of10, math.MaxInt32: v.ofMaxInt32} {
			if got := p.Partition("orders", []byte(v.key), n); got != want {
				t.Errorf("key %q of %d partitions goes to %d, want %d", v.key, n, got, want)
			}
		}
	}
}

// Murmur2 hashes as Kafka's own clients compute them, as signed 32-bit numbers.
var murmur2Vectors = map[string]int32{
	"21":                         -973932308,
	"foobar":                     -790332482,
	"a-little-bit-long-string":   -985981536,
	"a-little-bit-longer-string": -1486304829,
	"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
	"abc": 479470107,
}

func TestMurmur2Partitioner_PutsKeysWhereKafkaDoes(t *testing.T) {
	p := domain.NewMurmur2Partitioner()
	for key, hash := range murmur2Vectors {
		for _, n := range []int32{1, 2, 7, 100, 100_000, math.MaxInt32} {
			want := domain.PartitionID((hash & math.MaxInt32) % n)
			if got := p.Partition("orders", []byte(key), n); got != want {
				t.Errorf("key %q of %d partitions goes to %d, want %d", key, n, got, want)
			}
		}
	}
}

func partitioners() map[string]domain.Partitioner {
	return map[string]domain.Partitioner{
		"siphash": domain.NewSipHashPartitioner(), "murmur2": domain.NewMurmur2Partitioner(),
		"round robin": domain.NewRoundRobinPartitioner(), "sticky": domain.NewStickyPartitioner(3),
		"sticky with no run": domain.NewStickyPartitioner(-1),
	}
}

func TestPartitioners_StayWithinTheCount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int32Range(1, math.MaxInt32).Draw(t, "partitions")
		key := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "key")
		for name, p := range partitioners() {
			for _, k := range [][]byte{key, nil, {}} {
				if got := p.Partition("orders", k, n); got < 0 || got >= domain.PartitionID(n) {
					t.Fatalf("%s: key %q of %d partitions goes to %d", name, k, n, got)
				}
			}
		}
	})
}

func TestKeyedPartitioners_KeepAKeyInItsPartition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "key")
		for name, p := range partitioners() {
			if name == "round robin" {
				continue
			}
			first := p.Partition("orders", key, 97)
			p.Partition("orders", nil, 97)
			if again := p.Partition("orders", key, 97); again != first {
				t.Fatalf("%s: key %q goes to %d and then to %d", name, key, first, again)
			}
		}
	})
}

// An empty key is a key: it must not go round robin.
func TestKeyedPartitioners_TakeAnEmptyKeyForAKey(t *testing.T) {
	for name, p := range partitioners() {
		if name == "round robin" {
			continue
		}
		first := p.Partition("orders", []byte{}, 1000)
		for range 10 {
			if got := p.Partition("orders", []byte{}, 1000); got != first {
				t.Errorf("%s: the empty key goes to %d and then to %d", name, first, got)
			}
		}
	}
}

func TestRoundRobin_GivesEachPartitionItsTurn(t *testing.T) {
	for _, name := range []string{"round robin", "siphash", "murmur2"} {
		p := partitioners()[name]
		for i := range 30 {
			if got := p.Partition("orders", nil, 10); got != domain.PartitionID(i%10) {
				t.Errorf("%s: record %d without a key goes to %d", name, i, got)
			}
		}
	}
}

func TestRoundRobin_IsFairUnderConcurrency(t *testing.T) {
	p := domain.NewSipHashPartitioner()
	const partitions, senders, each = 7, 4, 700
	var mu sync.Mutex
	var counts [partitions]int
	var group sync.WaitGroup
	for range senders {
		group.Go(func() {
			var own [partitions]int
			for range each {
				own[p.Partition("orders", nil, partitions)]++
			}
			mu.Lock()
			defer mu.Unlock()
			for i, n := range own {
				counts[i] += n
			}
		})
	}
	group.Wait()
	for i, n := range counts {
		if n != senders*each/partitions {
			t.Errorf("partition %d has %d records, want %d", i, n, senders*each/partitions)
		}
	}
}

func TestSticky_StaysForARunAndThenMoves(t *testing.T) {
	p := domain.NewStickyPartitioner(100)
	used := make(map[domain.PartitionID]int)
	for range 200 {
		first := p.Partition("orders", nil, 10)
		used[first]++
		for range 99 {
			if got := p.Partition("orders", nil, 10); got != first {
				t.Fatalf("moved from %d to %d within a run", first, got)
			}
		}
	}
	if len(used) != 10 {
		t.Errorf("200 runs used the partitions %v of 10", used)
	}
}

func TestSticky_HashesKeysAsTheDefaultDoes(t *testing.T) {
	p := domain.NewStickyPartitioner(100)
	for _, v := range sipHashVectors {
		if got := p.Partition("orders", []byte(v.key), 10); got != v.of10 {
			t.Errorf("key %q goes to %d, want %d", v.key, got, v.of10)
		}
	}
}

func TestPartitionerFunc_IsCalledWithWhatItNeeds(t *testing.T) {
	f := domain.PartitionerFunc(func(topic string, key []byte, n int32) domain.PartitionID {
		return domain.PartitionID(len(topic) + len(key) + int(n))
	})
	if got := f.Partition("abc", []byte("de"), 7); got != 12 {
		t.Errorf("got %d", got)
	}
}

func TestPartitioners_DoNotAllocateForShortKeys(t *testing.T) {
	key := []byte(strings.Repeat("k", 100))
	for name, p := range partitioners() {
		for _, k := range [][]byte{key, nil} {
			if n := testing.AllocsPerRun(100, func() { p.Partition("orders", k, 16) }); n != 0 {
				t.Errorf("%s allocates %v times a record", name, n)
			}
		}
	}
}

func BenchmarkPartitioner(b *testing.B) {
	key := []byte("user-123456")
	for name, p := range partitioners() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Partition("orders", key, 16)
			}
		})
	}
}
