//go:build containers

package chaos_test

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/adapters/postgres"
	"github.com/streamhouse/streamhouse/adapters/s3"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/test/e2e/chaos"
	"github.com/streamhouse/streamhouse/test/e2e/containers"
)

// TestContainers_LogKeepsItsPromisesOnPostgresAndMinIO lets writers and readers work for a
// few seconds, on the servers that users run; verify and the janitor follow.
func TestContainers_LogKeepsItsPromisesOnPostgresAndMinIO(t *testing.T) {
	server, minio := containers.Postgres(t), containers.MinIO(t)
	access := minio.Access(t)
	bucket, url := access.NewBucket(t), server.URL(t)
	t.Setenv("AWS_ACCESS_KEY_ID", access.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", access.SecretKey)
	open := func(ctx context.Context) (ports.MetadataStore, ports.SegmentStore, error) {
		cfg := s3.DefaultConfig(bucket)
		cfg.Endpoint, cfg.PathStyle, cfg.Prefix = access.Endpoint, true, "log"
		segments, err := s3.Open(ctx, cfg)
		if err != nil {
			return nil, nil, err
		}
		metadata, err := postgres.Open(ctx, url, postgres.Options{})
		if err != nil {
			_ = segments.Close() // it holds nothing but idle connections
			return nil, nil, err
		}
		return metadata, segments, nil
	}
	m, s, err := open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = m.Close() // the servers end with the test
		_ = s.(io.Closer).Close()
	}()
	if _, err := m.CreateTopic(t.Context(), domain.TopicSpec{Name: "orders", Partitions: 4}); err != nil {
		t.Fatal(err)
	}
	run := chaos.Start(t, chaos.Config{
		Open: open, Topic: "orders", Partitions: 4, Writers: 3, Readers: 1,
		Pace: 10 * time.Millisecond, Burst: 20, Lives: 2 * time.Second, Seed: 1,
	})
	timer := time.NewTimer(5 * time.Second)
	defer timer.Stop()
	<-timer.C
	run.Finish(t)
	t.Logf("%s", &run.Counts)
	if run.Acked.Load() < 100 || run.Failed.Load()+run.Unknown.Load() > 0 {
		t.Error("not every record was acknowledged, or hardly any was sent")
	}
	chaos.Inspect(t, m, s)
}
