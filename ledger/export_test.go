package ledger

import (
	"context"
	"fmt"
)

// LimitPages makes the file unable to grow beyond n pages, as a full disk does, or lifts that limit.
func (db *DB) LimitPages(ctx context.Context, n int) error {
	_, err := db.writer.ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", n))
	return err
}

// Unsynced makes writes survive only the end of the process, not of the machine: a disk that is busy with others would be most of a
// long test.
func (db *DB) Unsynced(ctx context.Context) error {
	_, err := db.writer.ExecContext(ctx, "PRAGMA synchronous = OFF")
	return err
}

// SchemaVersion is the version that this package writes.
const SchemaVersion = schemaVersion
