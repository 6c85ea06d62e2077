package powerloss_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/streamhouse/streamhouse/test/e2e/powerloss/disk"
)

// TestFullDisk_SaysWhatWasNotStoredAndKeepsTheRest fills the disk while a
// process produces, for a while or until that process ends. Then, with space again, the power
// goes too.
func TestFullDisk_SaysWhatWasNotStoredAndKeepsTheRest(t *testing.T) {
	for name, full := range map[string]int32{"for a while": 15, "to the end": 1 << 30} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t.TempDir(), *seed, childConfig{delivery: 200 * time.Millisecond})
			m.fillAfter(10, full)
			m.config.cycle, m.config.records = 1, 60
			if err := m.cycle(0); err != nil {
				t.Fatal(err)
			}
			acked := m.history.counted
			t.Logf("%d acknowledged, %d refused, %d of unknown fate", acked, len(m.history.refused), m.history.unknown)
			if acked == 0 || full > 100 && len(m.history.refused) == 0 {
				t.Errorf("the disk was full at the wrong time")
			}
			m.Intercept(nil)
			m.config.cycle, m.config.delivery = 2, 0
			if err := m.cycle(0); err != nil {
				t.Fatalf("with space again: %v", err)
			}
			if m.history.counted < acked+m.config.records {
				t.Errorf("with space again %d of %d records were stored", m.history.counted-acked, m.config.records)
			}
			m.config.cycle, m.config.records = 3, 0
			if err := m.cycle(0); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// fillAfter leaves no space once a number of records were acknowledged, until
// as many changes have been refused as full says.
func (m *machine) fillAfter(records int, full int32) {
	var refused atomic.Int32
	m.Intercept(func(op disk.Op) fuse.Status {
		m.mu.Lock()
		acked := m.history.counted
		m.mu.Unlock()
		switch op.Kind {
		case "write", "create", "mkdir", "tmpfile", "link":
			if acked >= records && refused.Add(1) <= full {
				return fuse.Status(unix.ENOSPC)
			}
		}
		return fuse.OK
	})
}
