package powerloss_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/adapters/local"
)

// The child is the process that loses power with its disk: it opens the store,
// reads all there is, and produces until it is killed. It reports in lines on its standard
// output; what it wrote there was true before the power went.
const (
	childVariable = "STREAMHOUSE_POWERLOSS_CHILD"
	topic         = "events"
	partitions    = 3
)

// childConfig is what the parent tells the child.
type childConfig struct {
	dir     string
	cycle   int
	writer  int // which of the processes of the cycle it is
	seed    uint64
	records int // how many to send; 0 sends none
	unsafe  string
	mutant  string
	// delivery bounds how long a record is tried; 0 is the product's default.
	delivery time.Duration
}

func (c childConfig) String() string {
	return fmt.Sprintf("%s|%d|%d|%d|%s|%s|%s|%d", c.dir, c.cycle, c.seed, c.records, c.unsafe, c.mutant, c.delivery, c.writer)
}

func parseChildConfig(s string) (c childConfig, err error) {
	f := strings.Split(s, "|")
	if len(f) != 8 {
		return c, fmt.Errorf("child: %q", s)
	}
	var errs [5]error
	c.dir, c.unsafe, c.mutant = f[0], f[4], f[5]
	c.cycle, errs[0] = strconv.Atoi(f[1])
	c.seed, errs[1] = strconv.ParseUint(f[2], 10, 64)
	c.records, errs[2] = strconv.Atoi(f[3])
	c.delivery, errs[3] = time.ParseDuration(f[6])
	c.writer, errs[4] = strconv.Atoi(f[7])
	return c, errors.Join(errs[:]...)
}

// reporter writes whole lines, each with one system call.
type reporter struct{ mu sync.Mutex }

func (r *reporter) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = fmt.Fprintf(os.Stdout, format+"\n", args...)
}

func childMain(arg string) int {
	c, err := parseChildConfig(arg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	setMutant(c.mutant)
	r := &reporter{}
	if err := c.run(context.Background(), r); err != nil {
		r.say("error %s", strings.ReplaceAll(err.Error(), "\n", "; "))
		return 1
	}
	r.say("done")
	return 0
}

func (c childConfig) run(ctx context.Context, r *reporter) error {
	store, err := local.Open(ctx, c.dir, unsafeOptions(c.unsafe)...)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if err := ensureTopic(ctx, store, r); err != nil {
		return err
	}
	if err := readAll(ctx, store, r); err != nil {
		return err
	}
	if err := c.produce(ctx, store, r); err != nil {
		return err
	}
	return store.Close()
}

func unsafeOptions(unsafe string) []local.Option {
	switch unsafe {
	case "synchronous=NORMAL":
		return []local.Option{local.UnsafeSynchronous("NORMAL")}
	case "no_fsync":
		return []local.Option{local.UnsafeNoFsync()}
	default:
		return nil
	}
}

func ensureTopic(ctx context.Context, store *local.Store, r *reporter) error {
	topics := streamhouse.NewTopics(store.Metadata())
	if _, err := topics.Describe(ctx, topic); !errors.Is(err, streamhouse.ErrTopicNotFound) {
		return err
	}
	r.say("no-topic")
	_, err := topics.Create(ctx, streamhouse.TopicSpec{Name: topic, Partitions: partitions})
	if errors.Is(err, streamhouse.ErrTopicExists) {
		return nil // the other process was faster
	}
	if err == nil {
		r.say("topic")
	}
	return err
}

// readAll reports every record there is, each partition from its first offset.
func readAll(ctx context.Context, store *local.Store, r *reporter) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c, err := streamhouse.NewConsumerBuilder().Cluster(store).Assign(topic, streamhouse.FromStart()).Build(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	for m, err := range c.ReadToEnd(ctx) {
		if err != nil {
			r.say("unreadable %s", strings.ReplaceAll(err.Error(), "\n", "; "))
			return fmt.Errorf("read: %w", err)
		}
		id, _, _ := strings.Cut(string(m.Value), "|")
		if string(m.Value) != value(id) {
			id = "damaged"
		}
		r.say("read %d %d %s", m.Partition, m.Offset, id)
	}
	lags, err := c.Lag(ctx)
	if err != nil {
		return fmt.Errorf("lag: %w", err)
	}
	for _, l := range lags {
		r.say("end %d %d", l.Partition, l.HighWatermark)
	}
	r.say("checked")
	return nil
}

// value is the record that an id stands for, of a size and bytes of its own.
func value(id string) string {
	n, _ := strconv.ParseUint(id, 10, 64)
	random := rand.New(rand.NewPCG(n, 7))
	size := random.IntN(200)
	if random.IntN(10) == 0 {
		size = random.IntN(20_000)
	}
	filler := make([]byte, size)
	for i := range filler {
		filler[i] = byte('a' + random.IntN(26))
	}
	return id + "|" + string(filler)
}

// produce sends records in bursts and reports the fate of each.
func (c childConfig) produce(ctx context.Context, store *local.Store, r *reporter) error {
	if c.records == 0 {
		return nil
	}
	b := streamhouse.NewProducerBuilder().Cluster(store).BatchSize(5).BatchTimeout(2 * time.Millisecond)
	if c.delivery > 0 {
		b = b.DeliveryTimeout(c.delivery).RequestTimeout(c.delivery / 2)
	}
	p, err := b.Build(ctx)
	if err != nil {
		return fmt.Errorf("producer: %w", err)
	}
	random := rand.New(rand.NewPCG(c.seed, uint64(c.cycle*10+c.writer)))
	for n := 0; n < c.records; {
		for burst := 1 + random.IntN(8); burst > 0; burst-- {
			n++
			id := strconv.Itoa((c.cycle*10+c.writer)*1_000_000 + n)
			p.SendAsync(ctx, streamhouse.Record{
				Topic: topic, Value: []byte(value(id)), Partition: streamhouse.ToPartition(streamhouse.PartitionID(random.IntN(partitions))),
			}, func(res streamhouse.SendResult, err error) { r.settled(id, res, err) })
		}
		if random.IntN(2) == 0 {
			if err := p.Flush(ctx); err != nil {
				return fmt.Errorf("flush: %w", err)
			}
		}
	}
	return p.Close(ctx)
}

func (r *reporter) settled(id string, res streamhouse.SendResult, err error) {
	switch {
	case err == nil:
		r.say("ack %d %d %s", res.Partition, res.Offset, id)
	case streamhouse.FateOf(err).Stored == streamhouse.StoredNo:
		r.say("refused %s", id)
	default:
		r.say("unknown %s", id)
	}
}
