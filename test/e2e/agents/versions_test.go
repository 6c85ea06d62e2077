package agents_test

import (
	"encoding/json"
	"maps"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// versions are two binaries and what they say they are.
type versions struct{ oldBinary, old, newBinary, new string }

// versionsOf gives the binary of -older, else this one twice, under two
// versions: as long as no release is older than the protocol, what earlier ones said is in the golden
// frames of adapters/grpc.
func versionsOf(t *testing.T) versions {
	t.Helper()
	v := versions{oldBinary: *older}
	if v.oldBinary == "" {
		v.oldBinary, v.newBinary = binary(t, "v0.0.1-older"), binary(t, "")
	} else {
		v.newBinary = binary(t, "v9.9.9-newer") // whatever that release says it is
	}
	v.old, v.new = versionOf(t, v.oldBinary), versionOf(t, v.newBinary)
	if v.old == v.new {
		t.Fatalf("both binaries are of version %s", v.old)
	}
	return v
}

func versionOf(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.Command(path, "version", "--output", "json").Output()
	must(t, err)
	var says struct{ Version string }
	must(t, json.Unmarshal(out, &says))
	return says.Version
}

// TestAgents_OldAndNewBesideEachOtherAreOneGroup begins with three old agents, makes
// them new one by one, and takes one back, as an upgrade that is thought over. All the while
// clients send and read through whichever they have; in the middle agents are killed, so that what
// one version has begun the other one ends.
func TestAgents_OldAndNewBesideEachOtherAreOneGroup(t *testing.T) {
	t.Parallel()
	v := versionsOf(t)
	f := newFleet(t, nil)
	f.binary = v.oldBinary
	for range 3 {
		f.add().start()
	}
	run := f.run(time.Second) // clients that look for an agent anew
	change := func(a *agent, to string) {
		f.someRecords(run, 50)
		a.drain()
		a.binary = to
		a.start()
	}
	change(f.agents[0], v.newBinary)
	if want, got := []string{v.old, v.old, v.new}, f.listed(); !slices.Equal(got, sorted(want)) {
		t.Errorf("agent list shows the versions %q, want %q", got, sorted(want))
	}
	for end := time.Now().Add(*duration / 4); ; {
		for _, a := range f.agents {
			f.someRecords(run, 50)
			a.kill()
			a.start()
		}
		if !time.Now().Before(end) {
			break
		}
	}
	change(f.agents[1], v.newBinary)
	change(f.agents[2], v.newBinary)
	change(f.agents[2], v.oldBinary)
	f.someRecords(run, 50)
	if want, got := []string{v.old, v.new, v.new}, f.listed(); !slices.Equal(got, sorted(want)) {
		t.Errorf("agent list shows the versions %q, want %q", got, sorted(want))
	}
	run.Finish(t)
	t.Logf("%s beside %s: %s", v.old, v.new, &run.Counts)
	if n := run.Failed.Load() + run.Unknown.Load() + run.Stored.Load(); n != 0 {
		t.Errorf("%d records were not acknowledged", n)
	}
	f.end()
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}

// listed are the versions of the agents that `agent list` shows, sorted.
func (f *fleet) listed() (all []string) {
	f.Helper()
	youngest := make(map[string]string) // at an address; those that were killed are listed for a while
	for _, e := range f.list(f.agents[0]) {
		youngest[e.Address] = e.Version
	}
	return slices.Sorted(maps.Values(youngest))
}
