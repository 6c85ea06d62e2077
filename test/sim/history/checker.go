package history

import (
	"fmt"
	"math"
	"sort"
)

// Class names an anomaly.
type Class string

// The anomalies. All must be absent.
const (
	// Lost: acknowledged below the highest offset read, or read once, and not
	// there in the end.
	Lost Class = "lost"
	// Unseen: acknowledged above everything that the final read found.
	Unseen Class = "unseen"
	// Duplicate: one record at two offsets.
	Duplicate Class = "duplicate"
	// Reordered: two records of one session on one partition in another order
	// than they were sent.
	Reordered Class = "reordered"
	// InconsistentOffset: two observers disagree on what is at an offset.
	InconsistentOffset Class = "inconsistent offset"
	// Phantom: a record that nobody had sent there.
	Phantom Class = "phantom"
	// PollSkip: a consumer left out a record that is there.
	PollSkip Class = "poll skip"
	// NonMonotonicPoll: a consumer went back.
	NonMonotonicPoll Class = "non-monotonic poll"
	// OffsetGap: an offset below the high watermark that holds nothing.
	OffsetGap Class = "offset gap"
	// StaleRead: a read that began after an acknowledgement did not see it.
	StaleRead Class = "stale read after ack"
	// DefiniteVisible: a record that was reported as not stored is there.
	DefiniteVisible Class = "definite error visible"
	// RealTimeOrder: a record acknowledged before another was sent has the
	// higher offset.
	RealTimeOrder Class = "real-time order"
	// Zombie: a fenced session wrote.
	Zombie Class = "zombie write"
)

// Violation is one anomaly found.
type Violation struct {
	Class  Class
	Detail string
}

func (v Violation) String() string { return string(v.Class) + ": " + v.Detail }

// Checker takes a history line by line.
type Checker struct {
	line     int
	found    []Violation
	topics   map[string]*topic
	sessions map[string]*session
	names    map[string]*session // newest session by producer name
	records  map[string]*record
	order    []*record
	logs     map[logKey]*log
	logOrder []*log
	passes   map[passKey]*pass
	looks    map[passKey]int64
	skips    []skip
}

type topic struct {
	incarnation int
	deleting    bool
	deletedAt   int // line of the newest Deleted
	deletedIn   int // the incarnation that it ended, 0 before the first
}

// over returns the newest incarnation whose deletion has begun.
func (t *topic) over() int {
	if t.deleting || t.deletedIn == t.incarnation {
		return t.incarnation
	}
	return t.incarnation - 1
}

// gone reports whether a deletion may have taken a record sent at line with it.
func (t *topic) gone(line int) bool { return t.deleting || t.deletedAt > line }

type session struct {
	id         string
	weak       bool
	name       string
	generation int // counts the sessions of one name
	fencedAt   int // line of the next session's Open, 0 if there is none
	sent       int
}

type record struct {
	id          string
	line        int
	session     *session
	index       int // counts the session's sends
	topic       string
	incarnation int
	partition   int32
	outcome     Kind // Send while open
	acked       place
	failedAfter int        // Fail: this incarnation and those before were being deleted or gone by then
	seen        []sighting // the first in each incarnation
}

type sighting struct {
	incarnation int
	place
}

func (r *record) in(incarnation int) (place, bool) {
	for _, s := range r.seen {
		if s.incarnation == incarnation {
			return s.place, true
		}
	}
	return place{}, false
}

type place struct {
	partition int32
	offset    int64
}

func (p place) String() string { return fmt.Sprintf("%d/%d", p.partition, p.offset) }

type logKey struct {
	topic       string
	incarnation int
	partition   int32
}

func (k logKey) String() string {
	return fmt.Sprintf("%s#%d/%d", k.topic, k.incarnation, k.partition)
}

type log struct {
	logKey
	at      map[int64]*record
	lowest  int64 // of the offsets read
	highest int64 // -1 if none
	acks    []ackMark
	final   *Event
}

