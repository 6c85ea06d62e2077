package storecheck_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/adapters/fault"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/app/storecheck"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// bent is a store of which a test bends single calls. Calls that are not set go to
// the store in memory.
type bent struct {
	ports.SegmentStore
	put    func(ctx context.Context, key string, body []byte) error
	read   func(ctx context.Context, key string, position, length int64) ([]byte, error)
	upTo   func(ctx context.Context, key string, position, length int64) ([]byte, error)
	stat   func(ctx context.Context, key string) (ports.ObjectInfo, error)
	delete func(ctx context.Context, key string) error
	list   func(ctx context.Context, after string, limit int) ([]ports.ObjectInfo, error)
}

func (b *bent) Put(ctx context.Context, key string, body []byte) error {
	if b.put != nil {
		return b.put(ctx, key, body)
	}
	return b.SegmentStore.Put(ctx, key, body)
}

func (b *bent) ReadRange(ctx context.Context, key string, position, length int64) ([]byte, error) {
	if b.read != nil {
		return b.read(ctx, key, position, length)
	}
	return b.SegmentStore.ReadRange(ctx, key, position, length)
}

func (b *bent) ReadUpTo(ctx context.Context, key string, position, length int64) ([]byte, error) {
	if b.upTo != nil {
		return b.upTo(ctx, key, position, length)
	}
	return b.SegmentStore.ReadUpTo(ctx, key, position, length)
}

func (b *bent) Stat(ctx context.Context, key string) (ports.ObjectInfo, error) {
	if b.stat != nil {
		return b.stat(ctx, key)
	}
	return b.SegmentStore.Stat(ctx, key)
}

func (b *bent) Delete(ctx context.Context, key string) error {
	if b.delete != nil {
		return b.delete(ctx, key)
	}
	return b.SegmentStore.Delete(ctx, key)
}

func (b *bent) List(ctx context.Context, after string, limit int) ([]ports.ObjectInfo, error) {
	if b.list != nil {
		return b.list(ctx, after, limit)
	}
	return b.SegmentStore.List(ctx, after, limit)
}

func small() storecheck.Config {
	cfg := storecheck.DefaultConfig()
	cfg.ObjectBytes = 4000
	return cfg
}

// failed returns the names of the checks that failed.
func failed(t *testing.T, report storecheck.Report) (names []string) {
	t.Helper()
	for _, r := range report.Results {
		if r.OK != (r.Fix == "") || r.Detail == "" || r.Name == "" {
			t.Errorf("a result without its words: %+v", r)
		}
		if !r.OK {
			names = append(names, r.Name)
			t.Logf("%s: %s; fix: %s", r.Name, r.Detail, r.Fix)
		}
	}
	if report.OK() != (len(names) == 0) {
		t.Errorf("OK is %v with failures %q", report.OK(), names)
	}
	return names
}

