package postgres

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

const secret = "s3cret-Pa55/w%25rd"

// refused demands that the URL is refused, with each of the words, and without
// the password.
func refused(t *testing.T, to string, o Options, words ...string) {
	t.Helper()
	s, err := Open(t.Context(), to, o)
	if err == nil {
		_ = s.Close()
		t.Fatalf("opened: want an error that says %q", words)
	}
	if kind := ports.KindOf(err); kind != ports.Definite {
		t.Errorf("error is %s: %v", kind, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error is %q, want %q in it", err, w)
		}
	}
	for _, part := range []string{secret, "s3cret", "Pa55"} {
		if strings.Contains(err.Error(), part) {
			t.Errorf("error shows the password: %v", err)
		}
	}
}

func TestOpen_RefusesURLsWithoutShowingThePassword(t *testing.T) {
	for _, c := range []struct{ to, word string }{
		{"", "postgres URL"},
		{"host=localhost password=" + secret, "postgres URL"},
		{"mysql://u:" + secret + "@h/d", "postgres URL"},
		{"postgres://u:s3cret@Pa55:x y/d", "postgres URL"},
		{"postgres://u:s3cret/Pa55@h:1/d", "postgres URL"},
		{"postgres://u:s3cret%zzPa55@h:1/d", "postgres URL"},
		{"postgres://u:s3cret@h:1/d?x=%zz", "postgres URL"},
		{"postgres://u:s3cret@h:99999999/d", "postgres URL"},
		{"postgres://u:s3cret@h:1/d?sslmode=s3cret", "postgres URL"},
		{"postgres://u:s3cret@h:1/d?sslmode=maybe", "sslmode"},
		{"postgres://u:s3cret@h:1/d?pool_max_conns=none", "pool_max_conns"},
		{"postgres://u:s3cret@h:1/d?schema=", "schema"},
		{"postgres://u:s3cret@h:1/d?schema=pg_mine", "schema"},
		{"postgres://u:s3cret@h:1/d?schema=a%22b", "schema"},
		{"postgres://u:s3cret@h:1/d?schema=" + strings.Repeat("a", 64), "schema"},
		{"postgres://u:s3cret@h:1/d?unsafe_fsync_off=perhaps", "unsafe_fsync_off"},
	} {
		refused(t, c.to, Options{}, c.word)
	}
}

func TestOpen_NamesTheServerAndNotThePassword(t *testing.T) {
	for _, c := range []struct{ addr, word string }{
		{"127.0.0.1:1", "127.0.0.1:1/nowhere"},
		{servers.SharedPostgres(t).Addr(), "/nowhere"},
	} {
		_, err := Open(t.Context(), servers.URLVia(c.addr, "somebody", secret, "nowhere"), Options{})
		if err == nil || !strings.Contains(err.Error(), c.word) || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "Pa55") {
			t.Errorf("error is %v", err)
		}
	}
}

func TestParseURL_TakesItsOwnParametersAndLeavesTheRest(t *testing.T) {
	u := must[*target](t)(parseURL("postgres://u:p@h:5/d?schema=mine&unsafe_standby=1&geqo=off&pool_max_conns=3&search_path=x&statement_timeout=7", Options{UnsafeFsyncOff: true}))
	if u.schema != "mine" || u.name != "h:5/d" || u.pool.MaxConns != 3 || u.options != (Options{UnsafeFsyncOff: true, UnsafeStandby: true}) {
		t.Errorf("target is %+v", u)
	}
	p := u.pool.ConnConfig.RuntimeParams
	if p["geqo"] != "off" || p["statement_timeout"] != "7" || p["search_path"] != `"mine"` || p["lock_timeout"] != "10000" || p["schema"] != "" {
		t.Errorf("parameters are %v", p)
	}
	if u.pool.ConnConfig.ValidateConnect != nil {
		t.Error("a standby is not accepted though the URL says so")
	}
	u = must[*target](t)(parseURL("postgres://h/d", Options{}))
	if u.schema != "streamhouse" || u.pool.MaxConns != defaultMaxConns || u.pool.ConnConfig.ConnectTimeout != defaultConnect || u.pool.ConnConfig.ValidateConnect == nil {
		t.Errorf("target is %+v", u)
	}
}

