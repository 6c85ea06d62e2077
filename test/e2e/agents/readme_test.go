package agents_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/streamhouse/streamhouse/test/e2e/loopback"
)

// TestServe_OfNothingDoesWhatTheReadmeSays runs `serve` without flags in an empty
// folder, and the README's commands through it; only the ports are others, by the environment.
func TestServe_OfNothingDoesWhatTheReadmeSays(t *testing.T) {
	t.Parallel()
	listen, admin := freeAddress(t), freeAddress(t)
	dir, bin := t.TempDir(), t.TempDir()
	must(t, os.Symlink(binary(t, ""), filepath.Join(bin, "streamhouse")))
	env := environment("STREAMHOUSE_LISTEN="+listen, "STREAMHOUSE_ADMIN="+admin, "PATH="+bin+":"+os.Getenv("PATH"))
	serve := exec.CommandContext(t.Context(), filepath.Join(bin, "streamhouse"), "serve")
	var said bytes.Buffer
	serve.Dir, serve.Env, serve.Stderr = dir, env, &said
	must(t, serve.Start())
	t.Cleanup(func() { _ = serve.Process.Kill() }) // it has ended if the test went well

	shell := func(line string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "bash", "-c", line)
		cmd.Dir, cmd.Env = t.TempDir(), env
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	commands := readmeCommands(t, listen)
	eventually(t, "create the topic", func() error {
		_, err := shell("streamhouse topic create orders --partitions 3 --agents " + listen)
		return err
	})
	for _, line := range commands {
		line = strings.Replace(line, "< lines", `< <(printf 'a\nb\nc\n')`, 1)
		if out, err := shell(line); err != nil {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
	out, err := shell("streamhouse consume orders --agents " + listen)
	if err != nil || len(strings.Fields(out)) != 3 || !strings.Contains(out, "b\n") {
		t.Errorf("consume: %v\n%s", err, out)
	}
	if files, err := os.ReadDir(filepath.Join(dir, "data")); err != nil || len(files) == 0 {
		t.Errorf("serve has made no ./data: %v", err)
	}
	must(t, serve.Process.Signal(syscall.SIGTERM))
	if err := serve.Wait(); err != nil {
		t.Errorf("serve: %v\n%s", err, &said)
	}
}

// readmeCommands are the commands of the README's part on agents after serve,
// with the address of this test's agent.
func readmeCommands(t *testing.T, address string) (commands []string) {
	t.Helper()
	text, err := os.ReadFile("../../../README.md")
	must(t, err)
	_, section, _ := strings.Cut(string(text), "\n## Agents\n")
	_, block, _ := strings.Cut(section, "```sh\n")
	block, _, closed := strings.Cut(block, "\n```")
	for line := range strings.Lines(block) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "streamhouse serve") {
			commands = append(commands, strings.ReplaceAll(line, "127.0.0.1:7070", address))
		}
	}
	if !closed || len(commands) == 0 || !strings.Contains(strings.Join(commands, "\n"), address) {
		t.Fatalf("the README's part on agents has the commands %q", commands)
	}
	return commands
}

func freeAddress(t *testing.T) string {
	t.Helper()
	port, err := loopback.FreePort()
	must(t, err)
	return loopback.Addr(port)
}
