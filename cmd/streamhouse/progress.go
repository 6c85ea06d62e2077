package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
)

const (
	// On a terminal the bar moves this often; elsewhere a line is written.
	barInterval  = 200 * time.Millisecond
	lineInterval = 10 * time.Second
)

// meter says how far a job has come, in things and in bytes. It is called often, and concurrently.
type meter func() (records, bytes int64)

// showProgress is showProgressOf records.
func (a *app) showProgress(ctx context.Context, verb string, total int64, m meter) (stop func()) {
	return a.showProgressOf(ctx, verb, "records", total, m)
}

// showProgressOf shows what m says of things on stderr until stop is called: as
// a bar on a terminal, as a line every ten seconds elsewhere. Total is the number of
// bytes to come, below 0 if it is not known.
func (a *app) showProgressOf(ctx context.Context, verb, things string, total int64, m meter) (stop func()) {
	if isTerminal(a.stdin) && total < 0 {
		return func() {} // somebody types, and would be disturbed
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	show := showLines
	if isTerminal(a.stderr) {
		show = showBar
	}
	go func() {
		defer close(done)
		show(ctx, a.stderr, verb, things, total, m)
	}()
	return func() {
		cancel()
		<-done
	}
}

func showBar(ctx context.Context, w io.Writer, verb, things string, total int64, m meter) {
	bar := progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(w),
		progressbar.OptionShowBytes(true),
		progressbar.OptionSetDescription(verb),
		progressbar.OptionSetWidth(20),
		progressbar.OptionThrottle(barInterval/2),
		progressbar.OptionSetSpinnerChangeInterval(0), // it would start a goroutine that it never ends
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSetPredictTime(total >= 0),
	)
	ticks := time.NewTicker(barInterval)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			// What is shown is wiped: the summary says more. A bar that cannot
			// be drawn is no reason to fail.
			_ = bar.Clear()
			return
		case <-ticks.C:
			records, bytes := m()
			bar.Describe(fmt.Sprintf("%s %s %s", verb, grouped(records), things))
			_ = bar.Set64(bytes)
		}
	}
}

func showLines(ctx context.Context, w io.Writer, verb, things string, total int64, m meter) {
	began := time.Now()
	said := int64(0)
	ticks := time.NewTicker(lineInterval)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
			records, bytes := m()
			if records == said {
				continue // somebody who waits for input need not hear of it again
			}
			said = records
			elapsed := time.Since(began)
			line := fmt.Sprintf("%s %s %s in %s (%s/s)", verb, grouped(records), things, elapsed.Round(time.Second), grouped(rate(records, elapsed)))
			if total > 0 {
				line += fmt.Sprintf(", %d%% of the input", min(100*bytes/total, 100))
			}
			fmt.Fprintln(w, line)
		}
	}
}

// rate is n per second.
func rate(n int64, elapsed time.Duration) int64 {
	if elapsed <= 0 {
		return 0
	}
	return int64(float64(n) / elapsed.Seconds())
}

// sizeOf returns how many bytes are left to read of a regular file, -1 if r is
// something else.
func sizeOf(r io.Reader) int64 {
	f, ok := r.(*os.File)
	if !ok {
		return -1
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return -1
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return -1
	}
	return max(info.Size()-at, 0)
}
