package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxLines is how long a file may be; house.md says why.
const maxLines = 600

var unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b`)

func TestHabits_NoTestSkipsOrHopes(t *testing.T) {
	faults, err := judgeHabits(moduleRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range faults {
		t.Error(fault)
	}
}

func TestHabits_FindsEachPlantedFault(t *testing.T) {
	const head = "package x\n\nimport (\n\t\"testing\"\n\t\"time\"\n)\n\n"
	for _, planted := range []struct{ name, file, source, want string }{
		{"a skip", "x_test.go", head + "func TestX(t *testing.T) { t.Skip(time.Now()) }\n", "skips"},
		{"a skip with words", "x_test.go", head + "func TestX(t *testing.T) { t.Skipf(\"no\") ; _ = time.Now }\n", "skips"},
		{"a skip in a suite", "portstest/x.go", head + "func Run(t testing.TB) { t.SkipNow() ; _ = time.Now }\n", "skips"},
		{"a sleep in real time", "x_test.go", head + "func TestX(t *testing.T) { time.Sleep(1) }\n", "sleeps"},
		{"work left over", "x.go", "package x\n\n// TO" + "DO: the rest.\n", "left over"},
		{"a file without end", "x.go", "package x\n" + strings.Repeat("\n", maxLines), "lines"},
	} {
		t.Run(planted.name, func(t *testing.T) {
			faults, err := judgeHabits(plant(t, planted.file, planted.source))
			if err != nil || len(faults) != 1 || !strings.Contains(faults[0], planted.want) {
				t.Fatalf("found %q, error %v, want one fault with %q", faults, err, planted.want)
			}
		})
	}
}

// judgeHabits returns what the files below root do against the house's habits.
func judgeHabits(root string) ([]string, error) {
	var sources []source
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != root && ignored(entry.Name()):
			return filepath.SkipDir
		case entry.IsDir() || filepath.Ext(name) != ".go":
			return nil
		case strings.HasSuffix(name, ".pb.go"): // generated: `make protocol` judges it
			return nil
		}
		s, err := parse(name)
		sources = append(sources, s)
		return err
	})
	var virtual []string // folders in which time is virtual
	for _, s := range sources {
		if slices.ContainsFunc(s.parsed.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"testing/synctest"` }) {
			virtual = append(virtual, filepath.Dir(s.name))
		}
	}
	var faults []string
	for _, s := range sources {
		faults = append(faults, s.judge(slices.Contains(virtual, filepath.Dir(s.name)))...)
	}
	return faults, err
}

type source struct {
	name   string
	lines  int
	files  *token.FileSet
	parsed *ast.File
}

func parse(name string) (source, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return source{}, err
	}
	s := source{name: name, lines: strings.Count(string(text), "\n"), files: token.NewFileSet()}
	s.parsed, err = parser.ParseFile(s.files, name, text, parser.ParseComments)
	return s, err
}

func (s source) judge(virtualTime bool) (faults []string) {
	if s.lines > maxLines {
		faults = append(faults, fmt.Sprintf("%s has %d lines, over %d: split it", s.name, s.lines, maxLines))
	}
	for _, group := range s.parsed.Comments {
		if word := unfinished.FindString(group.Text()); word != "" {
			faults = append(faults, fmt.Sprintf("%s: %s: work left over belongs in an issue", s.files.Position(group.Pos()), word))
		}
	}
	test := strings.HasSuffix(s.name, "_test.go") || strings.Contains(filepath.ToSlash(s.name), "/portstest/")
	if !test {
		return faults
	}
	ast.Inspect(s.parsed, func(n ast.Node) bool {
		call, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		of, ok := call.X.(*ast.Ident)
		switch {
		case !ok:
		case of.Name == "time" && call.Sel.Name == "Sleep" && !virtualTime:
			faults = append(faults, fmt.Sprintf("%s: a test sleeps in real time: wait for a channel, or run in a synctest bubble", s.files.Position(n.Pos())))
		case slices.Contains([]string{"t", "b", "f", "tb"}, of.Name) && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, call.Sel.Name):
			faults = append(faults, fmt.Sprintf("%s: a test skips: one that cannot run must fail and say what it needs", s.files.Position(n.Pos())))
		}
		return true
	})
	return faults
}
