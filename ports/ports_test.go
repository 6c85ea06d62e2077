package ports_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

func TestKindOf_IsThatOfTheOutermostPortError(t *testing.T) {
	for _, kind := range []ports.Kind{ports.Ambiguous, ports.Transient, ports.Definite, ports.Fatal} {
		err := ports.MetadataError("commit", kind, domain.ErrClosed)
		if got := ports.KindOf(fmt.Errorf("flush: %w", err)); got != kind {
			t.Errorf("kind is %s, want %s", got, kind)
		}
		outer := ports.StorageError("put", ports.Transient, err)
		if got := ports.KindOf(outer); got != ports.Transient {
			t.Errorf("kind is %s, want transient", got)
		}
	}
}

func TestKindOf_FollowsTheFateOfDomainErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want ports.Kind
	}{
		{domain.ErrTopicNotFound, ports.Definite},
		{&domain.TopicExistsError{Topic: "orders"}, ports.Definite},
		{&domain.ConfigError{Field: "partitions"}, ports.Definite},
		{domain.ErrClosed, ports.Definite},
		{domain.ErrFenced, ports.Definite},
		{domain.ErrBufferFull, ports.Transient},
		{domain.ErrOutOfOrder, ports.Transient},
		{domain.ErrOutcomeUnknown, ports.Ambiguous},
		{domain.ErrMetadata, ports.Ambiguous},
		{domain.ErrOffsetUnknown, ports.Ambiguous},
	} {
		if got := ports.KindOf(fmt.Errorf("call: %w", c.err)); got != c.want {
			t.Errorf("kind of %v is %s, want %s", c.err, got, c.want)
		}
	}
}

// What nobody declared may have happened: a definite answer here would lose or
// repeat records.
func TestKindOf_IsAmbiguousForAllElse(t *testing.T) {
	for _, err := range []error{io.EOF, context.Canceled, context.DeadlineExceeded, errors.New("x"), &ports.Error{Err: io.EOF}} {
		if got := ports.KindOf(err); got != ports.Ambiguous {
			t.Errorf("kind of %v is %s", err, got)
		}
	}
}

func TestError_MatchesClassAndCauseAndSaysWhatWasTried(t *testing.T) {
	for _, c := range []struct {
		err   error
		class error
	}{
		{ports.MetadataError("commit segment 7", ports.Transient, io.ErrShortWrite), domain.ErrMetadata},
		{ports.StorageError("put object a/b", ports.Transient, io.ErrShortWrite), domain.ErrStorage},
	} {
		if !errors.Is(c.err, c.class) || !errors.Is(c.err, io.ErrShortWrite) {
			t.Errorf("%v does not match its class and cause", c.err)
		}
		var e *ports.Error
		if !errors.As(c.err, &e) || !strings.Contains(c.err.Error(), e.Op) {
			t.Errorf("%v does not say what was tried", c.err)
		}
	}
}

func TestError_FateFollowsItsKind(t *testing.T) {
	for kind, want := range map[ports.Kind]domain.Fate{
		ports.Transient: {Stored: domain.StoredNo, Retry: true},
		ports.Definite:  {Stored: domain.StoredNo},
		ports.Fatal:     {Fatal: true},
		ports.Ambiguous: {Retry: true},
	} {
		if got := domain.FateOf(ports.MetadataError("commit", kind, io.EOF)); got != want {
			t.Errorf("fate of a %s error is %+v, want %+v", kind, got, want)
		}
	}
}

func TestCheckObjectKey_RefusesWhatCouldLeadElsewhere(t *testing.T) {
	for _, key := range []string{"segments/0f/0190b3a4-0000-7000-8000-000000000000", "a", "a/b/c", "-", strings.Repeat("a", 255)} {
		if err := ports.CheckObjectKey(key); err != nil {
			t.Errorf("%q is refused: %v", key, err)
		}
	}
	bad := []string{
		"", "/", "/a", "a/", "a//b", "..", "../a", "a/../b", "a/./b", "A", "a b", "a\\b", "a\x00", "a\n", "%2e", "a.b", "é",
		strings.Repeat("a", 256), strings.Repeat("x", 1<<20),
	}
	for _, key := range bad {
		if err := ports.CheckObjectKey(key); err == nil || len(err.Error()) > 400 {
			t.Errorf("%.40q is answered %.400v", key, err)
		}
	}
}

func TestCheckRange_TellsShortObjectsFromBadCalls(t *testing.T) {
	for _, c := range []struct{ position, length, size int64 }{{0, 0, 0}, {0, 10, 10}, {10, 0, 10}, {3, 7, 10}, {0, math.MaxInt64, math.MaxInt64}} {
		if err := ports.CheckRange(c.position, c.length, c.size); err != nil {
			t.Errorf("%+v is refused: %v", c, err)
		}
	}
	for _, c := range []struct{ position, length, size int64 }{{0, 11, 10}, {11, 0, 10}, {4, 7, 10}, {1, math.MaxInt64, 10}, {math.MaxInt64, math.MaxInt64, 10}} {
		if err := ports.CheckRange(c.position, c.length, c.size); !errors.Is(err, domain.ErrCorrupt) {
			t.Errorf("%+v is answered %v, want corrupt data", c, err)
		}
	}
	for _, c := range []struct{ position, length int64 }{{-1, 1}, {1, -1}, {math.MinInt64, math.MinInt64}} {
		if err := ports.CheckRange(c.position, c.length, 10); err == nil || errors.Is(err, domain.ErrCorrupt) {
			t.Errorf("%+v is answered %v, want a refusal", c, err)
		}
	}
}
