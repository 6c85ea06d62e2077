// Package arch holds the import rule of this repository, and the test that
// fails on any import the rule does not allow.
//
// Files are parsed one by one with go/parser, so a file is judged whatever its
// build tags are, and no cached answer of the go command is believed.
package arch

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// A Violation is one import that the rule forbids, or one file in a folder
// that the rule does not know.
type Violation struct {
	File   string // relative to the module's root, with slashes
	Import string // empty when the file itself is the fault
	Why    string
}

func (v Violation) String() string {
	if v.Import == "" {
		return v.File + ": " + v.Why
	}
	return fmt.Sprintf("%s imports %q: %s", v.File, v.Import, v.Why)
}

// Check judges every Go file below root, which is the folder of the module
// called module, and returns what the rule forbids in the order of the paths.
// Folders that the go command ignores (testdata, and names that begin with "."
// or "_") are passed over. A file that cannot be read or parsed is an error.
func Check(root, module string) ([]Violation, error) {
	var found []Violation
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			if name != root && ignored(entry.Name()) {
				return filepath.SkipDir
			}
			return nil
		case filepath.Ext(name) != ".go":
			return nil
		}
		relative, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		faults, err := checkFile(name, filepath.ToSlash(relative), module)
		found = append(found, faults...)
		return err
	})
	return found, err
}

func ignored(folder string) bool {
	return folder == "testdata" || folder[0] == '.' || folder[0] == '_'
}

func checkFile(name, relative, module string) ([]Violation, error) {
	source, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), relative, source, parser.ImportsOnly)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", relative, err)
	}
	where, known := roomOf(path.Dir(relative))
	if !known {
		return []Violation{{File: relative, Why: "no room of that name: a new package needs a line in test/arch/rules.go with its reason, a new kind of room an ADR"}}, nil
	}
	f := file{folder: path.Dir(relative), room: where, test: strings.HasSuffix(relative, "_test.go"), module: module}
	var found []Violation
	for _, spec := range parsed.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", relative, err)
		}
		if why := f.forbids(imported); why != "" {
			found = append(found, Violation{File: relative, Import: imported, Why: why})
		}
	}
	return found, nil
}

func roomOf(folder string) (room, bool) {
	for _, r := range rooms {
		if matches(r.path, folder) {
			return r, true
		}
	}
	return room{}, false
}

// file is one file to be judged: the folder it lies in, the room that folder
// belongs to, and whether it is a test.
type file struct {
	folder string
	room   room
	test   bool
	module string
}

// forbids returns why the file may not import the package, or "" if it may.
func (f file) forbids(imported string) string {
	switch own, ours := strings.CutPrefix(imported+"/", f.module+"/"); {
	case imported == "C":
		return "no cgo: the binary is built anywhere from Go alone"
	case strings.HasPrefix(imported, "."):
		return "imports are named from the module, not relative to a folder"
	case ours && own == "":
		return f.forbidsOwn(".")
	case ours:
		return f.forbidsOwn(strings.TrimSuffix(own, "/"))
	case !strings.Contains(strings.Split(imported, "/")[0], "."):
		return f.forbidsStandard(imported)
	default:
		return f.forbidsLibrary(imported)
	}
}

func (f file) forbidsOwn(imported string) string {
	if imported == f.folder || strings.HasPrefix(imported, f.folder+"/") && f.folder != "." {
		return ""
	}
	if matchesAny(f.room.may, imported) || f.test && matchesAny(f.helpers(), imported) {
		return ""
	}
	return f.room.why
}

// helpers are the packages that only the test files of the room may import.
func (f file) helpers() []string {
	switch {
	case f.room.why == whyArch:
		return nil
	case matches("domain/...", f.folder):
		return helpersOfInnerTests
	case matches("adapters/...", f.folder):
		return helpersOfAdapterTests
	default:
		return helpersOfTests
	}
}

func (f file) forbidsStandard(imported string) string {
	switch {
	case f.isTest():
		return ""
	case matchesAny(testingStd, imported):
		return "testing packages stay out of production code"
	case matches("domain/...", f.folder) && matchesAny(impureStd, imported):
		return "domain decides; it reads no file, socket or environment"
	}
	return ""
}

func (f file) forbidsLibrary(imported string) string {
	for _, l := range libraries {
		if imported != l.module && !strings.HasPrefix(imported, l.module+"/") {
			continue
		}
		if matchesAny(l.rooms, f.folder) || l.tests && f.isTest() {
			return ""
		}
		return l.why
	}
	return "no line in test/arch/rules.go says where this module may be used; it needs one, and a reason in docs/DEPENDENCIES.md"
}

func (f file) isTest() bool { return f.test || matchesAny(testingRooms, f.folder) }

func matchesAny(patterns []string, folder string) bool {
	for _, pattern := range patterns {
		if matches(pattern, folder) {
			return true
		}
	}
	return false
}

// matches reports whether folder is the pattern, or lies below it when the
// pattern ends in "/...".
func matches(pattern, folder string) bool {
	tree, all := strings.CutSuffix(pattern, "/...")
	return folder == tree || all && strings.HasPrefix(folder, tree+"/")
}
