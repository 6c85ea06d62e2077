package arch

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/streamhouse/streamhouse"

func TestImports_KeepTheRule(t *testing.T) {
	found, err := Check(moduleRoot(t), module)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range found {
		t.Error(v)
	}
}

func TestRules_NameOnlyModulesOfGoMod(t *testing.T) {
	direct := directModules(t)
	for _, l := range libraries {
		if !slices.ContainsFunc(direct, func(m string) bool { return m == l.module || strings.HasPrefix(m, l.module+"/") }) {
			t.Errorf("test/arch/rules.go allows %s, which go.mod does not require", l.module)
		}
	}
}

func TestDependencies_EachDirectModuleHasItsReason(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(moduleRoot(t), "docs", "DEPENDENCIES.md"))
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|[^|]*[a-z][^|]*\\|")
	var reasoned []string
	for _, m := range line.FindAllSubmatch(page, -1) {
		reasoned = append(reasoned, string(m[1]))
	}
	direct := directModules(t)
	for _, m := range direct {
		if !slices.Contains(reasoned, m) {
			t.Errorf("docs/DEPENDENCIES.md has no line with a reason for %s", m)
		}
	}
	for _, m := range reasoned {
		if !slices.Contains(direct, m) {
			t.Errorf("docs/DEPENDENCIES.md names %s, which go.mod does not require directly", m)
		}
	}
}

// moduleRoot is the nearest folder upwards with a go.mod.
func moduleRoot(t *testing.T) string {
	t.Helper()
	folder, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(folder, "go.mod")); err == nil {
			return folder
		}
		if folder == filepath.Dir(folder) {
			t.Fatal("no go.mod in any folder above")
		}
		folder = filepath.Dir(folder)
	}
}

// directModules reads the modules of go.mod that are not marked indirect.
func directModules(t *testing.T) []string {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(moduleRoot(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	require := regexp.MustCompile(`(?m)^\t(\S+) v\S+$`)
	var modules []string
	for _, m := range require.FindAllSubmatch(source, -1) {
		modules = append(modules, string(m[1]))
	}
	if len(modules) == 0 {
		t.Fatal("go.mod requires no module: is it still read right?")
	}
	return modules
}