func TestOpen_RefusesServersThatMayLoseWhatTheyAcknowledged(t *testing.T) {
	for _, c := range []struct {
		setting, parameter string
		accept             Options
	}{
		{"fsync=off", "unsafe_fsync_off", Options{UnsafeFsyncOff: true}},
		{"full_page_writes=off", "unsafe_full_page_writes_off", Options{UnsafeFullPageWritesOff: true}},
		{"synchronous_commit=off", "unsafe_synchronous_commit", Options{UnsafeSynchronousCommit: true}},
		{"synchronous_commit=local", "unsafe_synchronous_commit", Options{UnsafeSynchronousCommit: true}},
	} {
		t.Run(c.setting, func(t *testing.T) {
			server := servers.Postgres(t, c.setting)
			name, value, _ := strings.Cut(c.setting, "=")
			refused(t, server.URL(), Options{}, name, value, c.parameter+"=true")
			openTest(t, server.URL(), c.accept)
			openTest(t, with(t, server.URL(), c.parameter, "true"), Options{})
		})
	}
}

// The settings of a server that is open are looked at with each connection, and a
// session keeps what it began with.
func TestStore_KeepsSynchronousCommitThroughAChangeOfSettings(t *testing.T) {
	server := servers.Postgres(t)
	s := openTest(t, with(t, server.URL(), "pool_max_conns", "1"), Options{})
	w := s.written(t)
	for _, statement := range []string{"ALTER SYSTEM SET synchronous_commit = off", "SELECT pg_reload_conf()"} {
		if err := server.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() bool {
		now, err := server.One(t.Context(), "SELECT current_setting('synchronous_commit')")
		return err == nil && now == "off"
	})
	var now string
	if err := s.pool.QueryRow(t.Context(), "SELECT current_setting('synchronous_commit')").Scan(&now); err != nil || now != "on" {
		t.Errorf("the session has synchronous_commit=%s, %v", now, err)
	}
	if err := w.commit(t.Context(), s); err != nil {
		t.Error(err)
	}
	s.pool.Reset()
	if _, err := s.ListTopics(t.Context()); ports.KindOf(err) != ports.Transient || !strings.Contains(err.Error(), "synchronous_commit is off") {
		t.Errorf("a new connection gives %v", err)
	}
}

func TestOpen_RefusesAStandbyAndReadsFromItIfToldTo(t *testing.T) {
	primary := servers.Postgres(t)
	s := openTest(t, primary.URL(), Options{})
	w := s.written(t)
	standby := servers.Standby(t, primary)
	_, err := Open(t.Context(), standby.URL(), Options{})
	if err == nil || !strings.Contains(err.Error(), "read only") {
		t.Errorf("error is %v", err)
	}
	refused(t, with(t, standby.URL(), "target_session_attrs", "any"), Options{}, "in recovery", "unsafe_standby=true")
	reader := openTest(t, with(t, standby.URL(), "unsafe_standby", "true"), Options{})
	if high := reader.high(t, w.key); high != 0 {
		t.Errorf("high watermark is %d", high)
	}
	if err := w.commit(t.Context(), reader); ports.KindOf(err) != ports.Transient || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("a commit gives %v (%s)", err, ports.KindOf(err))
	}
	if err := standby.Promote(); err != nil {
		t.Fatal(err)
	}
	if err := w.commit(t.Context(), reader); err != nil {
		t.Errorf("after the failover: %v", err)
	}
}

func TestOpen_RefusesOldServersAndDroppedSettings(t *testing.T) {
	good := server{version: 150018, fsync: "on", pageWrites: "on", synchronous: "on", path: `"streamhouse"`, isolation: "read committed"}
	if err := good.acceptable("streamhouse", Options{}); err != nil {
		t.Error(err)
	}
	old := good
	old.version, old.versionText = 130022, "13.22"
	if err := old.acceptable("streamhouse", Options{}); err == nil || !strings.Contains(err.Error(), "PostgreSQL 13.22: 14 or later") {
		t.Errorf("error is %v", err)
	}
	if err := old.acceptable("streamhouse", Options{UnsafeServerVersion: true}); err != nil {
		t.Error(err)
	}
	for _, v := range []server{{path: `"$user", public`, isolation: good.isolation}, {path: good.path, isolation: "serializable"}} {
		pooled := good
		pooled.path, pooled.isolation = v.path, v.isolation
		if err := pooled.acceptable("streamhouse", Options{}); !errors.Is(err, errSettings) {
			t.Errorf("error is %v", err)
		}
	}
	local := good
	local.synchronous, local.fsync = "remote_apply", "off"
	if err := local.acceptable("streamhouse", Options{UnsafeFsyncOff: true}); err != nil {
		t.Error(err)
	}
}

