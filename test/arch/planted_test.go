package arch

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each row is one file with one forbidden import; Check must find it and say
// the reason. The rule is worth what this table is.
func TestCheck_FindsEachForbiddenKind(t *testing.T) {
	const own = module + "/"
	for _, planted := range []struct{ name, file, imports, why string }{
		{"domain imports ports", "domain/x.go", own + "ports", whyDomain},
		{"domain imports a use case", "domain/batch/x.go", own + "app/producer", whyDomain},
		{"domain imports an adapter", "domain/segment/x.go", own + "adapters/codec", whyDomain},
		{"domain imports a library", "domain/batch/x.go", "github.com/pierrec/lz4/v4", "compression lives"},
		{"domain opens files", "domain/x.go", "os", "domain decides"},
		{"domain talks to the network", "domain/batch/x.go", "net/http", "domain decides"},
		{"domain's test imports an adapter", "domain/x_test.go", own + "adapters/memory", whyDomain},
		{"ports import a use case", "ports/x.go", own + "app/producer", whyPorts},
		{"ports import an adapter", "ports/x.go", own + "adapters/memory", whyPorts},
		{"ports import a library", "ports/x.go", "github.com/gofrs/flock", "file locks"},
		{"a suite imports an adapter", "ports/portstest/x.go", own + "adapters/memory", whySuites},
		{"a use case imports an adapter", "app/producer/x.go", own + "adapters/direct", whyApp},
		{"a use case imports another", "app/consumer/x.go", own + "app/topics", whyApp},
		{"a use case imports the root", "app/consumer/x.go", module, whyApp},
		{"a use case imports SQLite", "app/topics/x.go", "modernc.org/sqlite", "SQL lives"},
		{"an adapter imports another", "adapters/sqlite/x.go", own + "adapters/memory", whyAdapter},
		{"an adapter imports a use case", "adapters/direct/x.go", own + "app/producer", whyAdapter},
		{"an adapter imports another's library", "adapters/localfs/x.go", "github.com/pressly/goose/v3", "migrations"},
		{"an adapter's test imports a far one", "adapters/codec/x_test.go", own + "adapters/sqlite", whyAdapter},
		{"local imports memory", "adapters/local/x.go", own + "adapters/memory", whyLocal},
		{"the root imports a store", "x.go", own + "adapters/sqlite", whyRoot},
		{"the root imports fault injection", "x.go", own + "adapters/fault", whyRoot},
		{"the root imports the command", "x_test.go", own + "cmd/streamhouse/settings", whyRoot},
		{"the command imports fault injection", "cmd/streamhouse/x.go", own + "adapters/fault", whyCommand},
		{"the command imports a suite", "cmd/streamhouse/x.go", own + "ports/portstest", whyCommand},
		{"the command imports a test", "cmd/streamhouse/x.go", own + "test/sim/history", whyCommand},
		{"fx outside of wiring", "cmd/streamhouse/x.go", "go.uber.org/fx", "container"},
		{"fx in a test outside of wiring", "cmd/streamhouse/x_test.go", "go.uber.org/fx/fxtest", "container"},
		{"fx in the core", "app/producer/x.go", "go.uber.org/fx", "container"},
		{"SQLite outside of its adapter", "cmd/streamhouse/x.go", "modernc.org/sqlite/lib", "SQL lives"},
		{"FUSE outside of its test", "adapters/localfs/x_test.go", "github.com/hanwen/go-fuse/v2/fs", "loses power"},
		{"a testing library in production", "adapters/sqlite/x.go", "go.uber.org/goleak", "testing libraries"},
		{"property tests in production", "domain/x.go", "pgregory.net/rapid", "testing libraries"},
		{"franz-go in production", "domain/batch/x.go", "github.com/twmb/franz-go/pkg/kmsg", "oracle"},
		{"package testing in production", "app/producer/x.go", "testing", "testing packages"},
		{"synctest in production", "adapters/memory/x.go", "testing/synctest", "testing packages"},
		{"httptest in production", "cmd/streamhouse/x.go", "net/http/httptest", "testing packages"},
		{"a test imports the command", "test/sim/x_test.go", own + "cmd/streamhouse/settings", whyTestRoom},
		{"a use case's test imports real servers", "app/producer/x_test.go", own + "test/e2e/servers", whyApp},
		{"an adapter imports real servers", "adapters/s3/x.go", own + "test/e2e/servers", whyAdapter},
		{"servers import an adapter", "test/e2e/servers/x.go", own + "adapters/s3", whyServers},
		{"a proxy's test imports the product", "test/e2e/faultproxy/x_test.go", own + "adapters/sqlite", whyServers},
		{"PostgreSQL outside of its adapter", "adapters/sqlite/x_test.go", "github.com/jackc/pgx/v5", "SQL for PostgreSQL"},
		{"arch imports what it judges", "test/arch/x_test.go", own + "domain", whyArch},
		{"an unknown module", "adapters/sqlite/x.go", "example.com/other", "no line in test/arch"},
		{"a module that begins like a known one", "adapters/sqlite/x.go", "modernc.org/sqlitex", "no line in test/arch"},
		{"a package that begins like a known one", "app/producer/x.go", own + "portsx", whyApp},
		{"cgo", "domain/x.go", "C", "no cgo"},
		{"a relative import", "domain/x.go", "./batch", "not relative"},
	} {
		t.Run(planted.name, func(t *testing.T) {
			root := plant(t, planted.file, fmt.Sprintf("package x\n\nimport _ %q\n", planted.imports))
			wantOne(t, root, planted.file, planted.imports, planted.why)
		})
	}
}

