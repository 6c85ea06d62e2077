package janitor

import (
	"errors"
	"strconv"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// Config says how a Janitor works. Start from DefaultConfig.
type Config struct {
	// Interval is the pause between two passes of retention and collection, and
	// between two passes of compaction. Each pause is up to a quarter longer, so that many
	// janitors do not work at the same moments; so is each SweepInterval.
	Interval time.Duration
	// SweepInterval is the pause between two sweeps of the bucket.
	SweepInterval time.Duration

	// ReservationGrace is how long a reserved segment may stay uncommitted
	// before it becomes garbage. Writers that are slower are refused and upload again.
	ReservationGrace time.Duration
	// DeleteGrace is how long a segment is garbage before its object goes, so
	// that readers that have planned a read of it can make it.
	DeleteGrace time.Duration
	// ForgetAfter is how long the row of a deleted segment still answers
	// replays of its commit.
	ForgetAfter time.Duration

	// SweepAge is how old an object must be for a sweep to look at it.
	SweepAge time.Duration
	// SweepShare is the largest share of the objects, from 0 to 1, that a sweep
	// may remove. If it would remove more it removes nothing and fails: something else is wrong,
	// such as metadata restored from an old backup.
	SweepShare float64

	// CompactExtentBytes is the size to which extents are put together.
	// Extents of half of it are left alone. 0 switches compaction off.
	CompactExtentBytes int64
	// CompactSegmentBytes bounds what one compaction reads, and what it writes,
	// and so its memory, to about two times as much.
	CompactSegmentBytes int64
	// CompactFanIn is how many extents must come together at least, unless they
	// make one of half of CompactExtentBytes.
	CompactFanIn int
	// CompactAfter is how old extents must be.
	CompactAfter time.Duration
	// CompactBytesPerSecond bounds what compaction reads and writes together. 0
	// means no bound.
	CompactBytesPerSecond int64

	// StepRows is how many rows one transaction takes.
	StepRows int
	// Deletes is how many objects are deleted, or read, at the same time.
	Deletes int
	// CallTimeout bounds each call of the stores.
	CallTimeout time.Duration
	// Seed makes pauses and orders repeatable. 0 makes them random.
	Seed uint64
}

// DefaultConfig suits one process or many: passes every 10 minutes, a sweep a day.
func DefaultConfig() Config {
	return Config{
		Interval:              10 * time.Minute,
		SweepInterval:         24 * time.Hour,
		ReservationGrace:      time.Hour,
		DeleteGrace:           10 * time.Minute,
		ForgetAfter:           3 * 24 * time.Hour,
		SweepAge:              24 * time.Hour,
		SweepShare:            0.05,
		CompactExtentBytes:    8 << 20,
		CompactSegmentBytes:   32 << 20,
		CompactFanIn:          16,
		CompactAfter:          time.Minute,
		CompactBytesPerSecond: 64 << 20,
		StepRows:              1000,
		Deletes:               8,
		CallTimeout:           2 * time.Minute,
	}
}

// maxFanIn keeps the windows of compaction, which hold twice as many extents,
// within bounds.
const maxFanIn = 128

// Validate reports every field that cannot be used, as *domain.ConfigErrors
// joined.
func (c Config) Validate() error {
	var share error
	if !(c.SweepShare >= 0 && c.SweepShare <= 1) {
		share = &domain.ConfigError{Field: "SweepShare", Value: strconv.FormatFloat(c.SweepShare, 'g', -1, 64), Want: "0 to 1"}
	}
	return errors.Join(
		share,
		wantDuration("Interval", c.Interval, time.Millisecond),
		wantDuration("SweepInterval", c.SweepInterval, time.Millisecond),
		wantDuration("ReservationGrace", c.ReservationGrace, 0),
		wantDuration("DeleteGrace", c.DeleteGrace, 0),
		wantDuration("ForgetAfter", c.ForgetAfter, 0),
		wantDuration("SweepAge", c.SweepAge, 0),
		wantInt("CompactExtentBytes", c.CompactExtentBytes, 0, 1<<30),
		wantInt("CompactSegmentBytes", c.CompactSegmentBytes, max(c.CompactExtentBytes, 1), 1<<30),
		wantInt("CompactFanIn", int64(c.CompactFanIn), growth, maxFanIn),
		wantDuration("CompactAfter", c.CompactAfter, 0),
		wantInt("CompactBytesPerSecond", c.CompactBytesPerSecond, 0, 1<<40),
		wantInt("StepRows", int64(c.StepRows), 1, ports.MaxUpkeep),
		wantInt("Deletes", int64(c.Deletes), 1, 256),
		wantDuration("CallTimeout", c.CallTimeout, time.Millisecond),
	)
}

func wantInt(field string, value, least, most int64) error {
	if least <= value && value <= most {
		return nil
	}
	want := strconv.FormatInt(least, 10) + " to " + strconv.FormatInt(most, 10)
	return &domain.ConfigError{Field: field, Value: strconv.FormatInt(value, 10), Want: want}
}

func wantDuration(field string, value, least time.Duration) error {
	if value >= least {
		return nil
	}
	return &domain.ConfigError{Field: field, Value: value.String(), Want: least.String() + " or more"}
}
