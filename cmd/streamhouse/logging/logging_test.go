package logging

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

func TestTelemetry(t *testing.T) {
	portstest.TestTelemetry(t, func(testing.TB) ports.Telemetry {
		return NewTelemetry(slog.New(slog.DiscardHandler))
	})
}

// logged runs f in virtual time and returns the lines of what it recorded.
func logged(t *testing.T, level slog.Level, f func(tel *Telemetry)) (lines []map[string]any) {
	t.Helper()
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		tel := NewTelemetry(New(&out, Config{JSON: true, Level: level}))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			tel.Run(ctx)
		}()
		f(tel)
		stop()
		<-done
	})
	for line := range strings.Lines(out.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		lines = append(lines, m)
	}
	return lines
}

func TestRecord_LogsFailuresOnceInAWhileAndTheirEnd(t *testing.T) {
	away := errors.New("bucket is away")
	lines := logged(t, slog.LevelInfo, func(tel *Telemetry) {
		for range 25 { // a second apart
			tel.Record(ports.Event{Kind: ports.SegmentPut, Err: away})
			synctest.Wait()
			<-time.After(time.Second)
		}
		tel.Record(ports.Event{Kind: ports.SegmentPut})
		tel.Record(ports.Event{Kind: ports.SegmentPut})
		tel.Record(ports.Event{Kind: ports.CompactionPass, Count: 3})
	})
	var got []string
	for _, l := range lines {
		got = append(got, fmt.Sprint(l["level"], " ", l["msg"], " ", l["suppressed"]))
	}
	want := []string{
		"WARN upload of a segment failed 0", "WARN upload of a segment failed 9", "WARN upload of a segment failed 9",
		"INFO upload of a segment goes well again 4",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("lines %q, want %q", got, want)
	}
	if lines[0]["error"] != away.Error() {
		t.Errorf("the first says %v", lines[0])
	}
}

func TestRecord_TellsWhatACorruptionIsAboutAndNotOfReadersThatLeft(t *testing.T) {
	segment := domain.SegmentID{7}
	lines := logged(t, slog.LevelDebug, func(tel *Telemetry) {
		tel.Record(ports.Event{Kind: ports.Fetched, Err: context.Canceled})
		tel.Record(ports.Event{Kind: ports.BatchRetried, Err: errors.New("told by the producer")})
		tel.Record(ports.Event{Kind: ports.CorruptionFound, Err: &domain.CorruptError{Segment: segment, What: "checksum"}})
		tel.Record(ports.Event{Kind: ports.RetentionPass, Count: 3, Bytes: 10})
	})
	if len(lines) != 2 || lines[0]["level"] != "ERROR" || lines[0]["segment"] != segment.String() || lines[0]["msg"] != "stored bytes are not what was written" {
		t.Fatalf("lines %v", lines)
	}
	if lines[1]["level"] != "DEBUG" || lines[1]["count"] != 3.0 || lines[1]["bytes"] != 10.0 {
		t.Errorf("a pass is told as %v", lines[1])
	}
}

func TestRecord_DropsWhatNobodyReadsAndCountsIt(t *testing.T) {
	tel := NewTelemetry(slog.New(slog.DiscardHandler))
	for range maxWaiting + 10 {
		tel.Record(ports.Event{Kind: ports.MetadataCommit, Err: errors.New("away")})
	}
	if n := tel.dropped.Load(); n != 10 {
		t.Errorf("%d events dropped, want 10", n)
	}
}

func TestSubject_NamesWhatTheErrorIsAbout(t *testing.T) {
	for want, err := range map[string]error{
		"[topic orders partition 3]":           fmt.Errorf("send: %w", &domain.DeliveryError{Topic: "orders", Partition: 3}),
		"[topic orders partition 9]":           &domain.InvalidPartitionError{Topic: "orders", Partition: 9},
		"[topic orders]":                       &domain.TopicNotFoundError{Topic: "orders"},
		"[topic orders partition 1 offset 42]": &domain.OutOfRangeError{Topic: "orders", Partition: 1, Offset: 42},
		"[group web]":                          &domain.NoAgentsAvailableError{Group: "web"},
		"[]":                                   errors.New("plain"),
	} {
		got := Subject(err)
		if got[0] != "error" || got[1] != err.Error() || fmt.Sprint(got[2:]) != want {
			t.Errorf("%v: %v, want %s", err, got, want)
		}
	}
}
