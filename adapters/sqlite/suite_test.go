package sqlite

import (
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(runRole(role))
	}
	goleak.VerifyTestMain(m)
}

func TestStore_KeepsTheContract(t *testing.T) {
	portstest.TestMetadataStore(t,
		func(t *testing.T) ports.MetadataStore { return newTest(t) },
		portstest.ReopenWith(func(t *testing.T, s ports.MetadataStore) ports.MetadataStore {
			return openTest(t, s.(*Store).path)
		}),
		portstest.ShareWith(func(t *testing.T, s ports.MetadataStore) ports.MetadataStore {
			return openTest(t, s.(*Store).path)
		}),
		portstest.AdvanceWith(func(_ *testing.T, s ports.MetadataStore, d time.Duration) {
			store := s.(*Store)
			before := store.now
			store.now = func() time.Time { return before().Add(d) }
		}),
		portstest.ShareWith(func(t *testing.T, s ports.MetadataStore) ports.MetadataStore {
			return openTest(t, s.(*Store).path)
		}),
		portstest.RaiseEpochWith(func(t *testing.T, s ports.MetadataStore, name string, epoch domain.Epoch) {
			err := s.(*Store).write(t.Context(), "raise epoch", func(c *conn) error {
				return c.exec(&query{"UPDATE producers SET epoch = ? WHERE name = ?"}, int64(epoch), name)
			})
			if err != nil {
				t.Fatal(err)
			}
		}),
		portstest.CheckWith(func(t *testing.T, s ports.MetadataStore) { checkInvariants(t, s.(*Store).path) }),
	)
}

func BenchmarkStore(b *testing.B) {
	portstest.BenchmarkMetadataStore(b, func(t testing.TB) ports.MetadataStore { return newTest(t) })
}
