//go:build containers

package containers_test

import (
	"net/http"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/test/e2e/containers"
)

func TestPostgres_AnswersAndKeepsItsDataOverARestart(t *testing.T) {
	c := containers.Postgres(t)
	do := func(sql string, into ...any) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), c.URL(t))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		if len(into) == 0 {
			_, err = conn.Exec(t.Context(), sql)
		} else {
			err = conn.QueryRow(t.Context(), sql).Scan(into...)
		}
		if err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	do("create table kept as select 1 as n")
	if err := containers.Restart(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	var n int
	var fsync string
	if do("select n, current_setting('fsync') from kept", &n, &fsync); n != 1 || fsync != "on" {
		t.Errorf("read %d with fsync %s", n, fsync)
	}
}

func TestMinIO_AnswersAndKeepsItsDataOverARestart(t *testing.T) {
	c := containers.MinIO(t)
	object := "/" + c.Access(t).NewBucket(t) + "/object"
	do := func(method, content string) string {
		t.Helper()
		status, answer, err := c.Access(t).Do(t.Context(), method, object, []byte(content))
		if err != nil || status != http.StatusOK {
			t.Fatalf("%s: status %d, error %v\n%s", method, status, err, answer)
		}
		return string(answer)
	}
	do(http.MethodPut, "kept")
	if err := containers.Restart(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if got := do(http.MethodGet, ""); got != "kept" {
		t.Errorf("read %q", got)
	}
}
