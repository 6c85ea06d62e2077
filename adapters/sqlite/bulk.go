package sqlite

import (
	"database/sql/driver"
	"math/bits"
	"strings"
)

// maxBulk bounds the rows that one statement takes.
const maxBulk = 128

// bulk is a statement over any number of rows of values. It is prepared once
// per power of two, so that a call costs a few statements whatever its rows.
type bulk struct {
	before, row, after string
	width              int // values in a row
	bySize             [8]query
}

// newBulk makes a bulk of the text before, a comma-separated list of row, and
// after.
func newBulk(before, row, after string) *bulk {
	b := &bulk{before: before, row: row, after: after, width: strings.Count(row, "?")}
	for i := range b.bySize {
		rows := strings.Repeat(row+",", 1<<i)
		b.bySize[i].text = before + rows[:len(rows)-1] + after
	}
	return b
}

// execBulk executes b for all rows, which stand in args one after the other.
func (c *conn) execBulk(b *bulk, args []driver.Value) error {
	for len(args) > 0 {
		size := min(bits.Len(uint(len(args)/b.width))-1, len(b.bySize)-1)
		n := b.width << size
		if err := c.exec(&b.bySize[size], args[:n]...); err != nil {
			return err
		}
		args = args[n:]
	}
	return nil
}

// queryBulk runs b, whose rows stand for a set of keys, for all of args. The last
// key is repeated to fill a statement, which a set does not mind.
func (c *conn) queryBulk(b *bulk, scan func(*row) error, args []driver.Value) error {
	for len(args) > 0 {
		rows := min(len(args)/b.width, maxBulk)
		size := bits.Len(uint(rows - 1))
		some := args[: rows*b.width : rows*b.width]
		args = args[rows*b.width:]
		for last := some[len(some)-b.width:]; len(some) < b.width<<size; {
			some = append(some, last...)
		}
		if err := c.query(&b.bySize[size], scan, some...); err != nil {
			return err
		}
	}
	return nil
}