func TestRun_PassesAStoreThatKeepsTheContractAndLeavesNothing(t *testing.T) {
	store := memory.NewSegments()
	for _, key := range []string{"a", "check/0", "check/zzz", "segments/00/a", "z"} { // what was there
		if err := store.Put(t.Context(), key, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	report := storecheck.Run(t.Context(), store, storecheck.DefaultConfig())
	if names := failed(t, report); len(names) != 0 || len(report.Results) != 11 {
		t.Errorf("failed are %q of %d", names, len(report.Results))
	}
	left, err := store.List(t.Context(), "", 100)
	if err != nil || len(left) != 5 {
		t.Errorf("left is %v, %v", left, err)
	}
}

func TestRun_PassesAStoreWithPassingTrouble(t *testing.T) {
	var mu sync.Mutex
	calls := 0
	trouble := func(ctx context.Context, i *fault.Invocation) error {
		mu.Lock()
		calls++
		n := calls
		mu.Unlock()
		switch {
		case strings.Contains(i.Subject, "race"):
			return i.Run(ctx)
		case n%7 == 0:
			return i.Error(ports.Transient)
		case n%11 == 0 && i.Method == "Put" && !strings.HasSuffix(i.Subject, "/object"):
			_ = i.Run(ctx)
			return i.Error(ports.Ambiguous)
		}
		return i.Run(ctx)
	}
	report := storecheck.Run(t.Context(), fault.NewSegments(memory.NewSegments(), trouble), small())
	if names := failed(t, report); len(names) != 0 {
		t.Errorf("failed are %q", names)
	}
}

// replacing deletes what is there before it puts.
func replacing(b *bent) {
	b.put = func(ctx context.Context, key string, body []byte) error {
		if err := b.SegmentStore.Delete(ctx, key); err != nil {
			return err
		}
		return b.SegmentStore.Put(ctx, key, body)
	}
}

func TestRun_FindsEachBrokenPromise(t *testing.T) {
	for name, c := range map[string]struct {
		bend func(*bent)
		want []string // parts of the names of the checks that must fail; others may
	}{
		"a put replaces": {replacing, []string{"taken key"}},
		"a put that is refused replaces": {func(b *bent) {
			b.put = func(ctx context.Context, key string, body []byte) error {
				err := b.SegmentStore.Put(ctx, key, body)
				if errors.Is(err, ports.ErrObjectExists) {
					_ = b.SegmentStore.Delete(ctx, key)
					_ = b.SegmentStore.Put(ctx, key, body)
				}
				return err
			}
		}, []string{"taken key", "racing puts"}},
		"racing puts all win": {func(b *bent) {
			b.put = func(ctx context.Context, key string, body []byte) error {
				err := b.SegmentStore.Put(ctx, key, body)
				if strings.Contains(key, "race") {
					return nil
				}
				return err
			}
		}, []string{"racing puts"}},
		"no racing put wins": {func(b *bent) {
			b.put = func(ctx context.Context, key string, body []byte) error {
				err := b.SegmentStore.Put(ctx, key, body)
				if strings.Contains(key, "race") {
					return ports.StorageError("put", ports.Definite, ports.ErrObjectExists)
				}
				return err
			}
		}, []string{"racing puts"}},
		"bytes are changed": {func(b *bent) {
			b.put = func(ctx context.Context, key string, body []byte) error {
				if body = bytes.Clone(body); len(body) > 50 {
					body[50] ^= 1
				}
				return b.SegmentStore.Put(ctx, key, body)
			}
		}, []string{"a put stores"}},
		"a wrong checksum": {func(b *bent) {
			b.stat = func(ctx context.Context, key string) (ports.ObjectInfo, error) {
				info, err := b.SegmentStore.Stat(ctx, key)
				info.CRC32C++
				return info, err
			}
		}, []string{"stat gives"}},
		"a wrong clock": {func(b *bent) {
			b.stat = func(ctx context.Context, key string) (ports.ObjectInfo, error) {
				info, err := b.SegmentStore.Stat(ctx, key)
				info.ModifiedUnixMilli -= time.Hour.Milliseconds()
				return info, err
			}
		}, []string{"stat gives"}},
		"ranges are ignored": {func(b *bent) {
			b.read = func(ctx context.Context, key string, position, length int64) ([]byte, error) {
				info, err := b.SegmentStore.Stat(ctx, key)
				if err != nil {
					return nil, err
				}
				return b.SegmentStore.ReadRange(ctx, key, 0, info.Size)
			}
		}, []string{"ranged read", "past the end"}},
		"short reads pass": {func(b *bent) {
			b.read = func(ctx context.Context, key string, position, length int64) ([]byte, error) {
				info, err := b.SegmentStore.Stat(ctx, key)
				if err != nil {
					return nil, err
				}
				position = min(position, info.Size)
				return b.SegmentStore.ReadRange(ctx, key, position, min(length, info.Size-position))
			}
		}, []string{"past the end"}},
		"a range past the end is refused whole": {func(b *bent) { b.upTo = b.SegmentStore.ReadRange }, []string{"up to the end"}},
		"reads up to the end stop before it": {func(b *bent) {
			b.upTo = func(ctx context.Context, key string, position, length int64) ([]byte, error) {
				got, err := b.SegmentStore.ReadUpTo(ctx, key, position, length)
				return got[:max(len(got), 1)-1], err
			}
		}, []string{"up to the end"}},
		"missing objects are denied": {func(b *bent) {
			b.stat = func(ctx context.Context, key string) (ports.ObjectInfo, error) {
				info, err := b.SegmentStore.Stat(ctx, key)
				if err != nil {
					err = ports.StorageError("stat", ports.Definite, errors.New("403 AccessDenied"))
				}
				return info, err
			}
		}, []string{"said to be missing"}},
		"missing objects are empty": {func(b *bent) {
			b.stat = func(ctx context.Context, key string) (ports.ObjectInfo, error) {
				info, err := b.SegmentStore.Stat(ctx, key)
				if errors.Is(err, ports.ErrObjectNotFound) {
					err = nil
				}
				return info, err
			}
		}, []string{"said to be missing", "a delete"}},
		"a list forgets": {func(b *bent) {
			b.list = func(ctx context.Context, after string, limit int) ([]ports.ObjectInfo, error) {
				page, err := b.SegmentStore.List(ctx, after, limit)
				return page[min(1, len(page)):], err
			}
		}, []string{"a list shows"}},
		"a list in another order": {func(b *bent) {
			b.list = func(ctx context.Context, after string, limit int) ([]ports.ObjectInfo, error) {
				page, err := b.SegmentStore.List(ctx, after, limit)
				if len(page) > 1 {
					page[0], page[1] = page[1], page[0]
				}
				return page, err
			}
		}, []string{"a list shows"}},
		"pages that begin anew": {func(b *bent) {
			b.list = func(ctx context.Context, _ string, limit int) ([]ports.ObjectInfo, error) {
				return b.SegmentStore.List(ctx, "", limit)
			}
		}, []string{"a list shows"}},
		"pages without a limit": {func(b *bent) {
			b.list = func(ctx context.Context, after string, _ int) ([]ports.ObjectInfo, error) {
				return b.SegmentStore.List(ctx, after, 1000)
			}
		}, []string{"a list shows"}},
		"deletes do nothing": {func(b *bent) {
			b.delete = func(context.Context, string) error { return nil }
		}, []string{"a delete removes"}},
		"deletes of nothing fail": {func(b *bent) {
			b.delete = func(ctx context.Context, key string) error {
				if _, err := b.SegmentStore.Stat(ctx, key); err != nil {
					return err
				}
				return b.SegmentStore.Delete(ctx, key)
			}
		}, []string{"a delete removes"}},
		"deletes are denied": {func(b *bent) {
			b.delete = func(context.Context, string) error {
				return ports.StorageError("delete", ports.Definite, errors.New("403 AccessDenied"))
			}
		}, []string{"a delete removes", "what was made is removed"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bent{SegmentStore: memory.NewSegments()}
			c.bend(b)
			names := failed(t, storecheck.Run(t.Context(), b, small()))
			for _, want := range c.want {
				if !strings.Contains(strings.Join(names, "\n"), want) {
					t.Errorf("failed are %q, want %q among them", names, want)
				}
			}
		})
	}
}

func TestRun_StopsWhereNothingCanBeStored(t *testing.T) {
	b := &bent{SegmentStore: memory.NewSegments()}
	b.put = func(context.Context, string, []byte) error {
		return ports.StorageError("put object", ports.Definite, errors.New("403 AccessDenied"))
	}
	report := storecheck.Run(t.Context(), b, small())
	if names := failed(t, report); len(names) != 1 || len(report.Results) != 2 || !strings.Contains(report.Results[0].Detail, "AccessDenied") {
		t.Errorf("results are %+v", report.Results)
	}
}

func TestRun_StopsWithItsContextAndCleansUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	store := memory.NewSegments()
	b := &bent{SegmentStore: store}
	b.stat = func(ctx context.Context, key string) (ports.ObjectInfo, error) {
		cancel()
		return store.Stat(ctx, key)
	}
	report := storecheck.Run(ctx, b, small())
	last := report.Results[len(report.Results)-1]
	if names := failed(t, report); len(names) != 1 || !last.OK || len(report.Results) != 5 {
		t.Errorf("failed are %q, the last is %+v", names, last)
	}
	if left, err := store.List(t.Context(), "", 100); err != nil || len(left) != 0 {
		t.Errorf("left is %v, %v", left, err)
	}
}

func TestConfig_ReportsEveryFault(t *testing.T) {
	if err := storecheck.DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	err := storecheck.Config{Writers: 1, Races: 0, ObjectBytes: 1 << 40, Objects: -1}.Validate()
	if !errors.Is(err, domain.ErrConfig) {
		t.Fatal(err)
	}
	for _, field := range []string{"Writers", "Races", "ObjectBytes", "Objects"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("error %v does not name %s", err, field)
		}
	}
}
