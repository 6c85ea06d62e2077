package ports

import (
	"context"
	"fmt"
	"strings"

	"github.com/streamhouse/streamhouse/domain"
)

// MaxObjectKeyBytes is the longest key of an object.
const MaxObjectKeyBytes = 255

// SegmentStore keeps immutable objects under keys of the form
// "segments/0f/0190...": relative, slash separated, made of [a-z0-9/-], see
// CheckObjectKey. A call with another key, or with a negative range, is a Definite error.
type SegmentStore interface {
	// Put creates the object key with the bytes body. When it returns nil the
	// object is durable and complete. It never replaces an object: among any number of
	// racing Puts of one key, in any processes, exactly one succeeds. Body is not read after Put
	// has returned.
	//
	// ErrObjectExists (Definite): the key is taken, perhaps by an earlier attempt of the
	// same Put; Stat tells. Transient: nothing was created, such as when the disk is
	// full. Ambiguous: the object may exist or appear later; the same Put again is safe.
	Put(ctx context.Context, key string, body []byte) error

	// ReadRange returns length bytes from position on. The slice is the
	// caller's.
	//
	// ErrObjectNotFound (Definite): there is no such object. domain.ErrCorrupt: it ends
	// before position+length.
	ReadRange(ctx context.Context, key string, position, length int64) ([]byte, error)

	// ReadUpTo is ReadRange for who does not know where the object ends: it
	// returns length bytes from position on, or, where there are fewer, all of them. Length is
	// above 0. The slice is the caller's.
	//
	// ErrObjectNotFound (Definite): there is no such object. domain.ErrCorrupt: it has
	// no byte at position.
	ReadUpTo(ctx context.Context, key string, position, length int64) ([]byte, error)

	// Stat returns size and CRC32C of the object as it is stored.
	// ErrObjectNotFound if there is none.
	Stat(ctx context.Context, key string) (ObjectInfo, error)

	// Delete removes the object, durably. A missing object is a success.
	Delete(ctx context.Context, key string) error

	// List returns up to limit objects whose keys are greater than after, in
	// key order. Remains of unfinished Puts are not listed.
	List(ctx context.Context, after string, limit int) ([]ObjectInfo, error)
}

// ObjectInfo describes a stored object.
type ObjectInfo struct {
	Key  string
	Size int64
	// CRC32C covers all bytes of the object. List leaves it 0.
	CRC32C uint32
	// ModifiedUnixMilli is when the object was created, on the store's clock.
	ModifiedUnixMilli int64
}

// CheckObjectKey accepts what SegmentStore calls a key, and so nothing that
// could lead out of a store's folder or bucket prefix.
func CheckObjectKey(key string) error {
	bad := len(key) > MaxObjectKeyBytes
	for part := range strings.SplitSeq(key, "/") {
		bad = bad || part == "" || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789-") != ""
	}
	if bad {
		return fmt.Errorf("object key %.80q: want at most %d bytes of a-z 0-9 - in parts between single slashes", key, MaxObjectKeyBytes)
	}
	return nil
}

// CheckRange reports a range that an object of size bytes does not have:
// domain.ErrCorrupt if the object ends too early, since nobody asks for bytes that were
// never written.
func CheckRange(position, length, size int64) error {
	if position < 0 || length < 0 {
		return fmt.Errorf("range of %d bytes at %d: want neither to be negative", length, position)
	}
	if position > size || length > size-position {
		return &domain.CorruptError{What: fmt.Sprintf("object ends at %d, before the range of %d bytes at %d", size, length, position)}
	}
	return nil
}

// ClipRange returns how many bytes of a range for ReadUpTo an object of size bytes
// has, at least one. Errors are those of CheckRange.
func ClipRange(position, length, size int64) (int64, error) {
	if position < 0 || length < 1 {
		return 0, fmt.Errorf("range of up to %d bytes at %d: want a byte or more, from 0 on", length, position)
	}
	if err := CheckRange(position, 1, size); err != nil {
		return 0, err
	}
	return min(length, size-position), nil
}

// Forgetter is a SegmentStore that keeps bytes of objects in memory. Who finds what
// it was given to be damaged tells it so, and reads again: the store below may be well, and what
// passes must not become lasting by being kept.
type Forgetter interface {
	// Forget drops what is kept of the object key.
	Forget(key string)
}
