package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/gpulease/gpulease/lease"
)

// Freeze implements [lease.Store].
func (db *DB) Freeze(ctx context.Context, f lease.Freeze) error {
	err := db.write(ctx, func(ctx context.Context, tx session) error {
		if !f.On() {
			_, err := tx.ExecContext(ctx, "DELETE FROM freezes")
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO freezes ("only", at, who, why) VALUES (1, ?, ?, ?)
			ON CONFLICT ("only") DO UPDATE SET at = excluded.at, who = excluded.who, why = excluded.why`, toMillis(f.At), text(f.By), text(f.Why))
		return err
	})
	if err != nil {
		return fmt.Errorf("freeze launches: %w", err)
	}
	return nil
}

// Frozen implements [lease.Store].
func (db *DB) Frozen(ctx context.Context) (lease.Freeze, error) {
	var f lease.Freeze
	err := db.read(ctx, func(ctx context.Context, tx session) (err error) {
		f, err = frozen(ctx, tx)
		return err
	})
	if err != nil {
		return lease.Freeze{}, fmt.Errorf("look whether launches are frozen: %w", err)
	}
	return f, nil
}

func frozen(ctx context.Context, tx session) (lease.Freeze, error) {
	var f lease.Freeze
	err := tx.QueryRowContext(ctx, "SELECT at, who, why FROM freezes").Scan(millis{&f.At}, &f.By, &f.Why)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return f, err
}

// notFrozen fails with lease.ErrFrozen while launches are frozen.
func notFrozen(ctx context.Context, tx session) error {
	f, err := frozen(ctx, tx)
	if err != nil || !f.On() {
		return err
	}
	if f.Why == "" {
		return fmt.Errorf("%w since %s by %s", lease.ErrFrozen, f.At.Format(time.RFC3339), f.By)
	}
	return fmt.Errorf("%w since %s by %s: %s", lease.ErrFrozen, f.At.Format(time.RFC3339), f.By, f.Why)
}

// mayReserve says whether money may be reserved at all at that time.
func mayReserve(ctx context.Context, tx session, at time.Time) error {
	if err := notFrozen(ctx, tx); err != nil {
		return err
	}
	var created, reserved, ended int64
	err := tx.QueryRowContext(ctx, `SELECT COALESCE((SELECT MAX(created_at) FROM leases), 0), COALESCE((SELECT MAX(reserved_at) FROM leases), 0),
		COALESCE((SELECT MAX(ended_at) FROM leases WHERE state = 'ended'), 0)`).Scan(&created, &reserved, &ended)
	if err != nil {
		return fmt.Errorf("read the newest entries: %w", err)
	}
	return lease.CheckClock(at, fromMillis(max(created, reserved, ended)))
}
