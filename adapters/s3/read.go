package s3

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/streamhouse/streamhouse/ports"
)

// maxObject is more than any object of S3 has, in bytes.
const maxObject = 1 << 47

// ReadRange implements ports.SegmentStore.
func (s *Store) ReadRange(ctx context.Context, key string, position, length int64) ([]byte, error) {
	c := call{"read object " + key, "read", false}
	ctx, end, err := s.beginOn(ctx, c, key)
	if err != nil {
		return nil, err
	}
	defer end()
	if position < 0 || length < 0 {
		return nil, ports.StorageError(c.op, ports.Definite, ports.CheckRange(position, length, 0))
	}
	return read(ctx, s, c, func(ctx context.Context) ([]byte, error) {
		if length == 0 || position > maxObject || length > maxObject {
			// A range that cannot be asked for, or cannot be there.
			info, err := s.head(ctx, c, key)
			if err != nil {
				return nil, err
			}
			return []byte{}, c.checkRange(position, length, info.size)
		}
		return s.get(ctx, c, key, position, length, exactly)
	})
}

// ReadUpTo implements ports.SegmentStore.
func (s *Store) ReadUpTo(ctx context.Context, key string, position, length int64) ([]byte, error) {
	c := call{"read object " + key, "read", false}
	ctx, end, err := s.beginOn(ctx, c, key)
	if err != nil {
		return nil, err
	}
	defer end()
	if position < 0 || length < 1 {
		_, err := ports.ClipRange(position, length, 0)
		return nil, ports.StorageError(c.op, ports.Definite, err)
	}
	return read(ctx, s, c, func(ctx context.Context) ([]byte, error) {
		if position > maxObject {
			info, err := s.head(ctx, c, key)
			if err != nil {
				return nil, err
			}
			return nil, c.checkRange(position, 1, info.size)
		}
		return s.get(ctx, c, key, position, min(length, maxObject), upTo)
	})
}

// amount is how many bytes of an object of size bytes a read of a range wants.
type amount func(position, length, size int64) (int64, error)

// exactly wants all bytes of the range, upTo those that are there.
func exactly(position, length, size int64) (int64, error) {
	return length, ports.CheckRange(position, length, size)
}

func upTo(position, length, size int64) (int64, error) {
	return ports.ClipRange(position, length, size)
}

func (c call) checkRange(position, length, size int64) error {
	if err := ports.CheckRange(position, length, size); err != nil {
		return ports.StorageError(c.op, ports.Definite, err)
	}
	return nil
}

// get reads a range that is not empty, as much of it as wanted says.
func (s *Store) get(ctx context.Context, c call, key string, position, length int64, wanted amount) ([]byte, error) {
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{
		Bucket: &s.cfg.Bucket,
		Key:    aws.String(s.root + key),
		Range:  aws.String(fmt.Sprintf("bytes=%d-%d", position, position+length-1)),
	})
	if err != nil {
		if answerOf(err).status == http.StatusRequestedRangeNotSatisfiable {
			// The object ends at position or before: 0 is the bound that is sure.
			return nil, c.checkRange(position, length, position)
		}
		return nil, s.fail(ctx, c, err, true)
	}
	defer discard(out.Body)
	skip, length, err := c.checkAnswer(out, position, length, wanted)
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, out.Body, skip); err != nil {
		return nil, s.cut(ctx, c, err)
	}
	got := make([]byte, length)
	if _, err := io.ReadFull(out.Body, got); err != nil {
		return nil, s.cut(ctx, c, err)
	}
	return got, nil
}

// checkAnswer compares an answer with the range that was asked for, before any
// memory is taken for it, and returns how many bytes to pass over, and to read then. A server
// may answer with the whole object.
func (c call) checkAnswer(out *s3.GetObjectOutput, position, length int64, wanted amount) (skip, n int64, err error) {
	if aws.ToString(out.ETag) == "" {
		return 0, 0, c.oddError("an object without an ETag")
	}
	if statusOf(out) != http.StatusPartialContent {
		if out.ContentLength == nil {
			return 0, 0, c.oddError("an object without a length")
		}
		n, err := c.want(wanted, position, length, *out.ContentLength)
		return position, n, err
	}
	first, last, size, ok := parseContentRange(aws.ToString(out.ContentRange))
	if !ok || first != position {
		return 0, 0, c.oddError("range %.80q, asked were %d bytes at %d", aws.ToString(out.ContentRange), length, position)
	}
	if n, err = c.want(wanted, position, length, size); err != nil {
		return 0, 0, err
	}
	if got := last - first + 1; got != n || out.ContentLength != nil && *out.ContentLength != n {
		return 0, 0, c.oddError("range %.80q in %d bytes, asked were %d bytes at %d",
			aws.ToString(out.ContentRange), aws.ToInt64(out.ContentLength), length, position)
	}
	return 0, n, nil
}

func (c call) want(wanted amount, position, length, size int64) (int64, error) {
	n, err := wanted(position, length, size)
	if err != nil {
		return 0, ports.StorageError(c.op, ports.Definite, err)
	}
	return n, nil
}

