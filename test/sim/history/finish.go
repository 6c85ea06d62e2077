package history

import "slices"

// Finish returns every violation, in the order found.
func (c *Checker) Finish() []Violation {
	c.line++
	for _, s := range c.skips {
		c.resolve(s)
	}
	for _, r := range c.order {
		c.outcome(r)
		c.positions(r)
	}
	for _, l := range c.logOrder {
		if l.final != nil {
			c.complete(l)
		}
		c.sequence(l)
	}
	return c.found
}

// resolve tells a record that a consumer left out from an offset that holds
// nothing.
func (c *Checker) resolve(s skip) {
	l := c.log(s.logKey)
	if l.at[s.from] != nil || l.ackedBefore(c.line) >= s.from {
		c.report(PollSkip, "%s went from offset %d of %v to %d (line %d)", s.actor, s.from, s.logKey, s.to, s.line)
		return
	}
	c.report(OffsetGap, "%s found nothing at offsets %d to %d of %v (line %d)", s.actor, s.from, s.to-1, s.logKey, s.line)
}

// outcome compares what the sender of r was told with what was read.
func (c *Checker) outcome(r *record) {
	switch r.outcome {
	case Fail:
		for _, s := range r.seen {
			if s.incarnation <= r.failedAfter {
				continue // It was there, and went with its topic before its sender was told.
			}
			c.report(DefiniteVisible, "%s is at %v of %s, though its sender was told that it never would be", r.id, s.place, r.topic)
		}
	case Ack:
		if len(r.seen) == 0 {
			c.missing(r)
			return
		}
		for _, s := range r.seen {
			if s.place == r.acked {
				return
			}
		}
		if r.session.weak && (c.copied(r) || c.removed(r) || c.topic(r.topic).gone(r.line)) {
			return
		}
		c.report(InconsistentOffset, "%s was acknowledged at %v and read at %v", r.id, r.acked, r.seen[0].place)
	case Stored:
		if len(r.seen) == 0 {
			c.missing(r)
		}
	}
}

// copied reports whether a record of a weak session, read elsewhere first, is
// also where it was acknowledged.
func (c *Checker) copied(r *record) bool {
	for _, s := range r.seen {
		if l := c.logs[logKey{r.topic, s.incarnation, r.acked.partition}]; l != nil && l.at[r.acked.offset] == r {
			return true
		}
	}
	return false
}

func (c *Checker) missing(r *record) {
	t := c.topic(r.topic)
	if t.gone(r.line) {
		return
	}
	if r.outcome == Stored {
		if c.trimmed(r.topic, t.incarnation) {
			return // Perhaps removed by retention: nobody knows where it was.
		}
		c.report(Lost, "%s (line %d) was said to be stored, and nobody read it", r.id, r.line)
		return
	}
	l := c.log(logKey{r.topic, t.incarnation, r.acked.partition})
	switch {
	case c.removed(r):
	case r.acked.offset <= l.highest:
		c.report(Lost, "%s (line %d) was acknowledged at %v of %s#%d, and nobody read it", r.id, r.line, r.acked, r.topic, t.incarnation)
	default:
		c.report(Unseen, "%s (line %d) was acknowledged at %v of %s#%d, which ends at %d", r.id, r.line, r.acked, r.topic, t.incarnation, l.highest)
	}
}

// removed reports whether retention has removed r from where it was
// acknowledged, as asked for.
func (c *Checker) removed(r *record) bool {
	l := c.log(logKey{r.topic, c.topic(r.topic).incarnation, r.acked.partition})
	return l.final != nil && r.acked.offset < l.final.Start
}

// trimmed reports whether retention has removed something of the topic.
func (c *Checker) trimmed(topic string, incarnation int) bool {
	return slices.ContainsFunc(c.logOrder, func(l *log) bool {
		return l.topic == topic && l.incarnation == incarnation && l.final != nil && l.final.Start > 0
	})
}

// positions compares where r is with what had happened before it was sent.
func (c *Checker) positions(r *record) {
	for _, s := range r.seen {
		l := c.log(logKey{r.topic, s.incarnation, s.partition})
		if acked := l.ackedBefore(r.line); acked >= s.offset {
			c.report(RealTimeOrder, "%s is at offset %d of %v, though %d was acknowledged before it was sent", r.id, s.offset, l.logKey, acked)
		}
	}
	if f := r.session.fencedAt; f > 0 && r.line > f && len(r.seen) > 0 {
		c.report(Zombie, "%s was sent by %s after a newer session of %q was open, and is there", r.id, r.session.id, r.session.name)
	}
}

// complete checks that the final read found every offset.
func (c *Checker) complete(l *log) {
	f := l.final
	if p := c.passes[f.pass()]; f.High > f.Start && (p == nil || p.next != f.High) {
		c.report(Unseen, "%s did not read %v to its end %d", f.Actor, l.logKey, f.High)
	}
	if l.highest >= f.High {
		c.report(Lost, "offset %d of %v was read, but it ends at %d", l.highest, l.logKey, f.High)
	}
	for o := f.Start; o < f.High; o++ {
		if l.at[o] == nil {
			c.report(OffsetGap, "%v holds nothing that was sent at offset %d", l.logKey, o)
			return
		}
	}
}

// sequence checks the order of each session's records.
func (c *Checker) sequence(l *log) {
	last := map[*session]*record{}
	newest := map[string]*record{}
	for _, o := range l.offsets() {
		r := l.at[o]
		s := r.session
		if before := last[s]; before != nil && before.index > r.index && !s.weak {
			c.report(Reordered, "%s is behind %s in %v, but %s sent it before", r.id, before.id, l.logKey, s.id)
		}
		last[s] = r
		if s.name == "" {
			continue
		}
		if before := newest[s.name]; before != nil && before.session.generation > s.generation {
			c.report(Zombie, "%s of %s is behind %s of the newer session %s in %v", r.id, s.id, before.id, before.session.id, l.logKey)
		}
		newest[s.name] = r
	}
}

// offsets returns the offsets read, in order. It sorts only if there are holes.
func (l *log) offsets() []int64 {
	all := make([]int64, 0, len(l.at))
	if int64(len(l.at)) == l.highest-l.lowest+1 {
		for o := l.lowest; o <= l.highest; o++ {
			all = append(all, o)
		}
		return all
	}
	for o := range l.at {
		all = append(all, o)
	}
	slices.Sort(all)
	return all
}
