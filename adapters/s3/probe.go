package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"time"

	"github.com/streamhouse/streamhouse/ports"
)

const (
	probeFolder = "probe/"
	// probeCleanup bounds the removal of a probe's object after its context ended.
	probeCleanup = 10 * time.Second
	// probeLeft is the age at which the object of a probe is one that was killed before it could delete it.
	probeLeft = 24 * time.Hour
	// listedProbes is how many objects a probe looks at.
	listedProbes = 100
)

// Probe finds out whether the bucket can serve: it puts an object under the key
// "probe/<random>", demands that a second Put of the key is refused and changes nothing, reads,
// stats and lists the object, and deletes it. Objects that probes have left that were killed go a
// day later, with the next probe. The error says in one sentence what is wrong and how to mend it.
func (s *Store) Probe(ctx context.Context) (err error) {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	p := probe{store: s, key: probeFolder + hex.EncodeToString(id[:])}
	p.first, p.second = []byte("first "+p.key), []byte("second "+p.key)
	if err := p.create(ctx); err != nil {
		if ports.KindOf(err) == ports.Ambiguous {
			p.remove(ctx)
		}
		return p.failed(err)
	}
	if err := p.examine(ctx); err != nil {
		p.remove(ctx)
		return p.failed(err)
	}
	if err := s.Delete(ctx, p.key); err != nil {
		return p.failed(err)
	}
	p.tidy(ctx)
	return nil
}

// tidy deletes what earlier probes have left. What cannot be deleted now is
// left to the next probe: it harms nobody. The age only decides whose open fails: a probe that
// is a day under way would miss its object and refuse the bucket. No segment has such a key.
func (p *probe) tidy(ctx context.Context) {
	page, err := p.store.List(ctx, probeFolder, listedProbes)
	if err != nil {
		return
	}
	before := time.Now().Add(-probeLeft).UnixMilli()
	for _, o := range page {
		name, ours := strings.CutPrefix(o.Key, probeFolder)
		if !ours {
			return
		}
		if len(o.Key) == len(p.key) && isHex(name) && o.ModifiedUnixMilli < before {
			_ = p.store.Delete(ctx, o.Key)
		}
	}
}

func isHex(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil
}

type probe struct {
	store         *Store
	key           string
	first, second []byte
}

func (p *probe) failed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("probe bucket %s: %w", p.store.cfg.Bucket, err)
}

// create puts the first object. A failure that may be over in a moment, as while
// the server starts, is tried again; so is one by the clock, as the SDK has learnt the server's.
func (p *probe) create(ctx context.Context) error {
	for n := 1; ; n++ {
		err := p.store.Put(ctx, p.key, p.first)
		if err == nil || n > 1 && errors.Is(err, ports.ErrObjectExists) {
			return nil // the second: an earlier attempt's, whose answer was lost
		}
		if kind := ports.KindOf(err); n == readAttempts || ctx.Err() != nil || kind != ports.Transient && kind != ports.Ambiguous {
			return err
		}
		pause(ctx, n)
	}
}

// remove deletes the object, as well as it can be: the probe has failed already.
func (p *probe) remove(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeCleanup)
	defer cancel()
	_ = p.store.Delete(ctx, p.key)
}

// examine looks at the object from all sides.
func (p *probe) examine(ctx context.Context) error {
	if err := p.exclusive(ctx); err != nil {
		return err
	}
	info, err := p.store.Stat(ctx, p.key)
	if err != nil {
		return err
	}
	if info.Size != int64(len(p.first)) || info.CRC32C != crc32.Checksum(p.first, castagnoli) {
		return p.refuse("says that an object of %d bytes has %d, or another checksum: use a server that keeps objects whole", len(p.first), info.Size)
	}
	// No key is between the two.
	listed, err := p.store.List(ctx, p.key[:len(p.key)-1], listedProbes)
	if err != nil {
		return err
	}
	for _, o := range listed {
		if o.Key == p.key {
			return nil
		}
	}
	return p.refuse("does not list an object that was just put: use a server with consistent listings")
}

// exclusive demands that a second Put is refused and the first one's bytes stay.
func (p *probe) exclusive(ctx context.Context) error {
	err := p.store.Put(ctx, p.key, p.second)
	if err == nil {
		return p.ignoresCondition()
	}
	if !errors.Is(err, ports.ErrObjectExists) {
		return err
	}
	got, err := p.store.ReadRange(ctx, p.key, 0, int64(len(p.first)))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, p.first) {
		return p.ignoresCondition()
	}
	return nil
}

func (p *probe) ignoresCondition() error {
	return p.refuse("ignores If-None-Match: a second PUT of a key replaced the first object, so two writers could destroy each other's segments; " +
		"use a server with conditional writes, or accept the danger with unsafe_skip_probe=true (UnsafeSkipConditionalPutProbe)")
}

func (p *probe) refuse(format string, args ...any) error {
	return ports.StorageError("put object "+p.key, ports.Definite, fmt.Errorf(p.store.place()+" "+format, args...))
}
