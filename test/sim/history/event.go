// Package history records what the clients of a log saw, as JSON lines, and
// checks it against the promises: nothing acknowledged is lost, nothing is
// there twice, every reader sees one order.
//
// A history is written from the clients' view only, by the simulator and by the
// black-box tests alike. Its lines stand in real-time order: a line about the
// end of a call stands after everything that ended before, a line about its
// start before everything that started later. The check takes linear time, since
// offsets give the order.
package history

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Kind says what a line tells.
type Kind string

const (
	// Create: the topic Topic exists from now on as Incarnation (1, 2, ...).
	Create Kind = "create"
	// Delete: a deletion of Topic begins. Deleted: it has ended.
	Delete  Kind = "delete"
	Deleted Kind = "deleted"

	// Open: the producer session Session is ready. Name is its producer name,
	// if it has one: a later session of the same name fences it. Weak sessions have no
	// idempotence: their records may be there twice and in another order.
	Open Kind = "open"
	// Send: Session begins to send the record ID to Topic, and to Partition
	// unless that is AnyPartition. A session's Sends stand in the order it means.
	Send Kind = "send"
	// Ack: ID is stored at Partition, Offset.
	Ack Kind = "ack"
	// Stored: ID is stored, its offset is not known.
	Stored Kind = "stored"
	// Fail: ID is not stored and never will be.
	Fail Kind = "fail"
	// Unknown: ID may be stored, once at most. A Send without an end says the same.
	Unknown Kind = "unknown"

	// Assign: Actor begins to read Topic, Incarnation, Partition at Offset, or
	// wherever its first record is if Offset is AnyOffset.
	Assign Kind = "assign"
	// Read: Actor got the record ID at Offset.
	Read Kind = "read"
	// Look: Actor begins to ask for a partition's bounds. Bounds: the answer.
	Look   Kind = "look"
	Bounds Kind = "bounds"
	// Final: Actor has read the partition to its end, Start to High, after the
	// last fault was healed and the last send had ended.
	Final Kind = "final"
)

const (
	// AnyPartition says that the record's partition is the producer's choice.
	AnyPartition = -1
	// AnyOffset says that the first record read tells where the reading began.
	AnyOffset = -1
)

// Event is one line. Fields that its Kind does not name are zero.
type Event struct {
	Kind        Kind   `json:"kind"`
	At          int64  `json:"at,omitempty"` // nanoseconds, for people; the check ignores it
	Actor       string `json:"actor,omitempty"`
	Session     string `json:"session,omitempty"`
	Name        string `json:"name,omitempty"`
	Weak        bool   `json:"weak,omitempty"`
	ID          string `json:"id,omitempty"`
	Topic       string `json:"topic,omitempty"`
	Incarnation int    `json:"incarnation,omitempty"`
	Partition   int32  `json:"partition"`
	Offset      int64  `json:"offset"`
	Start       int64  `json:"start,omitempty"`
	High        int64  `json:"high,omitempty"`
}

// Recorder writes events as JSON lines, in the order of the calls. It may be
// used by several goroutines.
type Recorder struct {
	mu  sync.Mutex
	out *bufio.Writer
	err error
}

// NewRecorder writes to w. Close flushes; it does not close w.
func NewRecorder(w io.Writer) *Recorder { return &Recorder{out: bufio.NewWriter(w)} }

// Record appends e. A failed write is reported by Close.
func (r *Recorder) Record(e Event) {
	line, err := json.Marshal(e)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		_, err = r.out.Write(append(line, '\n'))
	}
	r.err = errors.Join(r.err, err)
}

// Close flushes what was recorded and returns the first failure.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.err, r.out.Flush())
}

// Check reads JSON lines and returns what is wrong with them. The error says
// that the history itself cannot be read; it names the line.
func Check(r io.Reader) ([]Violation, error) {
	c := NewChecker()
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	for {
		var e Event
		switch err := d.Decode(&e); {
		case errors.Is(err, io.EOF):
			return c.Finish(), nil
		case err != nil:
			return nil, fmt.Errorf("history line %d: %w", c.line+1, err)
		}
		if err := c.Add(e); err != nil {
			return nil, err
		}
	}
}
