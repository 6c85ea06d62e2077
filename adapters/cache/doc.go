// Package cache keeps in memory what the readers of an agent read: a decorator of
// ports.SegmentStore.
//
// # What is kept
//
// Recent: every segment that is put through the store is kept whole, the oldest
// given up first. Whoever reads the log's end through the agent that wrote it makes no
// request of the store below.
//
// Blocks: everything else is read in aligned blocks, which are kept until the least
// recently used ones have to go. One block is read once, however many ask for it at the same
// time (single flight); missing blocks side by side are read at once. Nothing else is kept: no
// error, and nothing of what is said not to exist.
//
// The two do not share their memory, so reading old records pushes out no recent
// ones.
//
// # Why it may
//
// Objects never change and their keys are never used again, so bytes that were
// right once are right for ever, and what is kept of an object that the janitor has deleted does no
// harm: nothing points to it. What may be read is decided by the metadata store alone, which is
// asked each time; it is not cached. Bytes that were damaged on their way would stay
// damaged, so whoever finds them to be calls Forget.
//
// Whatever must see the objects as they are, such as verification, compaction or the
// sweep, uses the store below and not this one.
//
// # Who waits for whom
//
// A read of the store is a flight: a goroutine of the Store, which Close waits for.
// It does not end with the caller that started it as long as another one waits, and ends early
// when nobody does. Flights that read segments younger than FreshFor and those that
// read older ones wait for slots of their own, so any number of readers that are far behind
// cannot keep those at the log's end from reading. The age is the time in a segment's id,
// compared with this machine's clock: a clock that is wrong makes reads wait in the other
// queue, and nothing else.
package cache
