package blackbox_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadme_FirstCommandRunsAsWritten runs the README's first command in a
// copy of the sources without any data, and reads the two records back.
func TestReadme_FirstCommandRunsAsWritten(t *testing.T) {
	const root = "../../.."
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, first, _ := strings.Cut(string(readme), "```sh\n")
	first, _, closed := strings.Cut(first, "\n```")
	if !closed || !strings.HasPrefix(first, "printf ") || strings.Contains(first, "\n") {
		t.Fatalf("the README's first command is %q, want one line", first)
	}
	dir := t.TempDir()
	copySources(t, root, dir)
	cmd := exec.CommandContext(t.Context(), "bash", "-c", first)
	cmd.Dir, cmd.Env = dir, environment()
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "sent 2 records to orders") {
		t.Fatalf("%s: %v\n%s", first, err, out)
	}
	out := must(t, dir, "", "consume", "orders", "--key-separator", `\t`)
	if out.stdout != "user123\tsigned up\nuser456\tpaid\n" {
		t.Errorf("read back %q", out.stdout)
	}
}

// copySources copies what the go command needs.
func copySources(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		switch base := entry.Name(); {
		case entry.IsDir() && relative != "." && (base[0] == '.' || base == "bin" || base == "data" || base == "test" || base == "testdata"):
			return filepath.SkipDir
		case entry.IsDir():
			return os.MkdirAll(filepath.Join(to, relative), 0o755)
		case strings.HasSuffix(base, "_test.go"):
			return nil
		}
		switch filepath.Ext(name) {
		case ".go", ".mod", ".sum", ".sql", ".md":
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(to, relative), text, 0o644)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