func statusOf(out *s3.GetObjectOutput) int {
	if resp, ok := middleware.GetRawResponse(out.ResultMetadata).(*smithyhttp.Response); ok && resp != nil {
		return resp.StatusCode
	}
	return 0
}

// parseContentRange reads "bytes 0-99/1000".
func parseContentRange(s string) (first, last, size int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	if !ok {
		return 0, 0, 0, false
	}
	span, total, _ := strings.Cut(s, "/")
	from, to, _ := strings.Cut(span, "-")
	var errs [3]error
	first, errs[0] = strconv.ParseInt(from, 10, 64)
	last, errs[1] = strconv.ParseInt(to, 10, 64)
	size, errs[2] = strconv.ParseInt(total, 10, 64)
	ok = errors.Join(errs[:]...) == nil && 0 <= first && first <= last && last < size
	return first, last, size, ok
}

// discard ends a body of which nothing more is wanted, and its connection if
// there is more. What was read of it is complete, or told as an error already.
func discard(body io.Closer) { _ = body.Close() }

// cut is a body that ended early.
func (s *Store) cut(ctx context.Context, c call, err error) error {
	if ctx.Err() != nil {
		return s.endedError(ctx, c, false)
	}
	return ports.StorageError(c.op, ports.Transient, fmt.Errorf("the object's bytes from %s broke off: %w", s.place(), plain(err)))
}

// plain keeps the SDK's types from crossing the port.
func plain(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return io.ErrUnexpectedEOF
	}
	return errors.New(innermost(err))
}

// Stat implements ports.SegmentStore. If the server keeps no CRC32C of the object,
// as of one that somebody else has put there, it reads the object.
func (s *Store) Stat(ctx context.Context, key string) (ports.ObjectInfo, error) {
	c := call{"stat object " + key, "read", false}
	ctx, end, err := s.beginOn(ctx, c, key)
	if err != nil {
		return ports.ObjectInfo{}, err
	}
	defer end()
	return read(ctx, s, c, func(ctx context.Context) (ports.ObjectInfo, error) { return s.stat(ctx, c, key) })
}

func (s *Store) stat(ctx context.Context, c call, key string) (ports.ObjectInfo, error) {
	h, err := s.head(ctx, c, key)
	if err != nil {
		return ports.ObjectInfo{}, err
	}
	if !h.summed {
		if h.crc, err = s.checksum(ctx, c, key, h); err != nil {
			return ports.ObjectInfo{}, err
		}
	}
	return ports.ObjectInfo{Key: key, Size: h.size, CRC32C: h.crc, ModifiedUnixMilli: h.modified}, nil
}

// head is what HEAD tells of an object.
type head struct {
	size     int64
	modified int64
	etag     string
	crc      uint32
	summed   bool // crc is known
}

func (s *Store) head(ctx context.Context, c call, key string) (head, error) {
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{
		Bucket: &s.cfg.Bucket, Key: aws.String(s.root + key), ChecksumMode: types.ChecksumModeEnabled,
	})
	if err != nil {
		if status := answerOf(err).status; status/100 == 3 || status/100 == 4 {
			return head{}, s.explain(ctx, c, key, err)
		}
		return head{}, s.fail(ctx, c, err, true)
	}
	if out.ContentLength == nil || out.LastModified == nil || aws.ToString(out.ETag) == "" {
		return head{}, c.oddError("an object without a length, a time or an ETag")
	}
	h := head{size: *out.ContentLength, modified: out.LastModified.UnixMilli(), etag: *out.ETag}
	if out.ChecksumType != types.ChecksumTypeComposite {
		h.crc, h.summed = decodeCRC(out.ChecksumCRC32C)
	}
	return h, nil
}

// explain finds out why HEAD was refused: its answer has no body that could tell
// a missing object from a missing bucket. A GET's has.
func (s *Store) explain(ctx context.Context, c call, key string, err error) error {
	out, getErr := s.client.GetObject(ctx, &s3.GetObjectInput{
		Bucket: &s.cfg.Bucket, Key: aws.String(s.root + key), Range: aws.String("bytes=0-0"),
	})
	switch {
	case getErr == nil:
		discard(out.Body)
		return c.oddError("%v to HEAD, and the object to GET", answerOf(err))
	case answerOf(getErr).status == http.StatusRequestedRangeNotSatisfiable:
		return c.oddError("%v to HEAD, and an empty object to GET", answerOf(err))
	}
	return s.fail(ctx, c, getErr, true)
}

// checksum reads the object that h describes.
func (s *Store) checksum(ctx context.Context, c call, key string, h head) (uint32, error) {
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.cfg.Bucket, Key: aws.String(s.root + key)})
	if err != nil {
		return 0, s.fail(ctx, c, err, true)
	}
	defer discard(out.Body)
	if aws.ToString(out.ETag) != h.etag || aws.ToInt64(out.ContentLength) != h.size {
		return 0, c.oddError("one object to HEAD and another one to GET")
	}
	sum := crc32.New(castagnoli)
	if _, err := io.CopyN(sum, out.Body, h.size); err != nil {
		return 0, s.cut(ctx, c, err)
	}
	return sum.Sum32(), nil
}
