package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/gpulease/gpulease/lease"
)

// guardsKept is how long a guard that has fallen silent stays in the list.
const guardsKept = 30 * 24 * time.Hour

// LedgerID implements [lease.Store].
func (db *DB) LedgerID(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := db.attach(ctx); err != nil {
		return "", fmt.Errorf("read the ledger's name: %w", err)
	}
	return db.id, nil
}

// Beat implements [lease.Store].
func (db *DB) Beat(ctx context.Context, guard string, at time.Time) error {
	err := db.write(ctx, func(ctx context.Context, tx session) error {
		if _, err := tx.ExecContext(ctx, "INSERT INTO guards (name, seen) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET seen = excluded.seen", text(guard), toMillis(at)); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM guards WHERE seen < ?", toMillis(at.Add(-guardsKept)))
		return err
	})
	if err != nil {
		return fmt.Errorf("write the heartbeat of %s: %w", guard, err)
	}
	return nil
}

// Guards implements [lease.Store]. A guard that was silent for 30 days is forgotten.
func (db *DB) Guards(ctx context.Context) ([]lease.Guard, error) {
	var out []lease.Guard
	err := db.read(ctx, func(ctx context.Context, tx session) error {
		return each(ctx, tx, func(row scanner) error {
			var g lease.Guard
			err := row.Scan(&g.Name, millis{&g.Seen})
			out = append(out, g)
			return err
		}, "SELECT name, seen FROM guards ORDER BY seen DESC, name")
	})
	if err != nil {
		return nil, fmt.Errorf("list guards: %w", err)
	}
	return out, nil
}
