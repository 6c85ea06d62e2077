package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// texts runs a query of one column of text.
func texts(t testing.TB, c queryer, statement string, args ...any) (all []string, err error) {
	err = query(t.Context(), c, statement, func(r pgx.Rows) error {
		var s string
		err := r.Scan(&s)
		all = append(all, s)
		return err
	}, args...)
	return all, err
}
