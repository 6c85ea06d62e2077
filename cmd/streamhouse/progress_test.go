package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestProgress_IsALineNowAndThenWhereNobodyWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		a := &app{invocation: invocation{stderr: &out}}
		began := time.Now()
		stop := a.showProgress(t.Context(), "sent", 1000, func() (int64, int64) {
			n := int64(time.Since(began).Seconds())
			return 1000 * n, 10 * n
		})
		time.Sleep(25 * time.Second)
		stop()
		want := "sent 10,000 records in 10s (1,000/s), 10% of the input\nsent 20,000 records in 20s (1,000/s), 20% of the input\n"
		if out.String() != want {
			t.Errorf("it says %q", out.String())
		}
	})
}

func TestProgress_SaysNothingAgainWhileNothingMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		a := &app{invocation: invocation{stderr: &out}}
		began := time.Now()
		stop := a.showProgress(t.Context(), "sent", -1, func() (int64, int64) {
			if time.Since(began) < 35*time.Second {
				return 10, 100
			}
			return 40, 400
		})
		time.Sleep(time.Hour)
		stop()
		if want := "sent 10 records in 10s (1/s)\nsent 40 records in 40s (1/s)\n"; out.String() != want {
			t.Errorf("it says %q", out.String())
		}
	})
}

func TestProgress_SaysNothingOfShortWork(t *testing.T) {
	var out bytes.Buffer
	a := &app{invocation: invocation{stderr: &out}}
	a.showProgress(t.Context(), "sent", -1, func() (int64, int64) { return 1, 1 })()
	if out.Len() > 0 {
		t.Errorf("it says %q", out.String())
	}
}

func TestProgress_TheBarShowsRecordsAndIsWipedAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, total := range []int64{10_000, -1} {
			var out bytes.Buffer
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				showBar(ctx, &out, "sent", "records", total, func() (int64, int64) { return 12_345, 5000 })
			}()
			time.Sleep(time.Second)
			cancel()
			<-done
			if got := out.String(); !strings.Contains(got, "sent 12,345 records") || !strings.HasSuffix(got, "\r") {
				t.Errorf("total %d: the bar is %q", total, got)
			}
		}
	})
}

func TestSizeOf_IsWhatIsLeftOfAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(path, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := sizeOf(f); got != 10 {
		t.Errorf("size is %d", got)
	}
	if _, err := f.Seek(4, 0); err != nil {
		t.Fatal(err)
	}
	if got := sizeOf(f); got != 6 {
		t.Errorf("size after four bytes is %d", got)
	}
	if got := sizeOf(strings.NewReader("x")); got != -1 {
		t.Errorf("size of a stream is %d", got)
	}
}
