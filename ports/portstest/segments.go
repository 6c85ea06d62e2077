package portstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// TestSegmentStore holds the stores that open returns to the contract of
// ports.SegmentStore. Open makes an empty store and arranges that it is removed at the end of
// t. It is called once a case.
func TestSegmentStore(t *testing.T, open func(t testing.TB) ports.SegmentStore) {
	cases := []struct {
		name string
		run  func(*segmentsUnderTest)
	}{
		{"Put_StoresTheBytesUnderTheKey", putStores},
		{"Put_StoresAnEmptyObject", putEmpty},
		{"Put_StoresALargeObject", putLarge},
		{"Put_DoesNotKeepTheBody", putCopies},
		{"Put_NeverReplacesAnObject", putNeverReplaces},
		{"Put_OfOneKeyHasOneWinnerAmongMany", putRace},
		{"Put_OfManyKeysAtOnce", putManyAtOnce},
		{"Put_WithAnEndedContextStoresNothing", putCancelled},
		{"EveryCall_RefusesAKeyThatIsNone", badKeys},
		{"EveryCall_ObeysAnEndedContext", callsCancelled},
		{"ReadRange_ReturnsAnyRangeOfTheObject", readRanges},
		{"ReadRange_PastTheEndIsCorruption", readPastEnd},
		{"ReadRange_RefusesNegativeRanges", readNegative},
		{"ReadRange_GivesTheSliceAway", readOwned},
		{"ReadUpTo_ReturnsWhatThereIsOfTheRange", readUpTo},
		{"ReadUpTo_OfNothingIsAnError", readUpToNothing},
		{"MissingObject_IsSaidToBeMissing", missing},
		{"Stat_GivesSizeChecksumAndTime", stat},
		{"Delete_RemovesTheObjectAndFreesTheKey", deleteRemoves},
		{"Delete_OfAMissingObjectSucceeds", deleteMissing},
		{"List_GivesPagesInKeyOrder", listPages},
		{"List_StartsAfterAnyString", listAfter},
		{"List_OfNothingOrForNothingIsEmpty", listEmpty},
		{"List_ShowsOnlyWholeObjectsWhilePutsRun", listWhilePutting},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.run(&segmentsUnderTest{T: t, SegmentStore: open(t)}) })
	}
}

// segmentsUnderTest is a store and the test it serves. Its own methods end the
// test when a call fails.
type segmentsUnderTest struct {
	*testing.T
	ports.SegmentStore
}

func (s *segmentsUnderTest) put(key string, body []byte) {
	s.Helper()
	if err := s.Put(s.Context(), key, body); err != nil {
		s.Fatalf("put %s: %v", key, err)
	}
}

// holds demands that the object key has exactly the bytes want.
func (s *segmentsUnderTest) holds(key string, want []byte) {
	s.Helper()
	info, err := s.Stat(s.Context(), key)
	if err != nil {
		s.Fatalf("stat %s: %v", key, err)
	}
	if info.Size != int64(len(want)) || info.CRC32C != crcOf(want) || info.Key != key {
		s.Fatalf("stat of %s is %+v, want %d bytes with checksum %08x", key, info, len(want), crcOf(want))
	}
	got, err := s.ReadRange(s.Context(), key, 0, info.Size)
	if err != nil || !bytes.Equal(got, want) {
		s.Fatalf("%s holds %d other bytes (%v)", key, len(got), err)
	}
}

// fails demands an error of the kind that matches all targets.
func (s *segmentsUnderTest) fails(what string, err error, kind ports.Kind, targets ...error) {
	s.Helper()
	if err == nil || ports.KindOf(err) != kind {
		s.Errorf("%s: error is %v, want a %s one", what, err, kind)
		return
	}
	for _, target := range append(targets, domain.ErrStorage) {
		if !errors.Is(err, target) {
			s.Errorf("%s: error is %v, want one that matches %v", what, err, target)
		}
	}
}

func (s *segmentsUnderTest) list(after string, limit int) []string {
	s.Helper()
	infos, err := s.List(s.Context(), after, limit)
	if err != nil {
		s.Fatalf("list after %q: %v", after, err)
	}
	keys := make([]string, len(infos))
	for i, info := range infos {
		keys[i] = info.Key
	}
	return keys
}

func (s *segmentsUnderTest) ended() context.Context {
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	return ctx
}

// segmentKey spreads keys over shards as those of segments are.
func segmentKey(i int) string {
	return fmt.Sprintf("segments/%02x/0190b3a4-0000-7000-8000-%012x", i*7%11, i)
}

// segmentBody is n bytes that tell seeds apart everywhere.
func segmentBody(seed, n int) []byte {
	body := make([]byte, n)
	x := uint32(seed)*2654435761 + 1
	for i := range body {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		body[i] = byte(x)
	}
	return body
}

func crcOf(body []byte) uint32 { return crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)) }

func putStores(s *segmentsUnderTest) {
	for i := range 20 {
		s.put(segmentKey(i), segmentBody(i, 100+i))
	}
	for i := range 20 {
		s.holds(segmentKey(i), segmentBody(i, 100+i))
	}
	s.put("a", []byte("short key"))
	s.holds("a", []byte("short key"))
	long := strings.Repeat("k", ports.MaxObjectKeyBytes)
	s.put(long, []byte("long key"))
	s.holds(long, []byte("long key"))
}

func putEmpty(s *segmentsUnderTest) {
	s.put("segments/00/empty", nil)
	s.holds("segments/00/empty", []byte{})
}

