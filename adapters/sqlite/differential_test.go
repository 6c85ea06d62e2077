package sqlite

import (
	"fmt"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

// differential compares with the store in memory, to the last row.
var differential = portstest.Differential{
	Tested: portstest.DifferentialSide{
		Name: "SQLite",
		Open: func(t *testing.T) ports.MetadataStore {
			return must[*Store](t)(Open(t.Context(), newFile(t), Options{UnsafeSynchronous: "OFF"}))
		},
		Rows: func(t *testing.T, s ports.MetadataStore) []string {
			all := snapshotOf(t, s.(*Store))
			if err := all.Check(); err != nil {
				t.Error(err)
			}
			return rowsOf(all)
		},
	},
	Reference: portstest.DifferentialSide{
		Name: "memory",
		Open: func(*testing.T) ports.MetadataStore { return memory.NewMetadata(memory.MetadataOptions{Seed: 1}) },
		Rows: func(_ *testing.T, s ports.MetadataStore) []string { return rowsOf(s.(*memory.Metadata).Snapshot()) },
	},
}

func TestStore_AnswersAndKeepsWhatTheStoreInMemoryDoes(t *testing.T) { differential.Check(t) }

// rowsOf tells a snapshot line by line, without what older and expired sessions
// leave: the stores may remove that when they like.
func rowsOf(all memory.Snapshot) []string {
	var lines []string
	add := func(what string, row any) { lines = append(lines, fmt.Sprintf("%s %+v", what, row)) }
	for _, r := range all.Topics {
		add("topic", r)
	}
	for _, r := range all.Partitions {
		add("partition", r)
	}
	for _, r := range all.Extents {
		add("extent", r)
	}
	for _, r := range all.Segments {
		r.CreatedAt = time.UnixMilli(r.CreatedAt.UnixMilli()).UTC()
		add("segment", r)
	}
	newest := make(map[domain.ProducerID]domain.Epoch)
	for _, r := range all.Producers {
		alive := time.Since(r.ActiveAt) < ports.ProducerExpiry
		if alive {
			newest[r.ID] = r.Epoch
		}
		r.ActiveAt = time.UnixMilli(r.ActiveAt.UnixMilli()).UTC()
		if alive || r.Name != "" {
			add("producer", r)
		}
	}
	for _, r := range all.Streams {
		if epoch, alive := newest[r.Producer]; alive && r.State.Epoch == epoch {
			add("stream", r)
		}
	}
	return lines
}
