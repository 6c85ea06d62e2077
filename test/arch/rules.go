package arch

// A room is a folder of Go files and what its files may import of this module.
// Paths are relative to the module's root; "x/..." means x and all below it.
type room struct {
	path string   // where it is; "." is the root package
	may  []string // packages of this module its production files may import, besides those below its own folder
	why  string   // the sentence of the rule, said in a failure
}

const (
	whyRoot     = "the root package is the library's face: it imports domain, ports, app and, by ADR 0002, adapters/direct and adapters/codec"
	whyDomain   = "domain knows nothing but the standard library, dchest/siphash and domain itself"
	whyPorts    = "ports imports domain only"
	whyWake     = "ports/wake is the list of subscriptions that metadata stores share, by ADR 0011; of this module it knows the planted bugs only"
	whySuites   = "a suite is written against domain and ports, never against one adapter"
	whyApp      = "a use case imports domain and ports, never an adapter and never another use case"
	whyAdapter  = "an adapter imports domain, ports and its own library; adapters do not know each other (adapters/local alone joins sqlite and localfs)"
	whyLocal    = "adapters/local joins sqlite and localfs, and runs the janitor of the folder that it opens"
	whyWire     = "adapters/grpc/agentv1 is generated from the protocol and knows nothing of this module"
	whyCommand  = "the command may import everything but test, the suites and adapters/fault"
	whyTestRoom = "test/... may import everything but the command, which it sees as a binary"
	whyServers  = "the servers and the proxies of tests know nothing of the product, so that the tests of any adapter may use them"
	whyArch     = "test/arch and test/report judge the others and import none of them"
)

// rooms lists every folder that may hold Go files. A folder that is not here is
// an error: a new room needs a reason, and usually an ADR.
var rooms = []room{
	{".", []string{"domain/...", "ports", "app/...", "adapters/direct", "adapters/codec"}, whyRoot},

	{"domain", nil, whyDomain},
	{"domain/batch", []string{"domain/..."}, whyDomain},
	{"domain/commit", []string{"domain/..."}, whyDomain},
	{"domain/mutant", nil, whyDomain},
	{"domain/segment", []string{"domain/..."}, whyDomain},
	{"domain/sequence", []string{"domain/..."}, whyDomain},

	{"ports", []string{"domain/..."}, whyPorts},
	{"ports/wake", []string{"domain/mutant"}, whyWake},
	{"ports/portstest", []string{"domain/...", "ports"}, whySuites},

	{"app/agent", []string{"domain/...", "ports"}, whyApp},
	{"app/janitor", []string{"domain/...", "ports"}, whyApp},
	{"app/consumer", []string{"domain/...", "ports"}, whyApp},
	{"app/producer", []string{"domain/...", "ports"}, whyApp},
	{"app/storecheck", []string{"domain/...", "ports"}, whyApp},
	{"app/verify", []string{"domain/...", "ports"}, whyApp},
	{"app/topics", []string{"domain/...", "ports"}, whyApp},

	{"adapters/cache", []string{"domain/...", "ports"}, whyAdapter},
	{"adapters/codec", []string{"domain/...", "ports"}, whyAdapter},
	{"adapters/direct", []string{"domain/...", "ports"}, whyAdapter},
	{"adapters/fault", []string{"domain/...", "ports"}, whyAdapter},
	{"adapters/grpc", []string{"domain/...", "ports"}, whyAdapter},
	{"adapters/grpc/agentv1", nil, whyWire},
	{"adapters/local", []string{"domain/...", "ports", "adapters/sqlite", "adapters/localfs", "app/janitor"}, whyLocal},
	{"adapters/localfs", []string{"domain/...", "ports"}, whyAdapter},
	{"adapters/memory", []string{"domain/...", "ports", "ports/wake"}, whyAdapter},
	{"adapters/postgres", []string{"domain/...", "ports", "ports/wake"}, whyAdapter},
	{"adapters/s3", []string{"domain/...", "ports"}, whyAdapter},
	{"adapters/otel", []string{"domain/...", "ports"}, whyAdapter},
	{"adapters/prom", []string{"domain/...", "ports"}, whyAdapter},
	{"adapters/sqlite", []string{"domain/...", "ports", "ports/wake"}, whyAdapter},

	{"cmd/streamhouse/...", command, whyCommand},

	{"test/arch", nil, whyArch},
	{"test/report", nil, whyArch},
	{"test/sim/...", anything, whyTestRoom},
	{"test/e2e/loopback", nil, whyServers},
	{"test/e2e/servers", []string{"test/e2e/loopback"}, whyServers},
	{"test/e2e/servers/build", []string{"test/e2e/servers"}, whyServers},
	{"test/e2e/faultproxy", []string{"test/e2e/loopback", "test/e2e/servers"}, whyServers},
	{"test/e2e/containers", []string{"test/e2e/servers"}, whyServers},
	{"test/e2e/deploy", nil, whyServers},
	{"test/e2e/...", anything, whyTestRoom},
}

var (
	command = []string{
		".", "domain/...", "ports", "app/...", "cmd/streamhouse/...",
		"adapters/cache", "adapters/codec", "adapters/direct", "adapters/grpc", "adapters/local", "adapters/localfs", "adapters/memory", "adapters/otel", "adapters/postgres", "adapters/prom",
		"adapters/s3", "adapters/sqlite",
	}
	anything = []string{".", "domain/...", "ports/...", "app/...", "adapters/...", "test/..."}
)

// What the test files of a room may import besides what its production files may.
var (
	helpersOfInnerTests = []string{"domain/..."}
	helpersOfTests      = []string{
		".", "domain/...", "ports/...", "adapters/memory", "adapters/fault", "adapters/codec", "adapters/direct",
	}
	// Adapters of servers are tested against real ones, through proxies that fail on purpose.
	helpersOfAdapterTests = append([]string{"test/e2e/servers", "test/e2e/faultproxy"}, helpersOfTests...)
)

