package ledger

import (
	"context"
	"database/sql"
	"embed"
	"encoding/base32"
	"fmt"
	"io"
)

// SchemaVersion is the version that this package reads and writes. migrations/N.sql leads from version N-1 to N in SQLite,
// migrations/postgres/N.sql in PostgreSQL, where there was none before version 3.
const (
	SchemaVersion = 4
	firstOnServer = 3
)

// applicationID marks a SQLite file as a ledger of ours ("gpul").
const applicationID = 0x6770756c

//go:embed migrations/*.sql migrations/postgres/*.sql
var migrations embed.FS

// migrateFile brings a file to a version, each step in a transaction of its own.
func migrateFile(ctx context.Context, db *sql.DB, from, to int) error {
	for v := from + 1; v <= to; v++ {
		err := inTx(ctx, db, nil, func(tx *sql.Tx) error {
			if err := step(ctx, tx, "migrations", v); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", v))
			return err
		})
		if err != nil {
			return fmt.Errorf("migrate to schema version %d: %w", v, err)
		}
	}
	return nil
}

// step runs the script that leads to a version.
func step(ctx context.Context, tx session, dir string, version int) error {
	script, err := migrations.ReadFile(fmt.Sprintf("%s/%d.sql", dir, version))
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, string(script))
	return err
}

// foundFile is found for a file, and marks it as ours.
func foundFile(ctx context.Context, db *sql.DB, random io.Reader) error {
	return inTx(ctx, db, nil, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID)); err != nil {
			return err
		}
		return found(ctx, tx, random)
	})
}

// found writes what a new ledger needs beside its tables: its name and the roots of its chains.
func found(ctx context.Context, tx session, random io.Reader) error {
	raw := make([]byte, 3)
	if _, err := io.ReadFull(random, raw); err != nil {
		return fmt.Errorf("name the ledger: %w", err)
	}
	id := base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding).EncodeToString(raw)[:4]
	if _, err := tx.ExecContext(ctx, "INSERT INTO meta (key, value) VALUES ('ledger_id', ?)", id); err != nil {
		return err
	}
	for _, c := range chains {
		if _, err := tx.ExecContext(ctx, "INSERT INTO chains (name, seq, hash) VALUES (?, 0, ?)", c.table, c.root(id)); err != nil {
			return err
		}
	}
	return nil
}
