package arch

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pages are the pages whose words about the code are checked.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/adr/*.md"} {
		names, err := filepath.Glob(filepath.Join(moduleRoot(t), filepath.FromSlash(pattern)))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all[name] = string(text)
		}
	}
	if len(all) < 9 {
		t.Fatalf("only %d pages were found", len(all))
	}
	return all
}

func TestPages_NameOnlyTestsThatExist(t *testing.T) {
	defined := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir(moduleRoot(t), func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := os.ReadFile(name)
		for _, m := range function.FindAllSubmatch(text, -1) {
			defined[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test\\w+)`")
	for page, text := range pages(t) {
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			if !defined[m[1]] {
				t.Errorf("%s names %s, which is not there", page, m[1])
			}
		}
	}
}

func TestPages_LinkOnlyToFilesThatExist(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)\)`)
	for page, text := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			}
		}
	}
}

func TestPages_NameOnlyFilesThatExist(t *testing.T) {
	path := regexp.MustCompile("`((?:domain|ports|app|adapters|cmd|test|docs)(?:/[\\w.]+)+)`")
	for page, text := range pages(t) {
		for _, m := range path.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(moduleRoot(t), m[1])); err != nil {
				t.Errorf("%s names %s: %v", page, m[1], err)
			}
		}
	}
}

// TestReadme_ShowsOnlyCodeThatIsATest looks for each line of the README's blocks of
// Go code in one of the examples, in the same order.
func TestReadme_ShowsOnlyCodeThatIsATest(t *testing.T) {
	root := moduleRoot(t)
	blocks := strings.Split(pages(t)[filepath.Join(root, "README.md")], "```go\n")[1:]
	if len(blocks) < 2 {
		t.Fatalf("the README shows %d blocks of Go code", len(blocks))
	}
	for _, block := range blocks {
		code, _, _ := strings.Cut(block, "```")
		var missing []string
		for _, adapter := range []string{"local", "grpc"} {
			example, err := os.ReadFile(filepath.Join(root, "adapters", adapter, "example_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			if missing = missingLine(code, string(example), missing); missing == nil {
				break
			}
		}
		if missing != nil {
			t.Errorf("no example has, in this order, what the README shows; each misses one of: %q", missing)
		}
	}
}

// missingLine returns nil if text has all lines of code in their order, else missing
// and the first line that it has not.
func missingLine(code, text string, missing []string) []string {
	for line := range strings.Lines(code) {
		line = strings.TrimSpace(line)
		_, after, found := strings.Cut(text, line)
		if !found {
			return append(missing, line)
		}
		text = after
	}
	return nil
}
