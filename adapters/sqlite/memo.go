package sqlite

import (
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/domain/sequence"
)

// memo holds partitions and sequences as a commit has read and written them. As
// long as nobody else writes, the next commit on the connection need not read them again: SQLite
// tells of the commits of other connections (dataVersion), and what this one writes otherwise
// forgets the memo. It is looked at and changed within write transactions only.
type memo struct {
	version int64 // dataVersion when the rows were read
	// keys are the row keys of partitions of existing topics, perhaps beyond
	// their last.
	keys       map[commit.PartitionKey]int64
	partitions map[commit.PartitionKey]*commit.Partition
	streams    map[commit.StreamKey]*sequence.State
}

// maxMemo bounds the partitions, and the streams, of a memo. One takes about
// 300 bytes.
const maxMemo = 50_000

func newMemo(n int) *memo {
	return &memo{
		keys:       make(map[commit.PartitionKey]int64, n),
		partitions: make(map[commit.PartitionKey]*commit.Partition, n),
		streams:    make(map[commit.StreamKey]*sequence.State, n),
	}
}

// recall takes the connection's memo, or a new one if there is none that is true
// and small enough. What takes effect leaves it to the connection again.
func (c *conn) recall() (*memo, error) {
	m := c.memo
	c.memo = nil
	version, err := c.dataVersion()
	if m == nil || m.version != version && !mutant.On(mutantVersionIgnored) || max(len(m.keys), len(m.streams)) > maxMemo {
		m = newMemo(0)
		m.version = version
	}
	return m, err
}

// dropMemo forgets the memo: the transaction may write what is in it.
func (c *conn) dropMemo() {
	if !mutant.On(mutantMemoKept) {
		c.memo = nil
	}
}
