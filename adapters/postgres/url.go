package postgres

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/streamhouse/streamhouse/domain"
)

const (
	defaultSchema   = "streamhouse"
	defaultMaxConns = 8
	maxMaxConns     = 10_000
	defaultConnect  = 5 * time.Second
)

// Options are the choices there are. The zero value is the safe one. Each can
// also be given in the URL, as true or false, by the name in its comment.
type Options struct {
	// UnsafeFsyncOff (unsafe_fsync_off) accepts a server that does not sync its
	// log: a power cut may destroy everything.
	UnsafeFsyncOff bool
	// UnsafeFullPageWritesOff (unsafe_full_page_writes_off) accepts a server
	// whose pages a power cut may tear.
	UnsafeFullPageWritesOff bool
	// UnsafeSynchronousCommit (unsafe_synchronous_commit) accepts
	// synchronous_commit off, with which a crash of the server loses acknowledged records, and
	// local, with which a failover does.
	UnsafeSynchronousCommit bool
	// UnsafeStandby (unsafe_standby) accepts a server in recovery. Reads may be
	// stale, and every change fails.
	UnsafeStandby bool
	// UnsafeServerVersion (unsafe_server_version) accepts a server older than
	// those this package is tested with.
	UnsafeServerVersion bool

	// inSteps commits by the twin in Go of the function commit_segments. For tests.
	inSteps bool
}

// unsafeParameters are the URL's names of o's fields.
func (o *Options) unsafeParameters() map[string]*bool {
	return map[string]*bool{
		"unsafe_fsync_off":            &o.UnsafeFsyncOff,
		"unsafe_full_page_writes_off": &o.UnsafeFullPageWritesOff,
		"unsafe_synchronous_commit":   &o.UnsafeSynchronousCommit,
		"unsafe_standby":              &o.UnsafeStandby,
		"unsafe_server_version":       &o.UnsafeServerVersion,
	}
}

// target is where a URL leads to.
type target struct {
	name    string // host:port/database, for messages: never with a user's password
	schema  string
	pool    *pgxpool.Config
	options Options
}

// schemaName is what a schema may be called. Names of the server's own schemas
// begin with pg_.
var schemaName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,62}$`)

// wantURL says nothing of what the URL holds: what cannot be parsed may have the
// password anywhere.
const wantURL = "postgres://user:password@host:port/database?parameters, with what is special in user or password percent-encoded"

// parseURL takes our own parameters out of the URL and leaves the rest to pgx.
func parseURL(text string, o Options) (*target, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, &domain.ConfigError{Field: "postgres URL", Want: wantURL}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, &domain.ConfigError{Field: "postgres URL", Want: wantURL}
	}
	t := &target{schema: defaultSchema, options: o}
	if err := t.take(query); err != nil {
		return nil, err
	}
	_, sized := query["pool_max_conns"]
	_, session := query["target_session_attrs"]
	_, patience := query["connect_timeout"]
	if !session && !t.options.UnsafeStandby {
		query.Set("target_session_attrs", "read-write")
	}
	u.RawQuery = query.Encode()
	if t.pool, err = pgxpool.ParseConfig(u.String()); err != nil {
		return nil, &domain.ConfigError{Field: "postgres URL", Want: refusedURL(err, u)}
	}
	if !sized {
		t.pool.MaxConns = defaultMaxConns
	}
	if !patience {
		t.pool.ConnConfig.ConnectTimeout = defaultConnect
	}
	t.name = nameOf(&t.pool.ConnConfig.Config)
	t.settle()
	return t, nil
}

// take removes from query what is ours and keeps it in t.
func (t *target) take(query url.Values) error {
	if query.Has("schema") {
		t.schema = query.Get("schema")
		query.Del("schema")
	}
	if !schemaName.MatchString(t.schema) || strings.HasPrefix(t.schema, "pg_") {
		return &domain.ConfigError{Field: "schema", Value: fmt.Sprintf("%.80q", t.schema),
			Want: "1 to 63 of A-Z a-z 0-9 _ -, beginning with a letter or _, and not with pg_"}
	}
	if size := query.Get("pool_max_conns"); query.Has("pool_max_conns") {
		if n, err := strconv.Atoi(size); err != nil || n < 1 || n > maxMaxConns {
			return &domain.ConfigError{Field: "pool_max_conns", Value: fmt.Sprintf("%.80q", size), Want: fmt.Sprintf("1 to %d", maxMaxConns)}
		}
	}
	for name, field := range t.options.unsafeParameters() {
		if !query.Has(name) {
			continue
		}
		on, err := strconv.ParseBool(query.Get(name))
		if err != nil {
			return &domain.ConfigError{Field: name, Value: fmt.Sprintf("%.80q", query.Get(name)), Want: "true or false"}
		}
		*field = *field || on
		query.Del(name)
	}
	return nil
}

// refusedURL tells pgx's reason unless it quotes the password.
func refusedURL(err error, u *url.URL) string {
	reason := errors.Unwrap(err)
	password, _ := u.User.Password()
	password = strings.TrimSpace(password)
	if reason == nil || password != "" && strings.Contains(reason.Error(), password) {
		return wantURL
	}
	return "one that can be used: " + reason.Error()
}

func nameOf(c *pgconn.Config) string {
	host := c.Host
	if !strings.HasPrefix(host, "/") {
		host = fmt.Sprintf("%s:%d", host, c.Port)
	}
	return host + "/" + c.Database
}

// Limits of a session, in milliseconds. A statement that the server gives up is
// an abort that is certain; a client that gives up would not know.
const (
	statementTimeout = 25_000
	lockTimeout      = 10_000
	idleTimeout      = 60_000
)

// settle puts into the connection's start-up message what our statements rely
// on: the schema, the isolation of transactions, and plans that look rows up by their keys whatever
// the server believes of tables that were just made.
func (t *target) settle() {
	p := t.pool.ConnConfig.RuntimeParams
	for name, value := range map[string]string{
		"application_name":                    "streamhouse",
		"statement_timeout":                   strconv.Itoa(statementTimeout),
		"lock_timeout":                        strconv.Itoa(lockTimeout),
		"idle_in_transaction_session_timeout": strconv.Itoa(idleTimeout),
	} {
		if p[name] == "" {
			p[name] = value
		}
	}
	for name, value := range map[string]string{
		"search_path":                   quoted(t.schema),
		"default_transaction_isolation": "read committed",
		"plan_cache_mode":               "force_generic_plan",
		"enable_seqscan":                "off",
		"enable_hashjoin":               "off",
		"enable_mergejoin":              "off",
		"jit":                           "off",
	} {
		p[name] = value
	}
}
