package storecheck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// clockTolerance is how far the store's clock may be from ours. Signed requests
// allow as much.
const clockTolerance = 15 * time.Minute

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// key names an object of this run.
func (r *run) key(name string) string {
	key := r.folder + name
	if !slices.Contains(r.made, key) {
		r.made = append(r.made, key)
	}
	return key
}

// content is n bytes that differ from seed to seed and from place to place.
func content(seed, n int) []byte {
	b := make([]byte, n)
	x := uint32(seed)*2654435761 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

// create puts an object, again after an attempt of unknown outcome, which may
// have stored it.
func (r *run) create(ctx context.Context, key string, object []byte) error {
	doubtful := false
	return again(ctx, func() error {
		err := r.store.Put(ctx, key, object)
		if doubtful && errors.Is(err, ports.ErrObjectExists) {
			return r.holds(ctx, key, object)
		}
		doubtful = doubtful || err != nil && ports.KindOf(err) == ports.Ambiguous
		return err
	})
}

// holds demands that the object has these bytes.
func (r *run) holds(ctx context.Context, key string, object []byte) error {
	got, err := r.read(ctx, key, 0, int64(len(object)))
	if err == nil && !bytes.Equal(got, object) {
		err = fmt.Errorf("%s has other bytes than were put, from byte %d on", key, firstDifference(got, object))
	}
	return err
}

func firstDifference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

func (r *run) read(ctx context.Context, key string, position, length int64) (got []byte, err error) {
	err = again(ctx, func() error {
		got, err = r.store.ReadRange(ctx, key, position, length)
		return err
	})
	return got, err
}

const objectName = "object"

func (r *run) object() []byte { return content(1, r.cfg.ObjectBytes) }

func (r *run) put(ctx context.Context) (string, error) {
	start := time.Now()
	if err := r.create(ctx, r.key(objectName), r.object()); err != nil {
		return "", err
	}
	stored := time.Now()
	if err := r.holds(ctx, r.key(objectName), r.object()); err != nil {
		return "", err
	}
	if err := r.create(ctx, r.key("empty"), nil); err != nil {
		return "", fmt.Errorf("an empty object: %w", err)
	}
	return fmt.Sprintf("%d bytes, put in %v, read in %v", r.cfg.ObjectBytes, round(stored.Sub(start)), round(time.Since(stored))), nil
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

// taken has an object of its own: the checks after it speak of other promises.
func (r *run) taken(ctx context.Context) (string, error) {
	key := r.key("taken")
	if err := r.create(ctx, key, r.object()); err != nil {
		return "", err
	}
	for _, second := range [][]byte{content(2, 100), r.object(), nil} {
		err := again(ctx, func() error { return r.store.Put(ctx, key, second) })
		if err == nil {
			return "", fmt.Errorf("a put of %d bytes under the taken key %s succeeded", len(second), key)
		}
		if !errors.Is(err, ports.ErrObjectExists) {
			return "", err
		}
		if err := r.holds(ctx, key, r.object()); err != nil {
			return "", fmt.Errorf("after a put that was refused: %w", err)
		}
	}
	return "3 puts", nil
}

// race lets writers put different bytes under one key. A put of unknown outcome
// may have won, so it excuses the lack of a winner.
func (r *run) race(ctx context.Context) (string, error) {
	for n := range r.cfg.Races {
		if err := r.raceOnce(ctx, n); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d writers, %d keys", r.cfg.Writers, r.cfg.Races), nil
}

func (r *run) raceOnce(ctx context.Context, n int) error {
	key := r.key(fmt.Sprintf("race-%d", n))
	object := func(writer int) []byte { return content(writer, 4096+writer) }
	errs := make([]error, r.cfg.Writers)
	start := make(chan struct{})
	var writers sync.WaitGroup
	for w := range errs {
		writers.Go(func() {
			<-start
			errs[w] = r.store.Put(ctx, key, object(w))
		})
	}
	close(start)
	writers.Wait()
	var winners, doubtful []int
	for w, err := range errs {
		switch {
		case err == nil:
			winners = append(winners, w)
		case errors.Is(err, ports.ErrObjectExists):
		case passes(err):
			doubtful = append(doubtful, w)
		default:
			return err
		}
	}
	switch {
	case len(winners) > 1:
		return fmt.Errorf("%d of %d racing puts of %s succeeded", len(winners), r.cfg.Writers, key)
	case len(winners) == 1:
		return r.holds(ctx, key, object(winners[0]))
	case len(doubtful) == 0:
		return fmt.Errorf("none of %d racing puts of %s succeeded", r.cfg.Writers, key)
	}
	return fmt.Errorf("no winner for %s is known, for the store is in trouble: %w", key, errs[doubtful[0]])
}

func (r *run) stat(ctx context.Context) (string, error) {
	objects := map[string][]byte{objectName: r.object(), "empty": nil}
	for name, object := range objects {
		var info ports.ObjectInfo
		err := again(ctx, func() (err error) {
			info, err = r.store.Stat(ctx, r.key(name))
			return err
		})
		if err != nil {
			return "", err
		}
		want := crc32.Checksum(object, castagnoli)
		if info.Key != r.key(name) || info.Size != int64(len(object)) || info.CRC32C != want {
			return "", fmt.Errorf("%s has %d bytes and checksum %08x, want %d and %08x", info.Key, info.Size, info.CRC32C, len(object), want)
		}
		if off := time.Since(time.UnixMilli(info.ModifiedUnixMilli)); off.Abs() > clockTolerance {
			return "", fmt.Errorf("%s was just made, and by the store's clock %v ago", info.Key, off.Round(time.Second))
		}
	}
	return fmt.Sprintf("%d objects", len(objects)), nil
}

func (r *run) ranges(ctx context.Context) (string, error) {
	object, size := r.object(), int64(r.cfg.ObjectBytes)
	spans := []struct{ position, length int64 }{
		{0, 0}, {0, 1}, {0, size}, {1, size - 1}, {size - 1, 1}, {size, 0}, {size / 3, size / 3}, {size/2 - 1, 2},
	}
	for _, s := range spans {
		got, err := r.read(ctx, r.key(objectName), s.position, s.length)
		if err != nil {
			return "", fmt.Errorf("%d bytes at %d: %w", s.length, s.position, err)
		}
		if !bytes.Equal(got, object[s.position:s.position+s.length]) {
			return "", fmt.Errorf("a read of %d bytes at %d gave %d bytes, and not those", s.length, s.position, len(got))
		}
	}
	return fmt.Sprintf("%d ranges", len(spans)), nil
}

func (r *run) pastEnd(ctx context.Context) (string, error) {
	size := int64(r.cfg.ObjectBytes)
	spans := []struct{ position, length int64 }{{0, size + 1}, {size - 1, 2}, {size, 1}, {size + 1, 0}, {size + 1, 1}}
	for _, s := range spans {
		got, err := r.read(ctx, r.key(objectName), s.position, s.length)
		if err == nil {
			return "", fmt.Errorf("a read of %d bytes at %d of an object of %d bytes gave %d bytes", s.length, s.position, size, len(got))
		}
		if !errors.Is(err, domain.ErrCorrupt) {
			return "", fmt.Errorf("%d bytes at %d: %w", s.length, s.position, err)
		}
	}
	return fmt.Sprintf("%d ranges", len(spans)), nil
}

// upToEnd asks for more than there is, as an agent's cache does.
func (r *run) upToEnd(ctx context.Context) (string, error) {
	object, size := r.object(), int64(r.cfg.ObjectBytes)
	spans := []struct{ position, length int64 }{{0, size}, {0, size + 1}, {size - 1, 2}, {size / 3, 2 * size}}
	for _, s := range spans {
		var got []byte
		err := again(ctx, func() (err error) {
			got, err = r.store.ReadUpTo(ctx, r.key(objectName), s.position, s.length)
			return err
		})
		if err != nil {
			return "", fmt.Errorf("up to %d bytes at %d: %w", s.length, s.position, err)
		}
		if !bytes.Equal(got, object[s.position:]) {
			return "", fmt.Errorf("up to %d bytes at %d of an object of %d bytes gave %d bytes, and not those", s.length, s.position, size, len(got))
		}
	}
	return fmt.Sprintf("%d ranges", len(spans)), nil
}

func (r *run) missing(ctx context.Context) (string, error) {
	return "stat and read", r.isMissing(ctx, r.folder+"never-put")
}

func (r *run) isMissing(ctx context.Context, key string) error {
	err := again(ctx, func() error { _, err := r.store.Stat(ctx, key); return err })
	if !errors.Is(err, ports.ErrObjectNotFound) {
		return wrong("stat of "+key, err)
	}
	if _, err = r.read(ctx, key, 0, 1); !errors.Is(err, ports.ErrObjectNotFound) {
		return wrong("read of "+key, err)
	}
	return nil
}

// wrong tells of a call on a missing object that did not say so.
func wrong(what string, err error) error {
	if err == nil {
		return fmt.Errorf("%s, which does not exist, succeeded", what)
	}
	return err
}

// list puts objects whose order as paths and as strings differs, and lists them
// in pages of several sizes.
func (r *run) list(ctx context.Context) (string, error) {
	names := []string{"l/a-b", "l/a/b", "l/a0"}
	for i := len(names); i < r.cfg.Objects; i++ {
		names = append(names, fmt.Sprintf("l/%02x/%d", i*7%11, i))
	}
	want := make(map[string]int64, len(names))
	for i, name := range names {
		key := r.key(name)
		want[key] = int64(i)
		if err := r.create(ctx, key, content(i, i)); err != nil {
			return "", err
		}
	}
	for _, limit := range []int{2, 5, len(names), 1000} {
		if err := r.listed(ctx, limit, want); err != nil {
			return "", fmt.Errorf("in pages of %d: %w", limit, err)
		}
	}
	return fmt.Sprintf("%d objects", len(names)), nil
}

// listed demands that the pages show these objects, each once, with its size.
func (r *run) listed(ctx context.Context, limit int, want map[string]int64) error {
	folder, seen := r.folder+"l/", 0
	for after := folder; ; {
		var page []ports.ObjectInfo
		err := again(ctx, func() (err error) {
			page, err = r.store.List(ctx, after, limit)
			return err
		})
		if err != nil {
			return err
		}
		if len(page) > limit {
			return fmt.Errorf("%d objects at once", len(page))
		}
		for _, o := range page {
			if o.Key <= after {
				return fmt.Errorf("%s comes after %s", o.Key, after)
			}
			if after = o.Key; !strings.HasPrefix(o.Key, folder) {
				return allSeen(seen, len(want)) // somebody else's
			}
			size, known := want[o.Key]
			if !known || size != o.Size {
				return fmt.Errorf("%s is listed with %d bytes, put were %d", o.Key, o.Size, size)
			}
			seen++
		}
		if len(page) == 0 {
			return allSeen(seen, len(want))
		}
	}
}

func allSeen(seen, want int) error {
	if seen != want {
		return fmt.Errorf("%d objects are listed, %d were put", seen, want)
	}
	return nil
}

func (r *run) remove(ctx context.Context) (string, error) {
	key := r.key("deleted")
	if err := r.create(ctx, key, content(3, 300)); err != nil {
		return "", err
	}
	for range 2 { // the second finds none
		if err := again(ctx, func() error { return r.store.Delete(ctx, key) }); err != nil {
			return "", err
		}
		if err := r.isMissing(ctx, key); err != nil {
			return "", fmt.Errorf("after its deletion: %w", err)
		}
	}
	if err := r.create(ctx, key, content(4, 400)); err != nil {
		return "", fmt.Errorf("the same key again: %w", err)
	}
	return "2 deletions", r.holds(ctx, key, content(4, 400))
}
