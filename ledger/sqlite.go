package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// connect opens a pool on a file that has to exist. busy_timeout comes first, for the other pragmas may have to wait too.
func connect(path string, busy time.Duration, pragmas ...string) (*sql.DB, error) {
	q := url.Values{"mode": {"rw"}, "_txlock": {"immediate"}, "_defensive": {"1"}, "_dqs": {"0"}, "_error_rc": {"1"}}
	q.Add("_pragma", fmt.Sprintf("busy_timeout(%d)", busy.Milliseconds()))
	for _, p := range pragmas {
		q.Add("_pragma", p)
	}
	p := filepath.ToSlash(path)
	if !strings.HasPrefix(p, "/") {
		p = "/" + p // a drive letter
	}
	return sql.Open("sqlite", "file://"+(&url.URL{Path: p}).EscapedPath()+"?"+q.Encode())
}

// inTx runs do in a transaction and commits it if do succeeds.
func inTx(ctx context.Context, db *sql.DB, opts *sql.TxOptions, do func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, opts)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after a commit this does nothing
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit()
}

func (f *file) write(ctx context.Context, do func(context.Context, session) error) error {
	if err := f.inPlace(); err != nil {
		return err
	}
	if err := f.turn.take(ctx, f.busy); err != nil {
		return fmt.Errorf("wait for the turn to write: %w", explain(err))
	}
	defer func() {
		if err := f.turn.give(); err != nil {
			f.log.Error("give the turn to write back", "err", err)
		}
	}()
	ctx = context.WithoutCancel(ctx)
	return f.writing.inTx(ctx, f.writer, nil, func(tx session) error {
		// A newer version may have changed the schema since we opened it.
		if err := checkVersion(ctx, tx); err != nil {
			return err
		}
		if err := do(ctx, tx); err != nil {
			return err
		}
		// What is committed to a file that nobody else can see is lost.
		return f.inPlace()
	})
}

func (f *file) read(ctx context.Context, _ time.Duration, do func(context.Context, session) error) error {
	return f.reading.inTx(ctx, f.reader, &sql.TxOptions{ReadOnly: true}, func(tx session) error { return do(ctx, tx) })
}

// check lets SQLite check its own structures.
func (f *file) check(ctx context.Context, tx session) error {
	var problems []string
	err := each(ctx, tx, func(row scanner) error {
		var s string
		err := row.Scan(&s)
		problems = append(problems, s)
		return err
	}, "PRAGMA integrity_check(10)")
	if err != nil {
		return err
	}
	if len(problems) != 1 || problems[0] != "ok" {
		return fmt.Errorf("%w (%s)", ErrCorrupt, strings.Join(problems, "; "))
	}
	return nil
}

func pragma(ctx context.Context, db session, name string) (n int, err error) {
	if err := db.QueryRowContext(ctx, "PRAGMA "+name).Scan(&n); err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	return n, nil
}

func checkVersion(ctx context.Context, db session) error {
	v, err := pragma(ctx, db, "user_version")
	if err == nil && v > SchemaVersion {
		err = fmt.Errorf("%w (schema version %d, this one knows %d)", ErrNewerSchema, v, SchemaVersion)
	}
	return err
}
