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
			m.fillAfter(5, full)
			m.config.cycle, m.config.records = 1, 70
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

// fillAfter leaves no space once a number of objects were begun, until as many
// changes have been refused as full says.
func (m *machine) fillAfter(objects, full int32) {
	var begun, refused atomic.Int32
	m.Intercept(func(op disk.Op) fuse.Status {
		if op.Kind == "tmpfile" {
			begun.Add(1)
		}
		switch op.Kind {
		case "write", "create", "mkdir", "tmpfile", "link":
			if begun.Load() > objects && refused.Add(1) <= full {
				return fuse.Status(unix.ENOSPC)
			}
		}
		return fuse.OK
	})
}
