package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/app/producer"
	"github.com/streamhouse/streamhouse/app/topics"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// Load is what is produced or consumed.
type Load struct {
	Records    int64
	RecordSize int
	Partitions int32
}

// Validate reports every fault as a *domain.ConfigError.
func (l Load) Validate() error {
	var errs []error
	if l.Records < 1 {
		errs = append(errs, &domain.ConfigError{Field: "records", Value: fmt.Sprint(l.Records), Want: "1 or more"})
	}
	if l.RecordSize < MinRecordSize || l.RecordSize > MaxRecordSize {
		errs = append(errs, &domain.ConfigError{Field: "record-size", Value: fmt.Sprint(l.RecordSize), Want: fmt.Sprintf("%d to %d bytes", MinRecordSize, MaxRecordSize)})
	}
	return errors.Join(append(errs, domain.ValidatePartitionCount(l.Partitions))...)
}

// topicForm is the form of the names of Produce's topics.
const topicForm = "bench-%d-%d"

// Topic returns the name of the topic that such a load goes to.
func (l Load) Topic() string { return fmt.Sprintf(topicForm, l.Partitions, l.RecordSize) }

// Throughput is what produce and consume both measure.
type Throughput struct {
	Topic                string  `json:"topic"`
	Records              int64   `json:"records"`
	RecordSize           int     `json:"record_size"`
	Partitions           int32   `json:"partitions"`
	Seconds              float64 `json:"seconds"`
	RecordsPerSecond     float64 `json:"records_per_second"`
	MBPerSecond          float64 `json:"mb_per_second"`
	CPUSecondsPerMillion float64 `json:"cpu_seconds_per_million"`
	AllocsPerRecord      float64 `json:"allocs_per_record"`
	PeakRSSMB            float64 `json:"peak_rss_mb"`
}

// throughput works out what u means for records with so many bytes of values.
func (l Load) throughput(records, bytes int64, u usage) Throughput {
	seconds, n := u.elapsed.Seconds(), float64(records)
	return Throughput{
		Topic: l.Topic(), Records: records, RecordSize: l.RecordSize, Partitions: l.Partitions,
		Seconds:              seconds,
		RecordsPerSecond:     n / seconds,
		MBPerSecond:          float64(bytes) / 1e6 / seconds,
		CPUSecondsPerMillion: u.cpu.Seconds() / n * 1e6,
		AllocsPerRecord:      float64(u.mallocs) / n,
		PeakRSSMB:            float64(u.peakRSS) / (1 << 20),
	}
}

// ProduceResult is what one bench produce gives.
type ProduceResult struct {
	Throughput
	ObjectsPerSecond float64 `json:"objects_per_second"`
	CommitsPerSecond float64 `json:"commits_per_second"`
	StoredMB         float64 `json:"stored_mb"`
	AckP50MS         float64 `json:"ack_p50_ms"`
	AckP99MS         float64 `json:"ack_p99_ms"`
	Limits           Limits  `json:"limits"`
	RatioToLZ4Limit  float64 `json:"ratio_to_lz4_limit"`
	// RatioToLimit is of the lower of the LZ4 limit and the put limit times the
	// compression.
	RatioToLimit float64 `json:"ratio_to_limit"`

	// Direct is the same load on stores of the same kind without agents, in the
	// same run, RatioToDirect the throughput beside it. Nil without agents, as Agents is.
	Direct        *Throughput `json:"direct,omitempty"`
	RatioToDirect float64     `json:"ratio_to_direct,omitempty"`
	Agents        *AgentUsage `json:"agents,omitempty"`
}

// sampleEvery is how many records go by for each whose acknowledgement is
// timed.
const sampleEvery = 64

// Produce sends the load to its topic, which is made anew, and returns when
// all is durable; each of the producers sends a part of it. Tel must be what they tell. Done shows how
// far it is. Limits are left to the caller.
func Produce(ctx context.Context, producers []*producer.Producer, t *topics.Topics, tel *Counter, load Load, done *atomic.Int64) (ProduceResult, error) {
	if err := freshTopic(ctx, t, load); err != nil {
		return ProduceResult{}, err
	}
	run := produceRun{load: load, done: done}
	objects, commits, stored := tel.Count(ports.SegmentPut), tel.Count(ports.MetadataCommit), tel.Bytes(ports.SegmentPut)
	m := begin()
	sendErr := run.sendAll(ctx, producers)
	u := m.end()
	if err := errors.Join(sendErr, run.failure()); err != nil {
		return ProduceResult{}, err
	}
	if err := checkStored(ctx, t, load); err != nil {
		return ProduceResult{}, err
	}
	seconds := u.elapsed.Seconds()
	return ProduceResult{
		Throughput:       load.throughput(load.Records, load.Records*int64(load.RecordSize), u),
		ObjectsPerSecond: float64(tel.Count(ports.SegmentPut)-objects) / seconds,
		CommitsPerSecond: float64(tel.Count(ports.MetadataCommit)-commits) / seconds,
		StoredMB:         float64(tel.Bytes(ports.SegmentPut)-stored) / 1e6,
		AckP50MS:         milliseconds(run.acks.quantile(0.5)),
		AckP99MS:         milliseconds(run.acks.quantile(0.99)),
	}, nil
}