func TestCheck_JudgesFilesOfEveryBuildTag(t *testing.T) {
	for _, tag := range []string{"ignore", "mutants", "windows && arm64", "never"} {
		t.Run(tag, func(t *testing.T) {
			root := plant(t, "domain/x.go", "//go:build "+tag+"\n\npackage domain\n\nimport _ \""+module+"/ports\"\n")
			wantOne(t, root, "domain/x.go", module+"/ports", whyDomain)
		})
	}
	t.Run("by file name", func(t *testing.T) {
		root := plant(t, "domain/x_plan9.go", "package domain\n\nimport _ \""+module+"/ports\"\n")
		wantOne(t, root, "domain/x_plan9.go", module+"/ports", whyDomain)
	})
}

func TestCheck_RefusesUnknownRooms(t *testing.T) {
	for _, file := range []string{"util/x.go", "adapters/x.go", "adapters/mongo/x.go", "app/x.go", "domain/batch/inner/x.go", "test/x.go", "cmd/other/main.go", "internal/x/x_test.go"} {
		t.Run(file, func(t *testing.T) {
			wantOne(t, plant(t, file, "package x\n"), file, "", "no room of that name")
		})
	}
}

func TestCheck_AllowsWhatTheRuleAllows(t *testing.T) {
	const own = module + "/"
	for _, fine := range []struct{ file, imports string }{
		{"x.go", own + "adapters/direct"},
		{"x_test.go", module},
		{"domain/x.go", "github.com/dchest/siphash"},
		{"domain/x_test.go", "pgregory.net/rapid"},
		{"domain/x_test.go", "os"},
		{"app/producer/x.go", own + "domain/batch"},
		{"app/producer/x_test.go", own + "adapters/memory"},
		{"adapters/local/x.go", own + "adapters/sqlite"},
		{"adapters/sqlite/x_test.go", own + "ports/portstest"},
		{"adapters/s3/x_test.go", own + "test/e2e/servers"},
		{"adapters/sqlite/x_test.go", own + "test/e2e/faultproxy"},
		{"test/e2e/servers/x.go", "github.com/jackc/pgx/v5"},
		{"cmd/streamhouse/x.go", own + "cmd/streamhouse/wiring"},
		{"cmd/streamhouse/wiring/x.go", "go.uber.org/fx"},
		{"ports/portstest/x.go", "testing"},
		{"test/sim/x.go", own + "adapters/fault"},
	} {
		t.Run(fine.file+" "+fine.imports, func(t *testing.T) {
			root := plant(t, fine.file, fmt.Sprintf("package x\n\nimport _ %q\n", fine.imports))
			if found, err := Check(root, module); err != nil || len(found) != 0 {
				t.Fatalf("found %v, error %v", found, err)
			}
		})
	}
}

func TestCheck_AFileThatDoesNotParseIsAnError(t *testing.T) {
	if _, err := Check(plant(t, "domain/x.go", "package\n"), module); err == nil {
		t.Fatal("a file that could not be read was passed over")
	}
}

func TestCheck_PassesOverFoldersTheGoCommandIgnores(t *testing.T) {
	root := plant(t, "domain/testdata/x.go", "package\n")
	if found, err := Check(root, module); err != nil || len(found) != 0 {
		t.Fatalf("found %v, error %v", found, err)
	}
}

func plant(t *testing.T, file, source string) (root string) {
	t.Helper()
	root = t.TempDir()
	name := filepath.Join(root, filepath.FromSlash(file))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	return root
}

func wantOne(t *testing.T, root, file, imported, why string) {
	t.Helper()
	found, err := Check(root, module)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].File != file || found[0].Import != imported || !strings.Contains(found[0].Why, why) {
		t.Fatalf("found %v, want one violation of %s importing %q because %q", found, file, imported, why)
	}
}