func putLarge(s *segmentsUnderTest) {
	body := segmentBody(3, 9<<20+1)
	s.put("segments/00/large", body)
	s.holds("segments/00/large", body)
}

func putCopies(s *segmentsUnderTest) {
	body := segmentBody(1, 1000)
	s.put("segments/00/copied", body)
	clear(body)
	s.holds("segments/00/copied", segmentBody(1, 1000))
}

func putNeverReplaces(s *segmentsUnderTest) {
	const key = "segments/0a/taken"
	s.put(key, []byte("first"))
	for _, body := range []string{"first", "second", ""} {
		s.fails("put "+body, s.Put(s.Context(), key, []byte(body)), ports.Definite, ports.ErrObjectExists)
	}
	s.holds(key, []byte("first"))
}

func putCancelled(s *segmentsUnderTest) {
	const key = "segments/0a/late"
	s.fails("put", s.Put(s.ended(), key, []byte("x")), ports.Transient, context.Canceled)
	if got := s.list("", 10); len(got) != 0 {
		s.Errorf("a put that never began left %q", got)
	}
}

func badKeys(s *segmentsUnderTest) {
	keys := []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", ".tmp/a", "a.b", "A", "a b", "a\\b", "a\x00b", "a\nb", "a%2f", "é",
		strings.Repeat("k", ports.MaxObjectKeyBytes+1),
	}
	for _, key := range keys {
		what := fmt.Sprintf("key %.20q", key)
		_, statErr := s.Stat(s.Context(), key)
		_, readErr := s.ReadRange(s.Context(), key, 0, 1)
		_, upToErr := s.ReadUpTo(s.Context(), key, 0, 1)
		s.fails(what+" read up to", upToErr, ports.Definite)
		s.fails(what+" put", s.Put(s.Context(), key, []byte("x")), ports.Definite)
		s.fails(what+" stat", statErr, ports.Definite)
		s.fails(what+" read", readErr, ports.Definite)
		s.fails(what+" delete", s.Delete(s.Context(), key), ports.Definite)
	}
	if got := s.list("", 10); len(got) != 0 {
		s.Errorf("refused puts left %q", got)
	}
}

func callsCancelled(s *segmentsUnderTest) {
	s.put("segments/0a/kept", []byte("x"))
	_, statErr := s.Stat(s.ended(), "segments/0a/kept")
	_, readErr := s.ReadRange(s.ended(), "segments/0a/kept", 0, 1)
	_, upToErr := s.ReadUpTo(s.ended(), "segments/0a/kept", 0, 1)
	s.fails("read up to", upToErr, ports.Transient, context.Canceled)
	_, listErr := s.List(s.ended(), "", 10)
	s.fails("stat", statErr, ports.Transient, context.Canceled)
	s.fails("read", readErr, ports.Transient, context.Canceled)
	s.fails("list", listErr, ports.Transient, context.Canceled)
	s.fails("delete", s.Delete(s.ended(), "segments/0a/kept"), ports.Transient, context.Canceled)
	s.holds("segments/0a/kept", []byte("x"))
}

func missing(s *segmentsUnderTest) {
	for _, key := range []string{"segments/00/none", "none", "a/b/c/d/e"} {
		_, statErr := s.Stat(s.Context(), key)
		_, readErr := s.ReadRange(s.Context(), key, 0, 0)
		_, upToErr := s.ReadUpTo(s.Context(), key, 0, 1)
		s.fails("read up to "+key, upToErr, ports.Definite, ports.ErrObjectNotFound)
		s.fails("stat "+key, statErr, ports.Definite, ports.ErrObjectNotFound)
		s.fails("read "+key, readErr, ports.Definite, ports.ErrObjectNotFound)
	}
}

func stat(s *segmentsUnderTest) {
	before := time.Now().Add(-time.Minute).UnixMilli()
	body := segmentBody(5, 3000)
	s.put("segments/05/five", body)
	s.holds("segments/05/five", body)
	info, err := s.Stat(s.Context(), "segments/05/five")
	after := time.Now().Add(time.Minute).UnixMilli()
	if err != nil || info.ModifiedUnixMilli < before || info.ModifiedUnixMilli > after {
		s.Errorf("created at %d (%v), want a time from %d to %d", info.ModifiedUnixMilli, err, before, after)
	}
}

func deleteRemoves(s *segmentsUnderTest) {
	s.put("segments/05/one", []byte("one"))
	s.put("segments/05/two", []byte("two"))
	if err := s.Delete(s.Context(), "segments/05/one"); err != nil {
		s.Fatal(err)
	}
	if got := s.list("", 10); len(got) != 1 || got[0] != "segments/05/two" {
		s.Errorf("left is %q", got)
	}
	_, err := s.Stat(s.Context(), "segments/05/one")
	s.fails("stat", err, ports.Definite, ports.ErrObjectNotFound)
	s.put("segments/05/one", []byte("another"))
	s.holds("segments/05/one", []byte("another"))
	s.holds("segments/05/two", []byte("two"))
}

func deleteMissing(s *segmentsUnderTest) {
	s.put("segments/05/one", []byte("one"))
	for _, key := range []string{"segments/05/none", "segments/06/none", "none"} {
		if err := s.Delete(s.Context(), key); err != nil {
			s.Errorf("delete %s: %v", key, err)
		}
	}
	s.holds("segments/05/one", []byte("one"))
}
