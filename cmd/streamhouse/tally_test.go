package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/streamhouse/streamhouse/domain"
)

func settled(partition, offset int) domain.SendResult {
	return domain.SendResult{Partition: domain.PartitionID(partition), Offset: domain.Offset(offset)}
}

func TestTally_CountsByPartitionWhateverTheOrder(t *testing.T) {
	var ty tally
	for _, r := range []domain.SendResult{settled(12, 7), settled(2, 0), settled(12, 5), settled(12, 6)} {
		ty.callback(1)(r, nil)
	}
	want := `{"sent":4,"failed":0,"partitions":{"2":{"first_offset":0,"last_offset":0,"count":1},"12":{"first_offset":5,"last_offset":7,"count":3}},"seconds":1.500}` + "\n"
	if got := string(ty.appendJSON(nil, 1500*time.Millisecond)); got != want {
		t.Errorf("summary is %s", got)
	}
	want = "sent 4 records to orders in 2.00s (2/s)\n  partition 2: 1 record, offsets 0 to 0\n  partition 12: 3 records, offsets 5 to 7\n"
	if got := string(ty.appendText(nil, "orders", 2*time.Second)); got != want {
		t.Errorf("summary is %s", got)
	}
}

func TestTally_TellsTheFailureOfTheLowestLine(t *testing.T) {
	var ty tally
	ty.fatal = func(error) {}
	late, early := ty.callback(9), ty.callback(4)
	late(domain.SendResult{}, errors.New("late"))
	early(domain.SendResult{}, errors.New("early \"quoted\""))
	ty.reject(7, errors.New("between"))
	if ty.failed != 3 || ty.firstFailure() != `line 4: early "quoted"` {
		t.Errorf("%d failed, the first in %s", ty.failed, ty.firstFailure())
	}
	if got := string(ty.appendJSON(nil, 0)); !strings.Contains(got, `"first_error":"line 4: early \"quoted\""`) {
		t.Errorf("summary is %s", got)
	}
}

func TestTally_StopsAtAnErrorThatEndsTheProducer(t *testing.T) {
	var ty tally
	var fatal error
	ty.fatal = func(err error) { fatal = err }
	ty.callback(1)(domain.SendResult{}, domain.ErrRecordTooLarge)
	if fatal != nil {
		t.Errorf("%v is taken as the end", fatal)
	}
	ty.callback(2)(domain.SendResult{}, &domain.FencedError{Producer: "p", Epoch: 1})
	if !errors.Is(fatal, domain.ErrFenced) {
		t.Errorf("fenced gives %v", fatal)
	}
}

func TestTally_UsesItsCallbacksAgain(t *testing.T) {
	var ty tally
	settle := func(n int64) { ty.callback(n)(settled(0, int(n)), nil) }
	for n := range int64(2 * slotChunk) {
		settle(n)
	}
	n := int64(0)
	if allocs := testing.AllocsPerRun(1000, func() { n++; settle(n) }); allocs > 0 {
		t.Errorf("%v allocations a record", allocs)
	}
}

func TestAbandonable_ReadsEverything(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789abcdef"), chunkBytes/5)
	for _, r := range []io.Reader{bytes.NewReader(want), iotest.HalfReader(bytes.NewReader(want)), iotest.DataErrReader(bytes.NewReader(want))} {
		got, err := io.ReadAll(newAbandonable(t.Context(), r))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d of %d bytes, %v", len(got), len(want), err)
		}
	}
}

func TestAbandonable_LeavesAReaderThatHangs(t *testing.T) {
	hangs, feed := io.Pipe()
	defer feed.Close()
	why := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	r := newAbandonable(ctx, hangs)
	go cancel(why)
	if n, err := r.Read(make([]byte, 10)); n != 0 || !errors.Is(err, why) {
		t.Errorf("read gives %d, %v", n, err)
	}
	if n, err := r.Read(make([]byte, 10)); n != 0 || !errors.Is(err, why) {
		t.Errorf("read again gives %d, %v", n, err)
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -999: "-999"} {
		if got := grouped(n); got != want {
			t.Errorf("grouped(%d) is %s", n, got)
		}
	}
}

func BenchmarkTally(b *testing.B) {
	acks := newOutbox(io.Discard, nil)
	ty := tally{acks: acks}
	b.ReportAllocs()
	n := int64(0)
	for b.Loop() {
		n++
		ty.callback(n)(settled(3, int(n)), nil)
	}
	if err := acks.close(); err != nil {
		b.Fatal(err)
	}
}
