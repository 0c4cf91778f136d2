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

// write runs do in a transaction that no other writer can be beside. ctx ends the wait for the turn; a transaction that has begun is
// brought to its end, for it is short and its caller has to know how it went.
func (db *DB) write(ctx context.Context, do func(context.Context, *sql.Tx) error) error {
	if err := db.inPlace(); err != nil {
		return err
	}
	if err := db.turn.take(ctx, db.busy); err != nil {
		return fmt.Errorf("wait for the turn to write: %w", explain(err))
	}
	defer func() {
		if err := db.turn.give(); err != nil {
			db.log.Error("give the turn to write back", "err", err)
		}
	}()
	ctx = context.WithoutCancel(ctx)
	return explain(inTx(ctx, db.writer, nil, func(tx *sql.Tx) error {
		// A newer version may have changed the schema since we opened it.
		if err := checkVersion(ctx, tx); err != nil {
			return err
		}
		if err := do(ctx, tx); err != nil {
			return err
		}
		// What is committed to a file that nobody else can see is lost.
		return db.inPlace()
	}))
}

// read runs do on one consistent state of the ledger. It never waits for writers.
func (db *DB) read(ctx context.Context, do func(*sql.Tx) error) error {
	return explain(inTx(ctx, db.reader, &sql.TxOptions{ReadOnly: true}, do))
}

type queryRower interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func pragma(ctx context.Context, db queryRower, name string) (n int, err error) {
	if err := db.QueryRowContext(ctx, "PRAGMA "+name).Scan(&n); err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	return n, nil
}

func checkVersion(ctx context.Context, db queryRower) error {
	v, err := pragma(ctx, db, "user_version")
	if err == nil && v > schemaVersion {
		err = fmt.Errorf("%w (schema version %d, this one knows %d)", ErrNewerSchema, v, schemaVersion)
	}
	return err
}
