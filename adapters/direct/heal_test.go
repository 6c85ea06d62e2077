package direct_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

// keeping is a store that keeps what it has read, damaged as it was, until it
// is told to forget.
type keeping struct {
	*store
	damage  func(b []byte) []byte // of the first read after each Forget, while there are damages
	damages int
	kept    map[string][]byte
	reads   int // of the store below
}

func (k *keeping) Forget(string) { clear(k.kept) }

func (k *keeping) ReadRange(ctx context.Context, key string, position, length int64) ([]byte, error) {
	name := fmt.Sprint(key, position, length)
	if b, ok := k.kept[name]; ok {
		return bytes.Clone(b), nil
	}
	k.reads++
	b, err := k.store.ReadRange(ctx, key, position, length)
	if err == nil && k.damages > 0 {
		k.damages--
		b = k.damage(b)
	}
	if err == nil {
		k.kept[name] = bytes.Clone(b)
	}
	return b, err
}

// TestFetch_ReadsDamageInMemoryOnceMore has bytes damaged on their way into the
// memory of the store.
func TestFetch_ReadsDamageInMemoryOnceMore(t *testing.T) {
	for name, damage := range map[string]func(b []byte) []byte{
		"a value":      func(b []byte) []byte { b[len(b)-2] ^= 4; return b },
		"a length":     func(b []byte) []byte { b[11] ^= 4; return b },
		"an offset":    func(b []byte) []byte { b[3] ^= 4; return b },
		"an epoch":     func(b []byte) []byte { b[13] ^= 4; return b },
		"a cut":        func(b []byte) []byte { return b[:len(b)-1] },
		"another size": func(b []byte) []byte { return append(b, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, r *rig) {
				r.stored(r.append(t.Context(), r.batch(0, batch.NoProducer, "a", "b")), 0)
				k := &keeping{store: r.store, damage: damage, damages: 1, kept: make(map[string][]byte)}
				r.reader = direct.NewReader(r.meta, k, r.tel, direct.DefaultReaderConfig())
				if v := fmt.Sprint(r.values(0)); v != "[a b]" || k.reads != 2 {
					t.Errorf("read %s in %d reads", v, k.reads)
				}
				if v := fmt.Sprint(r.values(0)); v != "[a b]" || k.reads != 2 {
					t.Errorf("what is well is not kept: %s in %d reads", v, k.reads)
				}
				k.damages = 1
				k.Forget("")
				if o, err := r.reader.OffsetAt(t.Context(), r.key(0), time.UnixMilli(1001)); o != 1 || err != nil {
					t.Errorf("OffsetAt: %d, %v", o, err)
				}
				if n := r.tel.Count(ports.CorruptionFound); n != 0 {
					t.Errorf("%d corruptions reported of a store that is well", n)
				}
			})
		})
	}
}

// TestFetch_ReportsDamageThatStays reads twice and no more.
func TestFetch_ReportsDamageThatStays(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		r.stored(r.append(t.Context(), r.batch(0, batch.NoProducer, "a")), 0)
		k := &keeping{store: r.store, damage: func(b []byte) []byte { b[11] ^= 4; return b }, damages: 100, kept: make(map[string][]byte)}
		r.reader = direct.NewReader(r.meta, k, r.tel, direct.DefaultReaderConfig())
		got, err := r.reader.Fetch(t.Context(), ports.FetchRequest{Partitions: r.all()[:1], MaxBytes: 1 << 20})
		if err != nil || !errors.Is(got[0].Err, domain.ErrCorrupt) || k.reads != 2 {
			t.Errorf("%+v, %v in %d reads", got, err, k.reads)
		}
	})
}
