package chaos_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/adapters/postgres"
	"github.com/streamhouse/streamhouse/adapters/s3"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/test/e2e/chaos"
	"github.com/streamhouse/streamhouse/test/e2e/faultproxy"
	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

var (
	duration = flag.Duration("duration", 10*time.Second, "how long the stores fail")
	seed     = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of what the writers do and when what fails")
	keep     = flag.String("history", "", "write the history to this `FILE`")
)

// killEvery is how often Postgres is killed.
const killEvery = 4 * time.Second

// backends are the servers of one run, and how they are reached.
type backends struct {
	postgres *servers.PostgresServer
	s3       *servers.S3Server
	bucket   string
	toServer *faultproxy.Postgres // before postgres
	toBucket *faultproxy.HTTP     // before s3
}

func newBackends(t *testing.T) *backends {
	t.Helper()
	b := &backends{postgres: servers.Postgres(t), s3: servers.S3(t)}
	b.bucket = b.s3.NewBucket(t)
	b.toServer = faultproxy.NewPostgres(t, b.postgres.Addr())
	b.toBucket = faultproxy.NewHTTP(t, b.s3.Endpoint, *seed)
	t.Setenv("AWS_ACCESS_KEY_ID", b.s3.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", b.s3.SecretKey)
	return b
}

// open opens both stores as a process of its own does.
func (b *backends) open(ctx context.Context) (*chaos.Reach, error) {
	cfg := s3.DefaultConfig(b.bucket)
	cfg.Endpoint, cfg.Region, cfg.PathStyle, cfg.Prefix = b.toBucket.URL(), b.s3.Region, true, "log"
	segments, err := s3.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	metadata, err := postgres.Open(ctx, servers.URLVia(b.toServer.Addr(), "postgres", "", "postgres"), postgres.Options{})
	if err != nil {
		_ = segments.Close() // it holds nothing but idle connections
		return nil, err
	}
	return &chaos.Reach{Metadata: metadata, Segments: segments}, nil
}

// process opens them for a writer or a reader.
func (b *backends) process(ctx context.Context) (*chaos.Reach, error) {
	reach, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	return reach.Keep(), nil
}

// with opens the stores for f.
func (b *backends) with(t *testing.T, f func(ports.MetadataStore, ports.SegmentStore)) {
	t.Helper()
	reach, err := b.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := reach.Close(); err != nil {
			t.Error(err)
		}
	}()
	f(reach.Metadata, reach.Segments)
}

// TestChaos_PostgresAndS3 lets eight writers and two readers work while Postgres
// is killed every few seconds, connections are cut and the bucket fails in every way
// that it can, with janitors at work. Then all heals: every promise must have been
// kept, verify must find no damage, and the janitor must leave no garbage.
func TestChaos_PostgresAndS3(t *testing.T) {
	b := newBackends(t)
	const topic, partitions = "orders", 6
	b.with(t, func(m ports.MetadataStore, _ ports.SegmentStore) {
		if _, err := m.CreateTopic(t.Context(), domain.TopicSpec{Name: topic, Partitions: partitions}); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("seed %d, %s", *seed, *duration)
	run := chaos.Start(t, chaos.Config{
		Open: b.process, Topic: topic, Partitions: partitions, Writers: 8, Readers: 2,
		Pace: 20 * time.Millisecond, Burst: 10, Lives: 15 * time.Second, Seed: *seed,
	})
	faults := b.torment(t, *duration)
	drained := run.Finish(t)
	t.Logf("%s", &run.Counts)
	t.Logf("faults: %s", faults)
	if faults.total() < int(*duration/time.Second) || run.AmbiguousCommits.Load() == 0 {
		t.Errorf("only %d faults and %d commits of unknown outcome: this was no chaos", faults.total(), run.AmbiguousCommits.Load())
	}
	t.Logf("%s after the last fault every record had its fate", drained.Round(time.Millisecond))
	if drained > time.Minute {
		t.Errorf("it took %s to drain, want at most a minute", drained)
	}
	if *keep != "" {
		writeHistory(t, run)
	}
	b.with(t, func(m ports.MetadataStore, s ports.SegmentStore) { chaos.Inspect(t, m, s) })
}

func writeHistory(t *testing.T, run *chaos.Run) {
	t.Helper()
	f, err := os.Create(*keep)
	if err != nil {
		t.Fatal(err)
	}
	if err := run.WriteHistory(f); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// faults are what was done to the servers, and on the way to them.
type faults struct {
	kills, s3Kills, cuts int
	postgres             faultproxy.Counts
	s3                   map[string]int
}

func (f faults) String() string {
	return fmt.Sprintf("Postgres killed %d times, the S3 server %d times; all connections to Postgres cut %d times, %d statements cut off before they ran, %d answers lost after; S3: %v",
		f.kills, f.s3Kills, f.cuts, f.postgres.CutBefore, f.postgres.Lost, f.s3)
}

// total is the number of faults.
func (f faults) total() int {
	n := f.kills + f.s3Kills + f.cuts + f.postgres.CutBefore + f.postgres.Lost
	for _, times := range f.s3 {
		n += times
	}
	return n
}

// torment makes the servers and the ways to them fail for d, and heals them.
func (b *backends) torment(t *testing.T, d time.Duration) faults {
	t.Helper()
	random := rand.New(rand.NewPCG(*seed, 99))
	chaos.Spoil(b.toServer, b.toBucket, chaos.Chances{Request: 0.01, Statement: 0.004}, rand.New(rand.NewPCG(*seed, 98)))
	var f faults
	for end := time.Now().Add(d); time.Now().Before(end); {
		rest(killEvery/2 + time.Duration(random.Int64N(int64(killEvery/2))))
		b.toServer.Cut()
		f.cuts++
		rest(killEvery / 4)
		must(t, b.postgres.Kill9())
		f.kills++
		if random.IntN(3) == 0 {
			must(t, b.s3.Kill9())
			f.s3Kills++
			rest(time.Duration(random.Int64N(int64(500 * time.Millisecond))))
			must(t, b.s3.Start())
		}
		rest(time.Duration(random.Int64N(int64(300 * time.Millisecond))))
		must(t, b.postgres.Start())
	}
	b.toBucket.Clear()
	b.toServer.Intercept(nil)
	f.postgres, f.s3 = b.toServer.Counts(), b.toBucket.Faults()
	return f
}

// rest lets time pass: the faults come at moments, not after events.
func rest(d time.Duration) {
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		<-timer.C
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
