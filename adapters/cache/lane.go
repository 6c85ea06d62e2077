package cache

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/domain/segment"
)

// lane holds a value for each read of the store below that runs; its capacity
// bounds them. Who waits goes in turn.
type lane chan struct{}

func (l lane) enter(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l lane) leave() { <-l }

// laneOf returns the lane for reads of the object key.
func (s *Store) laneOf(key string) lane {
	if born, ok := bornAt(key); ok && time.Since(born) < s.cfg.FreshFor && !mutant.On(mutantOneLane) {
		return s.fresh
	}
	return s.cold
}

// bornAt is when the id in the key of a segment was made: ids are UUIDs of
// version 7, which begin with milliseconds.
func bornAt(key string) (time.Time, bool) {
	id, err := segment.ParseKey(key)
	if err != nil || id[6]>>4 != 7 {
		return time.Time{}, false
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16)), true
}
