package s3

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/streamhouse/streamhouse/ports"
)

// listPage is the most that S3 gives at once.
const listPage = 1000

// List implements ports.SegmentStore. Objects below the prefix whose names cannot
// be keys are passed over.
func (s *Store) List(ctx context.Context, after string, limit int) ([]ports.ObjectInfo, error) {
	c := call{fmt.Sprintf("list objects after %.80q", after), "list", false}
	ctx, end, err := s.begin(ctx, c)
	if err != nil {
		return nil, err
	}
	defer end()
	l := lister{store: s, call: c, after: startAfter(after), limit: limit}
	for !l.done() {
		page, err := read(ctx, s, c, l.page)
		if err != nil {
			return nil, err
		}
		if err := l.take(page); err != nil {
			return nil, err
		}
	}
	return l.found, nil
}

// lister collects the pages of a List.
type lister struct {
	store *Store
	call  call
	after string // what comes next is greater
	limit int
	token *string // the server's, of the next page
	ended bool
	found []ports.ObjectInfo
}

func (l *lister) done() bool { return l.ended || len(l.found) >= l.limit }

func (l *lister) page(ctx context.Context) (*s3.ListObjectsV2Output, error) {
	s := l.store
	in := &s3.ListObjectsV2Input{
		Bucket:            &s.cfg.Bucket,
		EncodingType:      types.EncodingTypeUrl, // foreign keys may be what XML cannot say
		MaxKeys:           aws.Int32(int32(min(l.limit-len(l.found), listPage))),
		ContinuationToken: l.token,
	}
	if s.root != "" {
		in.Prefix = &s.root
	}
	if start := s.root + l.after; l.token == nil && start != "" {
		in.StartAfter = &start
	}
	out, err := s.client.ListObjectsV2(ctx, in)
	if err != nil {
		return nil, s.fail(ctx, l.call, err, true)
	}
	if out.Name == nil && out.KeyCount == nil && out.Prefix == nil && out.IsTruncated == nil {
		return nil, l.call.oddError("no listing")
	}
	return out, nil
}

// take adds a page to what was found.
func (l *lister) take(page *s3.ListObjectsV2Output) error {
	for i := range page.Contents {
		o := &page.Contents[i]
		full := aws.ToString(o.Key)
		if page.EncodingType == types.EncodingTypeUrl {
			if plain, err := url.QueryUnescape(full); err == nil {
				full = plain
			}
		}
		key, ours := strings.CutPrefix(full, l.store.root)
		if !ours || ports.CheckObjectKey(key) != nil || l.done() {
			continue
		}
		if key <= l.after {
			return ports.StorageError(l.call.op, ports.Definite, fmt.Errorf(
				"%s lists %q after %q: it does not list in the order of keys, as directory buckets do not; use a general purpose bucket",
				l.store.place(), key, l.after))
		}
		if o.Size == nil || o.LastModified == nil {
			return l.call.oddError("an object without a size or a time")
		}
		l.found = append(l.found, ports.ObjectInfo{Key: key, Size: *o.Size, ModifiedUnixMilli: o.LastModified.UnixMilli()})
		l.after = key
	}
	return l.turn(page)
}

// turn goes on to the next page.
func (l *lister) turn(page *s3.ListObjectsV2Output) error {
	if !aws.ToBool(page.IsTruncated) {
		l.ended = true
		return nil
	}
	next := page.NextContinuationToken
	if aws.ToString(next) == "" || l.token != nil && *next == *l.token {
		return l.call.oddError("a listing that goes on nowhere")
	}
	l.token = next
	return nil
}

// startAfter returns a string without strange bytes after which the same keys
// come as after s. Keys are of "-", "/", digits and small letters, which rise in this order.
func startAfter(s string) string {
	s = s[:min(len(s), ports.MaxObjectKeyBytes)] // no key is longer
	for i := range len(s) {
		b := s[i]
		switch {
		case b == '-' || b == '/' || '0' <= b && b <= '9' || 'a' <= b && b <= 'z':
			continue
		case b < '-': // before all that go on from here
			return s[:i]
		case b > 'z': // behind them
			return s[:i] + "~"
		default:
			return s[:i+1]
		}
	}
	return s
}