// A library is a third-party module and the rooms that may use it.
type library struct {
	module string
	rooms  []string // production and test files of these rooms
	tests  bool     // and the test files of every room, and the testing rooms
	why    string
}

// libraries lists every module that may be imported. One that is not here is
// an error: it needs a line here and a reason in docs/DEPENDENCIES.md.
var libraries = []library{
	{module: "github.com/dchest/siphash", rooms: []string{"domain"}, why: "the hash of keys is a word of the domain"},
	{module: "github.com/pierrec/lz4/v4", rooms: []string{"adapters/codec"}, why: "compression lives in adapters/codec"},
	{module: "modernc.org/sqlite", rooms: []string{"adapters/sqlite"}, why: "SQL lives in adapters/sqlite; its driver's types cross no port"},
	{module: "github.com/pressly/goose/v3", rooms: []string{"adapters/sqlite", "adapters/postgres"}, why: "migrations belong to the store they migrate"},
	{module: "github.com/fsnotify/fsnotify", rooms: []string{"adapters/sqlite"}, why: "watching the metadata file is SQLite's way of waking readers"},
	{module: "github.com/aws/aws-sdk-go-v2", rooms: []string{"adapters/s3"}, why: "S3 lives in adapters/s3; the SDK's types cross no port"},
	{module: "github.com/aws/smithy-go", rooms: []string{"adapters/s3"}, why: "S3 lives in adapters/s3; the SDK's types cross no port"},
	{module: "github.com/jackc/pgx/v5", rooms: []string{"adapters/postgres", "test/e2e/..."}, why: "SQL for PostgreSQL lives in adapters/postgres, and in the tests that run a server"},
	{module: "github.com/gofrs/flock", rooms: []string{"adapters/sqlite", "adapters/localfs"}, why: "file locks belong to the stores in files"},
	{module: "golang.org/x/sys", rooms: []string{"adapters/localfs", "adapters/sqlite", "cmd/streamhouse/...", "test/..."}, tests: true, why: "system calls belong to the stores in files and to the command"},
	{module: "github.com/prometheus/client_golang", rooms: []string{"adapters/prom", "cmd/streamhouse/..."}, why: "metrics live in adapters/prom, and the command serves them"},
	{module: "github.com/prometheus/client_model", rooms: []string{"cmd/streamhouse/bench"}, why: "bench reads what agents have used"},
	{module: "github.com/prometheus/common", rooms: []string{"cmd/streamhouse/bench"}, why: "bench reads what agents have used"},
	{module: "go.opentelemetry.io/otel", rooms: []string{"adapters/otel", "cmd/streamhouse/tracing"}, tests: true, why: "spans are made in adapters/otel and sent by cmd/streamhouse/tracing; everything else knows ports.Tracer"},
	{module: "github.com/spf13/cobra", rooms: []string{"cmd/streamhouse"}, why: "the command line lives in cmd/streamhouse"},
	{module: "github.com/spf13/pflag", rooms: []string{"cmd/streamhouse", "cmd/streamhouse/settings"}, why: "flags live in cmd/streamhouse"},
	{module: "github.com/schollz/progressbar/v3", rooms: []string{"cmd/streamhouse"}, why: "a terminal is the command's business"},
	{module: "golang.org/x/term", rooms: []string{"cmd/streamhouse"}, why: "a terminal is the command's business"},
	{module: "github.com/knadh/koanf", rooms: []string{"cmd/streamhouse/settings"}, why: "files and environment are read in cmd/streamhouse/settings"},
	{module: "google.golang.org/grpc", rooms: []string{"adapters/grpc/..."}, why: "the agents' protocol lives in adapters/grpc"},
	{module: "google.golang.org/protobuf", rooms: []string{"adapters/grpc/..."}, why: "protobuf types never leave adapters/grpc"},
	{module: "go.uber.org/fx", rooms: []string{"cmd/streamhouse/wiring"}, why: "only cmd/streamhouse/wiring knows the container; the library is built by hand"},
	{module: "github.com/hanwen/go-fuse/v2", rooms: []string{"test/e2e/powerloss/..."}, why: "the disk that loses power is a test's"},
	{module: "github.com/testcontainers/testcontainers-go", rooms: []string{"test/e2e/containers", "test/e2e/image"}, why: "containers are started in test/e2e/containers"},
	{module: "github.com/moby/moby/api", rooms: []string{"test/e2e/containers"}, why: "what a container is told of the engine is said in test/e2e/containers"},
	{module: "github.com/twmb/franz-go/pkg/kmsg", tests: true, why: "franz-go is an oracle of tests, never a part of the product"},
	{module: "go.yaml.in/yaml/v3", tests: true, why: "the product reads YAML through koanf; tests read files with references and several documents"},
	{module: "go.uber.org/goleak", tests: true, why: "testing libraries stay out of production code"},
	{module: "golang.org/x/net", tests: true, why: "HTTP/2 frames by hand are for tests of what no client sends"},
	{module: "pgregory.net/rapid", tests: true, why: "testing libraries stay out of production code"},
}

// testingRooms are folders whose ordinary files are tests themselves.
var testingRooms = []string{"ports/portstest", "test/..."}

// testingStd are packages of the standard library for tests only.
var testingStd = []string{"testing/...", "net/http/httptest", "log/slog/slogtest"}

// impureStd are packages of the standard library that domain may not use: it
// decides, and never reads a file, a socket or the environment.
var impureStd = []string{"os/...", "net/...", "database/...", "syscall", "io/ioutil", "plugin", "unsafe"}