// WithLimits returns r beside the limits.
func (r ProduceResult) WithLimits(l Limits) ProduceResult {
	r.Limits = l
	if l.LZ4 > 0 {
		r.RatioToLZ4Limit = r.MBPerSecond / l.LZ4
	}
	if values := float64(r.Records) * float64(r.RecordSize) / 1e6; l.Puts > 0 && r.StoredMB > 0 {
		r.RatioToLimit = r.MBPerSecond / min(l.LZ4, l.Puts*values/r.StoredMB)
	}
	return r
}

// WithDirect returns r beside the same load without agents.
func (r ProduceResult) WithDirect(direct Throughput) ProduceResult {
	r.Direct, r.RatioToDirect = &direct, r.MBPerSecond/direct.MBPerSecond
	return r
}

// WithAgents returns r with what the agents have used for it.
func (r ProduceResult) WithAgents(u AgentUsage) ProduceResult {
	u.CPUSecondsPerMillion = u.CPUSeconds / float64(r.Records) * 1e6
	r.Agents = &u
	r.ObjectsPerSecond, r.CommitsPerSecond = float64(u.Objects)/r.Seconds, float64(u.Commits)/r.Seconds
	r.StoredMB = float64(u.StoredBytes) / 1e6
	return r
}

// freshTopic makes the topic of the load, without what an earlier run left.
func freshTopic(ctx context.Context, t *topics.Topics, load Load) error {
	if err := t.Delete(ctx, load.Topic()); err != nil && !errors.Is(err, domain.ErrTopicNotFound) {
		return err
	}
	_, err := t.Create(ctx, domain.TopicSpec{Name: load.Topic(), Partitions: load.Partitions})
	return err
}

// checkStored demands that the topic holds what was sent, no more, no less.
func checkStored(ctx context.Context, t *topics.Topics, load Load) error {
	d, err := t.Describe(ctx, load.Topic())
	if err != nil {
		return err
	}
	stored := int64(0)
	for _, s := range d.States {
		stored += int64(s.HighWatermark - s.LogStart)
	}
	if stored != load.Records {
		return fmt.Errorf("%w: %d records were acknowledged and %d are stored", domain.ErrInternal, load.Records, stored)
	}
	return nil
}

// produceRun is the measured part of Produce.
type produceRun struct {
	load   Load
	done   *atomic.Int64
	acks   histogram
	failed atomic.Int64
	first  atomic.Pointer[error]
}

// sendAll lets every producer send its share, and waits until all is durable.
func (r *produceRun) sendAll(ctx context.Context, producers []*producer.Producer) error {
	n := int64(len(producers))
	errs := make([]error, n)
	share := func(i int64) {
		records := r.load.Records / n
		if i < r.load.Records%n {
			records++
		}
		err := r.send(ctx, producers[i], NewGenerator(r.load.RecordSize, uint64(2+i)), records)
		errs[i] = errors.Join(err, producers[i].Flush(context.WithoutCancel(ctx)))
	}
	var wg sync.WaitGroup
	for i := range n - 1 {
		wg.Go(func() { share(i) })
	}
	share(n - 1)
	wg.Wait()
	return errors.Join(errs...)
}

func (r *produceRun) send(ctx context.Context, p *producer.Producer, g *Generator, records int64) error {
	record := domain.Record{Topic: r.load.Topic()}
	settle := func(_ domain.SendResult, err error) {
		if err != nil {
			r.fail(err)
		}
	}
	for i := range records {
		record.Value = g.Next()
		if i%sampleEvery != 0 {
			p.SendAsync(ctx, record, settle)
			continue
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("after %d records: %w", i, err)
		}
		r.done.Add(min(sampleEvery, records-i))
		p.SendAsync(ctx, record, r.timed(time.Now()))
	}
	return nil
}

// timed returns a callback that times the acknowledgement of a record whose
// send began at began.
func (r *produceRun) timed(began time.Time) producer.Callback {
	return func(_ domain.SendResult, err error) {
		if err != nil {
			r.fail(err)
			return
		}
		r.acks.add(time.Since(began))
	}
}

func (r *produceRun) fail(err error) {
	r.failed.Add(1)
	r.first.CompareAndSwap(nil, &err)
}

func (r *produceRun) failure() error {
	first := r.first.Load()
	if first == nil {
		return nil
	}
	return fmt.Errorf("%d of %d records failed, the first with: %w", r.failed.Load(), r.load.Records, *first)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
