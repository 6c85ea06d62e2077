package commit

import "github.com/streamhouse/streamhouse/domain"

// Retained says how many of the extents, which are the oldest of a partition
// that holds stored bytes, retention r lets go at now, in Unix milliseconds on the metadata
// store's clock, and how many bytes they have.
//
// An extent goes if it was committed r.Age ago or longer, or if the partition
// still has r.Bytes without it; but none that follows one that stays.
func Retained(r domain.Retention, extents []Extent, stored, now int64) (n int, bytes int64) {
	for _, e := range extents {
		old := r.Age > 0 && e.CommittedAt <= now-r.Age.Milliseconds()
		tooMuch := r.Bytes > 0 && stored-bytes-e.Length >= r.Bytes
		if !old && !tooMuch {
			break
		}
		n, bytes = n+1, bytes+e.Length
	}
	return n, bytes
}
