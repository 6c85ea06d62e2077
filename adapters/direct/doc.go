// Package direct is the direct-write transport: it seals record batches of many
// partitions into segments, puts them into the segment store, commits them in the
// metadata store, and reads them back. The library uses it in process; an
// agent puts a network in front of it.
//
// # How a batch travels
//
// Append verifies the batch, waits for room, and puts it into the queue. As soon as an
// upload slot is free the queue is sealed into a segment, and a goroutine that
// lives as long as its segment is uploading copies the batches into one object and puts it. A
// segment is clear once it is uploaded and every earlier segment with
// batches of the same producers and partitions is clear too. One goroutine at a time, the one whose
// upload found nobody committing, commits all clear segments in one
// transaction, settles their batches, and goes on until none is left. A lone
// Append therefore costs one change of goroutine.
//
// # What waits for what
//
// A batch enters no segment that could enter the log before its predecessor of the same
// producer and partition. Batches without an unfinished upload before them are never
// sealed together with others, so a slow upload holds back its own partitions only.
//
// One mutex guards all of the writer's state; it is never held across a call of a port or of
// settle. An idle writer has no goroutine and no timer.
package direct