func TestOpen_RefusesASchemaFromTheFuture(t *testing.T) {
	s := newTest(t, Options{})
	s.execute(t, "INSERT INTO schema_version (version_id, is_applied) VALUES (99, true)")
	refused(t, s.url, Options{}, "version 99", "newer program")
}

func TestOpen_MigratesOnceWhenManyOpenAtOnce(t *testing.T) {
	to := newURL(t)
	var group sync.WaitGroup
	ids := make([]domain.ClusterID, 6)
	for i := range ids {
		group.Go(func() {
			s, err := Open(context.Background(), to, Options{})
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = s.ClusterID()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for _, id := range ids {
		if id != ids[0] || domain.UUID(id).IsZero() {
			t.Errorf("cluster ids are %v", ids)
		}
	}
}

func TestOpen_KeepsSchemasApartWhateverTheirNames(t *testing.T) {
	a, b := newTest(t, Options{}), openTest(t, with(t, servers.SharedPostgres(t).URL(), "schema", "Odd-Name_$"[:8]), Options{})
	b.execute(t, "SELECT 1")
	if a.ClusterID() == b.ClusterID() {
		t.Error("two schemas are one cluster")
	}
	a.written(t)
	if topics := must[[]domain.Topic](t)(b.ListTopics(t.Context())); len(topics) != 0 {
		t.Errorf("the other schema has the topics %v", topics)
	}
	openTest(t, b.url, Options{})
}

// grants are the statements of the page, for another schema and user.
func grants(t *testing.T, schema, user, password string) []string {
	t.Helper()
	page := string(must[[]byte](t)(os.ReadFile("../../docs/postgres.md")))
	_, rest, found := strings.Cut(page, "```sql\n")
	text, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatal("docs/postgres.md has no grants")
	}
	text = strings.NewReplacer("streamhouse_app", quoted(user), "choose one", password,
		"SCHEMA streamhouse", "SCHEMA "+quoted(schema), "streamhouse.", quoted(schema)+".").Replace(text)
	return strings.Split(strings.TrimSuffix(strings.TrimSpace(text), ";"), ";\n")
}

func TestStore_NeedsNoMoreThanThePagesGrants(t *testing.T) {
	server := servers.Postgres(t)
	owner := openTest(t, server.URL(), Options{})
	statements := grants(t, "streamhouse", "app", "app-password")
	for i, statement := range statements {
		if i > 0 {
			refused(t, server.URLFor("app", "app-password", "postgres"), Options{}, "lacks privileges", "docs/postgres.md")
		}
		if err := server.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
		if i == 0 { // by default everybody may call functions
			if err := server.Exec(t.Context(), "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA streamhouse FROM PUBLIC"); err != nil {
				t.Fatal(err)
			}
		}
	}
	app := openTest(t, server.URLFor("app", "app-password", "postgres"), Options{})
	w := app.written(t)
	if err := w.commit(t.Context(), app); err != nil {
		t.Error(err)
	}
	if _, err := app.Trim(t.Context(), w.key, 10); err != nil {
		t.Error(err)
	}
	if _, err := app.RegisterProducer(t.Context(), "billing"); err != nil {
		t.Error(err)
	}
	if err := errors.Join(app.DeleteTopic(t.Context(), w.key.Topic), func() error { _, err := app.PurgeTopics(t.Context(), 10); return err }()); err != nil {
		t.Error(err)
	}
	if err := server.Exec(t.Context(), "REVOKE INSERT ON streamhouse.topics FROM app"); err != nil {
		t.Fatal(err)
	}
	_, err := app.CreateTopic(t.Context(), domain.TopicSpec{Name: "later", Partitions: 1})
	if ports.KindOf(err) != ports.Definite || !strings.Contains(err.Error(), "lacks a privilege") {
		t.Errorf("a privilege that was taken away gives %v (%s)", err, ports.KindOf(err))
	}
	owner.written(t)
	refused(t, with(t, server.URLFor("app", "app-password", "postgres"), "schema", "another"), Options{}, "may not create")
	refused(t, server.URLFor("app", "wrong-password", "postgres"), Options{}, "password was refused")
	refused(t, server.URLFor("app", "app-password", "nowhere"), Options{}, "create it first")
}
