package ledger

import (
	"context"
	"fmt"
)

// LimitPages makes the file unable to grow beyond n pages, as a full disk does, or lifts that limit.
func (db *DB) LimitPages(ctx context.Context, n int) error {
	_, err := db.engine.(*file).writer.ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", n))
	return err
}

// Unsynced makes writes survive only the end of the process, not of the machine: a disk that is busy with others would be most of a
// long test.
func (db *DB) Unsynced(ctx context.Context) error {
	if s, ok := db.engine.(*server); ok {
		_, err := s.writer.ExecContext(ctx, "SET synchronous_commit = off")
		return err
	}
	_, err := db.engine.(*file).writer.ExecContext(ctx, "PRAGMA synchronous = OFF")
	return err
}

// TurnKey is the number of the lock that writers to a ledger on a server take.
func TurnKey(schema string) int64 { return (&server{schema: schema}).lockKey("writers") }

// Query is a text that the server answers on the connection that writes.
func (db *DB) Query(ctx context.Context, query string) (answer string, err error) {
	return answer, db.engine.(*server).writer.QueryRowContext(ctx, query).Scan(&answer)
}

// Setting is a setting of the connection that writes.
func (db *DB) Setting(ctx context.Context, name string) (string, error) {
	return db.Query(ctx, "SHOW "+name)
}

// Denials counts the decisions that were no.
func (db *DB) Denials(ctx context.Context) (n int, err error) {
	err = db.read(ctx, func(ctx context.Context, tx session) error {
		return tx.QueryRowContext(ctx, "SELECT COUNT(*) FROM decisions WHERE verdict = 'deny'").Scan(&n)
	})
	return n, err
}
