package s3

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/streamhouse/streamhouse/ports"
)

// raceAttempts is how often a Put asks whether the other one that was under way
// has won.
const raceAttempts = 3

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Put implements ports.SegmentStore. It sends the object once, see the package
// for what follows from its errors.
func (s *Store) Put(ctx context.Context, key string, object []byte) error {
	c := call{"put object " + key, "write", true}
	ctx, end, err := s.beginOn(ctx, c, key)
	if err != nil {
		return err
	}
	defer end()
	sum := encodeCRC(crc32.Checksum(object, castagnoli))
	for n := 1; ; n++ {
		err := s.put(ctx, c, key, object, sum)
		if n == raceAttempts || !isRace(err) {
			return err
		}
		if pause(ctx, n); ctx.Err() != nil {
			return s.endedError(ctx, c, false) // the 409 said that nothing has landed
		}
	}
}

// put makes one attempt.
func (s *Store) put(ctx context.Context, c call, key string, object []byte, sum string) error {
	var sent atomic.Bool
	b := newBody(object)
	defer b.release()
	out, err := s.client.PutObject(traced(ctx, &sent), &s3.PutObjectInput{
		Bucket:            &s.cfg.Bucket,
		Key:               aws.String(s.root + key),
		Body:              b,
		ContentLength:     aws.Int64(int64(len(object))),
		IfNoneMatch:       aws.String("*"),
		ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c,
		ChecksumCRC32C:    &sum,
	})
	switch {
	case err != nil:
		return s.fail(ctx, c, err, sent.Load())
	case aws.ToString(out.ETag) == "":
		return c.oddError("it accepts the object, and gives no ETag")
	case out.ChecksumCRC32C != nil && *out.ChecksumCRC32C != sum:
		return c.oddError("it gives checksum %.20q to an object with %q", *out.ChecksumCRC32C, sum)
	}
	return nil
}

// Delete implements ports.SegmentStore. It never asks for a condition: some
// servers ignore one.
func (s *Store) Delete(ctx context.Context, key string) error {
	c := call{"delete object " + key, "delete", true}
	ctx, end, err := s.beginOn(ctx, c, key)
	if err != nil {
		return err
	}
	defer end()
	var sent atomic.Bool
	_, err = s.client.DeleteObject(traced(ctx, &sent), &s3.DeleteObjectInput{Bucket: &s.cfg.Bucket, Key: aws.String(s.root + key)})
	if err == nil {
		return nil
	}
	err = s.fail(ctx, c, err, sent.Load())
	if errors.Is(err, ports.ErrObjectNotFound) {
		return nil
	}
	return err
}

// encodeCRC is the form of a CRC32C in headers.
func encodeCRC(crc uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc))
}

// decodeCRC reports false for what is not the CRC32C of a whole object: nothing,
// or that of parts ("...-3").
func decodeCRC(sum *string) (uint32, bool) {
	b, err := base64.StdEncoding.DecodeString(aws.ToString(sum))
	if err != nil || len(b) != crc32.Size {
		return 0, false
	}
	return binary.BigEndian.Uint32(b), true
}

// jittered draws from the upper half of d.
func jittered(d time.Duration) time.Duration {
	return d - rand.N(d/2)
}
