package cache

import (
	"errors"
	"strconv"
	"time"

	"github.com/streamhouse/streamhouse/domain"
)

// Config says how much a Store keeps and how it reads. Start from DefaultConfig.
type Config struct {
	// RecentBytes bounds the memory for segments that were put through the
	// Store. One that is larger than a quarter of it is not kept. 0 keeps none.
	RecentBytes int64
	// BlockBytes bounds the memory for blocks of all other segments. 0 keeps
	// none, and then every read is one of the store below.
	BlockBytes int64
	// BlockSize is the size of a block, in bytes.
	BlockSize int64
	// ReadBytes is the most that is read at once, in bytes: at least one block.
	ReadBytes int64
	// FreshReads and ColdReads are how many reads of the store below run at
	// once, of segments younger than FreshFor and of older ones. Together with
	// ReadBytes they bound the memory of reads under way.
	FreshReads, ColdReads int
	FreshFor              time.Duration
}

// DefaultConfig keeps 64 MiB of recent segments and 128 MiB of blocks.
//
// A block of 512 KiB takes a bucket a quarter longer than one byte does. Where a
// segment holds many partitions, it brings those that other consumers of the same agent ask
// for next.
func DefaultConfig() Config {
	return Config{
		RecentBytes: 64 << 20, BlockBytes: 128 << 20, BlockSize: 512 << 10, ReadBytes: 4 << 20,
		FreshReads: 16, ColdReads: 8, FreshFor: time.Minute,
	}
}

// Validate reports every field that cannot be used, as *domain.ConfigErrors
// joined.
func (c Config) Validate() error {
	const most = 1 << 40
	return errors.Join(
		want("RecentBytes", c.RecentBytes, 0, most),
		want("BlockBytes", c.BlockBytes, 0, most),
		want("BlockSize", c.BlockSize, 1, 64<<20),
		want("ReadBytes", c.ReadBytes, c.BlockSize, 1<<30),
		want("FreshReads", int64(c.FreshReads), 1, 4096),
		want("ColdReads", int64(c.ColdReads), 1, 4096),
		want("FreshFor", int64(c.FreshFor), 0, int64(365*24*time.Hour)),
	)
}

func want(field string, value, least, most int64) error {
	if least <= value && value <= most {
		return nil
	}
	want := strconv.FormatInt(least, 10) + " to " + strconv.FormatInt(most, 10)
	return &domain.ConfigError{Field: field, Value: strconv.FormatInt(value, 10), Want: want}
}
