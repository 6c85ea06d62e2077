package agents_test

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
)

// entry is an agent as `agent list` has it.
type entry struct{ Address, Version string }

// list is what `agent list` prints, asked of the agent.
func (f *fleet) list(of *agent) (all []entry) {
	f.Helper()
	out := f.command("", "agent", "list", "--agents", of.address(), "--output", "json")
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		f.Fatalf("agent list printed %q: %v", out, err)
	}
	return all
}

// command runs the command to its end, which must be a good one.
func (f *fleet) command(stdin string, args ...string) (stdout string) {
	f.Helper()
	cmd := exec.CommandContext(f.Context(), f.binary, args...)
	var out, said bytes.Buffer
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = environment(), strings.NewReader(stdin), &out, &said
	if err := cmd.Run(); err != nil {
		f.Fatalf("streamhouse %s: %v\n%s", strings.Join(args, " "), err, &said)
	}
	return out.String()
}

// status is what an agent says of itself.
type status struct {
	Batches     int64
	Connections int
}

func (a *agent) status() (s status) {
	a.fleet.Helper()
	_, text, err := a.get("/status")
	must(a.fleet.T, err)
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		a.fleet.Fatalf("status printed %q: %v", text, err)
	}
	return s
}
