package memory

import (
	"context"
	"fmt"
	"hash/crc32"
	"slices"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/ports"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Segments is a segment store in memory. What it holds ends with the process;
// within it, it is as strict as the durable stores.
type Segments struct {
	mu      sync.RWMutex
	objects map[string]object
	keys    []string // sorted
}

// object is immutable: its body is never written again.
type object struct {
	body    []byte
	crc     uint32
	created int64
}

var _ ports.SegmentStore = (*Segments)(nil)

// NewSegments makes an empty store.
func NewSegments() *Segments {
	return &Segments{objects: make(map[string]object)}
}

// Put implements ports.SegmentStore.
func (s *Segments) Put(ctx context.Context, key string, body []byte) error {
	op := "put object " + key
	if err := ready(ctx, op, key); err != nil {
		return err
	}
	o := object{body: slices.Clone(body), crc: crc32.Checksum(body, castagnoli), created: time.Now().UnixMilli()}

	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.objects[key]; taken {
		return ports.StorageError(op, ports.Definite, ports.ErrObjectExists)
	}
	s.objects[key] = o
	at, _ := slices.BinarySearch(s.keys, key)
	s.keys = slices.Insert(s.keys, at, key)
	return nil
}

// ReadRange implements ports.SegmentStore.
func (s *Segments) ReadRange(ctx context.Context, key string, position, length int64) ([]byte, error) {
	return s.read(ctx, key, position, func(size int64) (int64, error) { return length, ports.CheckRange(position, length, size) })
}

// ReadUpTo implements ports.SegmentStore.
func (s *Segments) ReadUpTo(ctx context.Context, key string, position, length int64) ([]byte, error) {
	return s.read(ctx, key, position, func(size int64) (int64, error) { return ports.ClipRange(position, length, size) })
}

// read copies as many bytes as wanted says of an object of that size.
func (s *Segments) read(ctx context.Context, key string, position int64, wanted func(size int64) (int64, error)) ([]byte, error) {
	op := "read object " + key
	if err := ready(ctx, op, key); err != nil {
		return nil, err
	}
	o, err := s.find(op, key)
	if err != nil {
		return nil, err
	}
	length, err := wanted(int64(len(o.body)))
	if err != nil {
		return nil, ports.StorageError(op, ports.Definite, err)
	}
	return append(make([]byte, 0, length), o.body[position:position+length]...), nil
}

// Stat implements ports.SegmentStore.
func (s *Segments) Stat(ctx context.Context, key string) (ports.ObjectInfo, error) {
	op := "stat object " + key
	if err := ready(ctx, op, key); err != nil {
		return ports.ObjectInfo{}, err
	}
	o, err := s.find(op, key)
	if err != nil {
		return ports.ObjectInfo{}, err
	}
	return ports.ObjectInfo{Key: key, Size: int64(len(o.body)), CRC32C: o.crc, ModifiedUnixMilli: o.created}, nil
}

// Delete implements ports.SegmentStore.
func (s *Segments) Delete(ctx context.Context, key string) error {
	if err := ready(ctx, "delete object "+key, key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, key)
	if at, found := slices.BinarySearch(s.keys, key); found {
		s.keys = slices.Delete(s.keys, at, at+1)
	}
	return nil
}

// List implements ports.SegmentStore.
func (s *Segments) List(ctx context.Context, after string, limit int) ([]ports.ObjectInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, ports.StorageError(fmt.Sprintf("list objects after %q", after), ports.Transient, err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	at, found := slices.BinarySearch(s.keys, after)
	if found {
		at++
	}
	page := s.keys[at:min(len(s.keys), at+max(0, min(limit, len(s.keys))))]
	infos := make([]ports.ObjectInfo, len(page))
	for i, key := range page {
		o := s.objects[key]
		infos[i] = ports.ObjectInfo{Key: key, Size: int64(len(o.body)), ModifiedUnixMilli: o.created}
	}
	return infos, nil
}

func (s *Segments) find(op, key string) (object, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	o, found := s.objects[key]
	if !found {
		return object{}, ports.StorageError(op, ports.Definite, ports.ErrObjectNotFound)
	}
	return o, nil
}

// ready refuses a call that should not begin: its context is over, or its key
// cannot be one.
func ready(ctx context.Context, op, key string) error {
	if err := ports.CheckObjectKey(key); err != nil {
		return ports.StorageError(op, ports.Definite, err)
	}
	if err := ctx.Err(); err != nil {
		return ports.StorageError(op, ports.Transient, err)
	}
	return nil
}
