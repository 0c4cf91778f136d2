package ledger

import (
	"context"
	"database/sql"
	"embed"
	"encoding/base32"
	"fmt"
	"io"
)

// schemaVersion is the version that this package reads and writes. migrations/N.sql leads from version N-1 to N.
const schemaVersion = 3

// applicationID marks a SQLite file as a ledger of ours ("gpul").
const applicationID = 0x6770756c

//go:embed migrations/*.sql
var migrations embed.FS

// migrate brings the ledger to a version, each step in a transaction of its own.
func migrate(ctx context.Context, db *sql.DB, from, to int) error {
	for v := from + 1; v <= to; v++ {
		script, err := migrations.ReadFile(fmt.Sprintf("migrations/%d.sql", v))
		if err != nil {
			return fmt.Errorf("migrate to schema version %d: %w", v, err)
		}
		err = inTx(ctx, db, nil, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, string(script)); err != nil {
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

// found writes what a new ledger needs beside its tables: its mark, its name and the roots of its chains.
func found(ctx context.Context, db *sql.DB, random io.Reader) error {
	raw := make([]byte, 3)
	if _, err := io.ReadFull(random, raw); err != nil {
		return fmt.Errorf("name the ledger: %w", err)
	}
	id := base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding).EncodeToString(raw)[:4]
	return inTx(ctx, db, nil, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID)); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO meta (key, value) VALUES ('ledger_id', ?)", id); err != nil {
			return err
		}
		for _, c := range chains {
			if _, err := tx.ExecContext(ctx, "INSERT INTO chains (name, seq, hash) VALUES (?, 0, ?)", c.table, c.root(id)); err != nil {
				return err
			}
		}
		return nil
	})
}