// ackMark says that from line on, the highest acknowledged offset was offset.
type ackMark struct {
	line   int
	offset int64
}

// ackedBefore returns the highest offset acknowledged before line, or -1.
func (l *log) ackedBefore(line int) int64 {
	i := sort.Search(len(l.acks), func(i int) bool { return l.acks[i].line >= line })
	if i == 0 {
		return -1
	}
	return l.acks[i-1].offset
}

type passKey struct {
	actor string
	logKey
}

type pass struct {
	next  int64
	known bool
}

type skip struct {
	passKey
	from, to int64
	line     int
}

// NewChecker returns a checker that has seen nothing.
func NewChecker() *Checker {
	return &Checker{
		topics: map[string]*topic{}, sessions: map[string]*session{}, names: map[string]*session{},
		records: map[string]*record{}, logs: map[logKey]*log{}, passes: map[passKey]*pass{}, looks: map[passKey]int64{},
	}
}

// Add takes the next line. An error says that the line does not fit those
// before it: the test that wrote it is wrong, not the system.
func (c *Checker) Add(e Event) error {
	c.line++
	err := c.add(e)
	if err != nil {
		return fmt.Errorf("history line %d: %w", c.line, err)
	}
	return nil
}

func (c *Checker) add(e Event) error {
	switch e.Kind {
	case Create:
		t := c.topic(e.Topic)
		t.incarnation = e.Incarnation
	case Delete:
		c.topic(e.Topic).deleting = true
	case Deleted:
		t := c.topic(e.Topic)
		t.deleting, t.deletedAt, t.deletedIn = false, c.line, t.incarnation
	case Open:
		return c.open(e)
	case Send:
		return c.send(e)
	case Ack, Stored, Fail, Unknown:
		return c.settle(e)
	case Assign:
		c.passes[e.pass()] = &pass{next: e.Offset, known: e.Offset != AnyOffset}
	case Read:
		c.read(e)
	case Look:
		c.looks[e.pass()] = c.log(e.log()).ackedBefore(c.line)
	case Bounds:
		c.bounds(e)
	case Final:
		c.log(e.log()).final = &e
	default:
		return fmt.Errorf("kind %q is not known", e.Kind)
	}
	return nil
}

func (e Event) log() logKey   { return logKey{e.Topic, e.Incarnation, e.Partition} }
func (e Event) pass() passKey { return passKey{e.Actor, e.log()} }

func (c *Checker) report(class Class, format string, args ...any) {
	c.found = append(c.found, Violation{class, fmt.Sprintf("line %d: ", c.line) + fmt.Sprintf(format, args...)})
}

func (c *Checker) topic(name string) *topic {
	t := c.topics[name]
	if t == nil {
		t = new(topic)
		c.topics[name] = t
	}
	return t
}

func (c *Checker) log(k logKey) *log {
	l := c.logs[k]
	if l == nil {
		l = &log{logKey: k, at: map[int64]*record{}, lowest: math.MaxInt64, highest: -1}
		c.logs[k] = l
		c.logOrder = append(c.logOrder, l)
	}
	return l
}

func (c *Checker) open(e Event) error {
	if c.sessions[e.Session] != nil {
		return fmt.Errorf("session %q opened twice", e.Session)
	}
	s := &session{id: e.Session, weak: e.Weak, name: e.Name}
	c.sessions[e.Session] = s
	if e.Name == "" {
		return nil
	}
	if older := c.names[e.Name]; older != nil {
		older.fencedAt = c.line
		s.generation = older.generation + 1
	}
	c.names[e.Name] = s
	return nil
}

