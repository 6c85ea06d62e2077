// Package verify walks over everything that a metadata store knows and a segment
// store holds, and reports where the two do not fit together. It changes nothing.
//
// It runs beside writers, retention, compaction and collection. What it reads is
// therefore not of one moment, and nothing that looks wrong is reported before it was looked at
// again, in an order of reads that only real damage can pass. These facts carry the argument;
// where a check relies on one it says so:
//
//   - A page of extents, and the states of one topic's partitions, are one snapshot each.
//   - Log start and high watermark only rise. Offsets are given once: the bytes that a range of
//     offsets takes are the same for ever, also after compaction.
//   - An extent never changes. It is there from its commit until it goes, and does not come back.
//   - A segment's state only rises, its live count only falls once it is committed, and its object is
//     there, unchanged, for as long as it is committed.
//
// What is committed after the walk has begun may or may not be looked at.
package verify

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

// Options says how Run works. The zero value of a field means its default.
type Options struct {
	// Progress is told how far the walk has come, by one goroutine. Nil: nobody.
	Progress func(Progress)
	// MaxProblems bounds Report.Problems; those beyond are only counted. 1000.
	MaxProblems int
	// Workers is how many objects are read at the same time. 4.
	Workers int
	// Records says that every record is decoded as well, with Codecs.
	Records bool
	Codecs  []batch.Codec
	// MemoryExtents bounds how many extents, and segments, are held in memory,
	// at about 60 bytes each: those of one segment at least. If there are more, the
	// extents are walked over several times. 1,000,000.
	MemoryExtents int
	// PageRows is how many rows one query asks for, 2 to ports.MaxUpkeep, which
	// is the default.
	PageRows int
}

func (o Options) withDefaults() (Options, error) {
	o.MaxProblems = cmp.Or(o.MaxProblems, 1000)
	o.Workers = cmp.Or(o.Workers, 4)
	o.MemoryExtents = cmp.Or(o.MemoryExtents, 1_000_000)
	o.PageRows = cmp.Or(o.PageRows, ports.MaxUpkeep)
	for _, f := range []struct {
		field              string
		value, least, most int
	}{
		{"MaxProblems", o.MaxProblems, 1, 1_000_000},
		{"Workers", o.Workers, 1, 256},
		{"MemoryExtents", o.MemoryExtents, 1, 1 << 30},
		{"PageRows", o.PageRows, 2, ports.MaxUpkeep},
	} {
		if f.value < f.least || f.value > f.most {
			return o, &domain.ConfigError{Field: f.field, Value: strconv.Itoa(f.value), Want: fmt.Sprintf("%d to %d", f.least, f.most)}
		}
	}
	return o, nil
}

// Progress is how far the walk has come. The counts never fall; at the end of a
// walk they are the totals. A segment that is gone before its turn counts as done.
type Progress struct {
	Stage                   Stage
	Segments, TotalSegments int
	Bytes, TotalBytes       int64
	Problems                int
}

// Stage is what is being done.
type Stage string

// The stages. The last two take turns if there are more extents than fit into
// memory.
const (
	Counting         Stage = "counting segments"
	ListingObjects   Stage = "listing objects"
	WalkingExtents   Stage = "walking over extents"
	CheckingSegments Stage = "checking segments"
)

// verifier makes one walk. All its fields belong to the goroutine that called
// Run; workers read those that stay as they are.
type verifier struct {
	metadata ports.MetadataStore
	store    ports.SegmentStore
	o        Options
	decoder  *batch.Decoder // nil unless records are decoded
	memory   budget
	names    map[domain.TopicID]string

	lastID   domain.SegmentID // the greatest when the walk began
	report   Report
	progress Progress
	deleted  knownTopic // the topic that the last extent outside a listed topic was of
	inARow   int        // objects that could not be read, since the last that could
}

// Run checks everything and reports it. The error says why the walk could not be
// made or ended early; the report then has what was found before. Problems are no error.
//
// *domain.ConfigError: an option is out of range.
func Run(ctx context.Context, metadata ports.MetadataStore, store ports.SegmentStore, o Options) (Report, error) {
	o, err := o.withDefaults()
	if err != nil {
		return Report{}, err
	}
	start := time.Now()
	v := &verifier{metadata: metadata, store: store, o: o, memory: newBudget(), names: make(map[domain.TopicID]string)}
	v.report.Cluster = metadata.ClusterID().String()
	v.report.Problems = []Problem{}
	if o.Records {
		v.decoder = batch.NewDecoder(o.Codecs...)
	}
	if err = v.run(ctx); err != nil {
		err = fmt.Errorf("verify: %w", err)
	}
	slices.SortStableFunc(v.report.Problems, compareProblems)
	v.report.Seconds = time.Since(start).Seconds()
	return v.report, err
}

func (v *verifier) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{v.countSegments, v.listObjects, v.checkAll} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	v.progress.Segments, v.progress.Bytes = v.progress.TotalSegments, v.progress.TotalBytes
	v.tell(CheckingSegments)
	return nil
}

// tell tells of the progress.
func (v *verifier) tell(s Stage) {
	v.progress.Stage, v.progress.Problems = s, v.report.ProblemCount
	if v.o.Progress != nil {
		v.o.Progress(v.progress)
	}
}

// add adds problems to the report.
func (v *verifier) add(problems ...Problem) {
	v.report.ProblemCount += len(problems)
	room := v.o.MaxProblems - len(v.report.Problems)
	v.report.Problems = append(v.report.Problems, problems[:min(room, len(problems))]...)
}

// checkAll checks topics and segments. Segments are taken in windows of ids whose
// extents fit into memory; each takes a walk over all extents, of which the first also checks
// the partitions.
func (v *verifier) checkAll(ctx context.Context) error {
	for after := (domain.SegmentID{}); ; {
		w, err := v.nextWindow(ctx, after)
		if err != nil {
			return err
		}
		v.report.Walks++
		if v.report.Walks == 1 {
			err = v.walkTopics(ctx, w)
		} else {
			_, err = v.walkExtents(ctx, ports.FirstExtent, nil, func(page []ports.ExtentRef) error { return v.collect(ctx, w, page) })
		}
		if err != nil {
			return err
		}
		if err := v.checkSegments(ctx, w); err != nil {
			return err
		}
		if w.open {
			return nil
		}
		after = w.upTo
	}
}
