package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// Planted bugs, see package mutant.
const (
	mutantWakeForgotten    mutant.ID = "postgres-commit-wakes-nobody"
	mutantTrimKeepsSegment mutant.ID = "postgres-trim-keeps-segments-live"
)

var errNotPending = errors.New("not reserved here, or given up as garbage")

const commitSegments = `SELECT segment, answers FROM commit_segments($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
	$11, $12, $13, $14, $15, $16, $17, $18, $19, $20)`

// Commit implements ports.Log. Whatever it is given, it is one statement.
func (s *Store) Commit(ctx context.Context, segments []commit.Segment) ([]ports.CommitResult, error) {
	op := commitOp(segments)
	n := number(segments)
	answers := make([][]int64, len(n.segments)) // nil: refused
	then := func() {
		if grew(answers) && !mutant.On(mutantWakeForgotten) {
			s.notify.kick()
			s.wakes.All()
		}
	}
	var err error
	if s.options.inSteps {
		err = s.commitInSteps(ctx, op, n, answers)
		if err == nil {
			then()
		}
	} else {
		err = s.once(ctx, op, commitSegments, n.args(), func(r pgx.Rows) error {
			var at int
			var packed []int64
			if err := r.Scan(&at, &packed); err != nil {
				return err
			}
			answers[at-1] = append([]int64{}, packed...)
			return nil
		}, then)
	}
	if err != nil {
		return nil, err
	}
	return n.results(segments, answers), nil
}

func commitOp(segments []commit.Segment) string {
	if len(segments) == 1 {
		return fmt.Sprintf("commit segment %s", segments[0].ID)
	}
	return fmt.Sprintf("commit %d segments", len(segments))
}

// grew reports whether a high watermark rose, or did so in an earlier commit
// that may not have been told.
func grew(answers [][]int64) bool {
	for _, packed := range answers {
		for _, v := range packed {
			if v >= 0 {
				return true
			}
		}
	}
	return false
}

// results gives each segment of the call its answer.
func (n *numbered) results(segments []commit.Segment, answers [][]int64) []ports.CommitResult {
	results := make([]ports.CommitResult, len(segments))
	for i, seg := range segments {
		packed := answers[n.segmentAt[seg.ID]]
		if packed == nil {
			results[i].Err = ports.MetadataError(fmt.Sprintf("commit segment %s", seg.ID), ports.Definite, errNotPending)
			continue
		}
		results[i].Outcomes = unpackOutcomes(packed)
	}
	return results
}

// numbered is a commit with everything it names numbered from 1, so that it can
// be told to the server in arrays. Each segment is in it once.
type numbered struct {
	segments  []commit.Segment
	segmentAt map[domain.SegmentID]int // from 0

	partitions []commit.PartitionKey // in lock order
	topics     [][16]byte
	topicOf    []int32 // by partition
	producers  []int64 // in lock order
	streams    []commit.StreamKey

	segmentIDs         [][16]byte
	sizes, sums        []int64
	ends               []int32
	numbers            []int32 // by partition
	producerOf, partOf []int32 // by stream
	records            []int64 // by stream
	inSegment, inPart  []int32 // from here on by batch
	inStream, epochs   []int32
	firsts             []int64
	counts             []int32
	positions          []int64
	lengths            []int32
	timestamps         []int64
}

// args are those of commit_segments.
func (n *numbered) args() []any {
	return []any{
		n.segmentIDs, n.sizes, n.sums, n.ends, n.topics, n.topicOf, n.numbers,
		n.producers, n.producerOf, n.partOf, n.records,
		n.inSegment, n.inPart, n.inStream, n.epochs, n.firsts, n.counts, n.positions, n.lengths, n.timestamps,
	}
}