func (c *Checker) send(e Event) error {
	s := c.sessions[e.Session]
	if s == nil {
		return fmt.Errorf("send of %q by session %q, which is not open", e.ID, e.Session)
	}
	if c.records[e.ID] != nil {
		return fmt.Errorf("record %q sent twice: ids must differ", e.ID)
	}
	s.sent++
	r := &record{
		id: e.ID, line: c.line, session: s, index: s.sent, topic: e.Topic, partition: e.Partition,
		incarnation: c.topic(e.Topic).incarnation, outcome: Send,
	}
	c.records[e.ID] = r
	c.order = append(c.order, r)
	return nil
}

// settle takes the end of a send. A client may ask again after any end, so a
// record can have several; an acknowledgement outlives the others.
func (c *Checker) settle(e Event) error {
	r := c.records[e.ID]
	if r == nil {
		return fmt.Errorf("%s of %q, which was not sent", e.Kind, e.ID)
	}
	if e.Kind != Ack {
		if r.outcome != Ack && (r.outcome != Stored || e.Kind != Unknown) {
			r.outcome, r.failedAfter = e.Kind, c.topic(r.topic).over()
		}
		return nil
	}
	p := place{e.Partition, e.Offset}
	switch {
	case e.Offset < 0:
		c.report(InconsistentOffset, "%s was acknowledged at %v", r.id, p)
	case r.outcome == Ack && r.acked != p:
		c.report(InconsistentOffset, "%s was acknowledged at %v and then at %v", r.id, r.acked, p)
	}
	r.outcome, r.acked = Ack, p
	c.mark(r)
	return nil
}

// mark notes the acknowledgement for those that come later, if it is clear
// which incarnation of the topic it is about.
func (c *Checker) mark(r *record) {
	t := c.topic(r.topic)
	if t.gone(r.line) || t.incarnation != r.incarnation {
		return
	}
	l := c.log(logKey{r.topic, r.incarnation, r.acked.partition})
	if n := len(l.acks); n == 0 || l.acks[n-1].offset < r.acked.offset {
		l.acks = append(l.acks, ackMark{c.line, r.acked.offset})
	}
}

func (c *Checker) bounds(e Event) {
	if acked, ok := c.looks[e.pass()]; ok && e.High <= acked {
		c.report(StaleRead, "%s was told that %v ends at %d, though offset %d was acknowledged before it asked", e.Actor, e.log(), e.High, acked)
	}
}

func (c *Checker) read(e Event) {
	c.advance(e)
	r, l := c.records[e.ID], c.log(e.log())
	if r == nil || r.topic != e.Topic || r.partition != AnyPartition && r.partition != e.Partition {
		c.report(Phantom, "%s read %q at %v offset %d: nobody had sent it there", e.Actor, e.ID, l.logKey, e.Offset)
		return
	}
	switch other := l.at[e.Offset]; {
	case other == nil:
		l.at[e.Offset] = r
		l.lowest, l.highest = min(l.lowest, e.Offset), max(l.highest, e.Offset)
	case other != r:
		c.report(InconsistentOffset, "%s read %s at %v offset %d, where %s had been read", e.Actor, r.id, l.logKey, e.Offset, other.id)
		return
	}
	p := place{e.Partition, e.Offset}
	switch first, ok := r.in(e.Incarnation); {
	case !ok:
		r.seen = append(r.seen, sighting{e.Incarnation, p})
	case first != p && !r.session.weak:
		c.report(Duplicate, "%s is at %v and at %v of %s#%d", r.id, first, p, e.Topic, e.Incarnation)
	}
}

// advance checks that a consumer goes from offset to offset.
func (c *Checker) advance(e Event) {
	p := c.passes[e.pass()]
	if p == nil {
		p = new(pass)
		c.passes[e.pass()] = p
	}
	switch {
	case !p.known:
	case e.Offset < p.next:
		c.report(NonMonotonicPoll, "%s read offset %d of %v when %d was next", e.Actor, e.Offset, e.log(), p.next)
	case e.Offset > p.next:
		c.skips = append(c.skips, skip{e.pass(), p.next, e.Offset, c.line})
	}
	p.next, p.known = e.Offset+1, true
}
