package portstest

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// MetadataOption tells TestMetadataStore what more it may do with the stores of
// an adapter.
type MetadataOption func(*metadataSuite)

// InBubble runs every case in a testing/synctest bubble, whose clock is the
// store's clock. Only for stores without real I/O.
func InBubble() MetadataOption {
	return func(x *metadataSuite) {
		x.bubble = true
		x.advance = func(_ *testing.T, _ ports.MetadataStore, d time.Duration) { time.Sleep(d) }
	}
}

// AdvanceWith moves the store's clock forward by d. Without it and InBubble,
// the cases that need time to pass are not run.
func AdvanceWith(advance func(t *testing.T, s ports.MetadataStore, d time.Duration)) MetadataOption {
	return func(x *metadataSuite) { x.advance = advance }
}

// ReopenWith opens what the store s holds again, after s was closed. Without it
// the cases about durability are not run.
func ReopenWith(reopen func(t *testing.T, s ports.MetadataStore) ports.MetadataStore) MetadataOption {
	return func(x *metadataSuite) { x.reopen = reopen }
}

// ShareWith opens what the store s holds a second time, while s is open, as
// another process would. Without it the cases about several processes are not run. The second
// store is closed at the end of t.
func ShareWith(share func(t *testing.T, s ports.MetadataStore) ports.MetadataStore) MetadataOption {
	return func(x *metadataSuite) { x.share = share }
}

// RaiseEpochWith sets the epoch of a producer name to epoch, past the port, where
// 32767 registrations would take too long.
func RaiseEpochWith(raise func(t *testing.T, s ports.MetadataStore, name string, epoch domain.Epoch)) MetadataOption {
	return func(x *metadataSuite) { x.raiseEpoch = raise }
}

// CheckWith looks at the inside of the store at the end of every case: what the
// port's own Inspection does not show, or shows through the same code as is tested. The store
// may be closed by then.
func CheckWith(check func(t *testing.T, s ports.MetadataStore)) MetadataOption {
	return func(x *metadataSuite) { x.check = check }
}

// Only runs no other groups of cases than the named ones: for what fills a part
// of ports.MetadataStore.
func Only(groups ...string) MetadataOption {
	return func(x *metadataSuite) { x.only = groups }
}

// TestMetadataStore checks that the stores that open returns keep the contract
// of ports.MetadataStore. Open makes an empty store and arranges that it is closed and removed
// at the end of t. It is called once a case.
func TestMetadataStore(t *testing.T, open func(t *testing.T) ports.MetadataStore, options ...MetadataOption) {
	x := &metadataSuite{open: open, check: func(*testing.T, ports.MetadataStore) {}}
	for _, o := range options {
		o(x)
	}
	groups := x.groups()
	for _, name := range x.only {
		if !slices.ContainsFunc(groups, func(g metadataGroup) bool { return g.name == name }) {
			t.Errorf("there is no group of cases %q", name)
		}
	}
	for _, g := range groups {
		if x.only != nil && !slices.Contains(x.only, g.name) {
			continue
		}
		t.Run(g.name, func(t *testing.T) { x.runAll(t, g.cases) })
	}
}

type metadataGroup struct {
	name  string
	cases []metadataCase
}

// groups returns the cases that the adapter's options allow.
func (x *metadataSuite) groups() []metadataGroup {
	all := []metadataGroup{
		{"Topics", topicCases},
		{"Reserve", reserveCases},
		{"Commit", commitCases},
		{"Replay", replayCases},
		{"Sequence", sequenceCases},
		{"Plan", planCases},
		{"Trim", trimCases},
		{"Producers", producerCases},
		{"Abandon", abandonCases},
		{"Subscribe", subscribeCases},
		{"Lifecycle", lifecycleCases},
		{"Retain", retainCases},
		{"Purge", purgeCases},
		{"Garbage", garbageCases},
		{"Replace", replaceCases},
		{"Inspection", inspectionCases},
		{"Race", slices.Concat(raceCases, upkeepRaceCases)},
	}
	if x.advance != nil {
		all = append(all, metadataGroup{"Expiry", expiryCases},
			metadataGroup{"RetainByAge", retainTimeCases}, metadataGroup{"GarbageByAge", garbageTimeCases})
	}
	if x.reopen != nil {
		all = append(all, metadataGroup{"Reopen", slices.Concat(reopenCases, upkeepReopenCases)})
	}
	if x.share != nil {
		all = append(all, metadataGroup{"Shared", slices.Concat(sharedCases, upkeepSharedCases)})
	}
	return all
}

type metadataSuite struct {
	open       func(*testing.T) ports.MetadataStore
	check      func(*testing.T, ports.MetadataStore)
	reopen     func(*testing.T, ports.MetadataStore) ports.MetadataStore
	share      func(*testing.T, ports.MetadataStore) ports.MetadataStore
	advance    func(*testing.T, ports.MetadataStore, time.Duration)
	raiseEpoch func(*testing.T, ports.MetadataStore, string, domain.Epoch)
	bubble     bool
	only       []string // groups; nil for all
}

type metadataCase struct {
	// must says what must hold.
	must string
	run  func(m *metadataUnderTest)
}

func (x *metadataSuite) runAll(t *testing.T, cases []metadataCase) {
	for _, c := range cases {
		t.Run(c.must, func(t *testing.T) {
			if x.bubble {
				synctest.Test(t, func(t *testing.T) { x.runOne(t, c) })
				return
			}
			x.runOne(t, c)
		})
	}
}

func (x *metadataSuite) runOne(t *testing.T, c metadataCase) {
	m := &metadataUnderTest{T: t, MetadataStore: x.open(t), suite: x}
	c.run(m)
	m.consistent()
	x.check(t, m.MetadataStore)
}
