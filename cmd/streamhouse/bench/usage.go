package bench

import (
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"
)

// meter takes what the process has used, at its start and at its end.
type meter struct {
	began   time.Time
	cpu     time.Duration
	mallocs uint64
}

// usage is what was used between the two.
type usage struct {
	elapsed time.Duration
	cpu     time.Duration
	mallocs uint64
	// peakRSS is in bytes.
	peakRSS int64
}

// begin gives back what earlier work left, so that the peak of the memory is
// that of what comes.
func begin() meter {
	debug.FreeOSMemory()
	resetPeakRSS()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return meter{mallocs: m.Mallocs, cpu: cpuTime(), began: time.Now()}
}

func (m meter) end() usage {
	u := usage{elapsed: time.Since(m.began), cpu: cpuTime() - m.cpu}
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	u.mallocs = now.Mallocs - m.mallocs
	u.peakRSS = peakRSS()
	return u
}

// resetPeakRSS lets the kernel forget the peak so far, where it can (Linux).
// Elsewhere the peak is that of the whole process.
func resetPeakRSS() {
	f, err := os.OpenFile("/proc/self/clear_refs", os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = f.WriteString("5") // not allowed everywhere; then the peak is higher, not wrong
}

// peakRSS returns the highest resident size in bytes.
func peakRSS() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return maxRSS()
	}
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			kb, err := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))), 10, 64)
			if err == nil {
				return kb << 10
			}
		}
	}
	return maxRSS()
}
