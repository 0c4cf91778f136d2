package ledger

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"strconv"
	"strings"
)

// session is what statements run on: a transaction or a connection. The statements are in the SQL that SQLite and PostgreSQL share,
// with ? for their parameters.
type session interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

type scanner interface{ Scan(dest ...any) error }

// each calls do for each row of a query.
func each(ctx context.Context, tx session, do func(scanner) error, query string, args ...any) error {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := do(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// numbered is a session on PostgreSQL, which calls its parameters $1, $2 and so on.
type numbered struct{ session }

func (n numbered) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return n.session.ExecContext(ctx, number(query), plain(args)...)
}

func (n numbered) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return n.session.QueryContext(ctx, number(query), plain(args)...)
}

func (n numbered) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return n.session.QueryRowContext(ctx, number(query), plain(args)...)
}

// number replaces each ? by $1, $2 and so on. None of our statements has one in a literal.
func number(query string) string {
	var b strings.Builder
	for n := 1; ; n++ {
		before, after, found := strings.Cut(query, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString("$" + strconv.Itoa(n))
		query = after
	}
}

// plain turns arguments into what SQLite stores for them. The driver of PostgreSQL would look at their types and may prefer, say,
// their String methods.
func plain(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		out[i] = a // the driver refuses what cannot be converted
		if v, err := driver.DefaultParameterConverter.ConvertValue(a); err == nil {
			out[i] = v
		}
	}
	return out
}
