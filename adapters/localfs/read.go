package localfs

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// readChunk is how much is read between two looks at the context.
const readChunk = 1 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ReadRange implements ports.SegmentStore.
func (s *Store) ReadRange(ctx context.Context, key string, position, length int64) ([]byte, error) {
	return s.read(ctx, key, position, func(size int64) (int64, error) { return length, ports.CheckRange(position, length, size) })
}

// ReadUpTo implements ports.SegmentStore.
func (s *Store) ReadUpTo(ctx context.Context, key string, position, length int64) ([]byte, error) {
	return s.read(ctx, key, position, func(size int64) (int64, error) { return ports.ClipRange(position, length, size) })
}

// read reads from position on as many bytes as most allows of an object of the
// size that it is told.
func (s *Store) read(ctx context.Context, key string, position int64, most func(size int64) (int64, error)) ([]byte, error) {
	op := "read object " + key
	if err := s.ready(ctx, op, key); err != nil {
		return nil, err
	}
	f, info, err := s.openObject(key)
	if err != nil {
		return nil, s.fail(op, err)
	}
	defer f.Close()
	length, err := most(info.Size())
	if err != nil {
		return nil, ports.StorageError(op, ports.Definite, err)
	}
	buf := make([]byte, length)
	for done := int64(0); done < length; {
		n, err := f.ReadAt(buf[done:min(length, done+readChunk)], position+done)
		done += int64(n)
		if err == nil && ctx.Err() != nil {
			err = ctx.Err()
		}
		if err != nil && done < length {
			return nil, s.fail(op, truncated(err, position+done))
		}
	}
	return buf, nil
}

// Stat implements ports.SegmentStore. It reads the whole object.
func (s *Store) Stat(ctx context.Context, key string) (ports.ObjectInfo, error) {
	op := "stat object " + key
	if err := s.ready(ctx, op, key); err != nil {
		return ports.ObjectInfo{}, err
	}
	f, info, err := s.openObject(key)
	if err != nil {
		return ports.ObjectInfo{}, s.fail(op, err)
	}
	defer f.Close()
	crc, err := checksum(ctx, f, info.Size())
	if err != nil {
		return ports.ObjectInfo{}, s.fail(op, err)
	}
	return ports.ObjectInfo{Key: key, Size: info.Size(), CRC32C: crc, ModifiedUnixMilli: info.ModTime().UnixMilli()}, nil
}

func checksum(ctx context.Context, f *os.File, size int64) (uint32, error) {
	crc := uint32(0)
	buf := make([]byte, min(size, readChunk))
	for at := int64(0); at < size; {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		n, err := f.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		crc = crc32.Update(crc, castagnoli, buf[:n])
		at += int64(n)
		if err != nil && at < size {
			return 0, truncated(err, at)
		}
	}
	return crc, nil
}

// openObject opens the file of key. What is there but is no file cannot be an
// object.
func (s *Store) openObject(key string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(s.path(key), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil, fmt.Errorf("%w: %w", ports.ErrObjectNotFound, err)
	}
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is not a file", ports.ErrObjectNotFound, f.Name())
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// truncated turns the end of a file that was longer a moment ago into what it
// means.
func truncated(err error, at int64) error {
	if errors.Is(err, io.EOF) {
		return &domain.CorruptError{What: fmt.Sprintf("object was cut to %d bytes while it was read", at)}
	}
	return err
}
