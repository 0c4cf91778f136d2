package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// Correct adds amount, which may be negative, to what an ended lease has cost: its row stays as it was settled, and the correction
// is an event of its own, from [lease.Ended] to [lease.Ended], with the amount as its cost. The usage counts it in the periods in
// which the lease ended. It fails with [lease.ErrNotFound], with [ErrTransition] where the lease has not ended, and with
// [ErrInvalid] where the lease would have cost less than nothing.
func (db *DB) Correct(ctx context.Context, id lease.ID, amount policy.Money, at time.Time, note string) error {
	err := db.write(ctx, func(ctx context.Context, tx session) error {
		l, err := one(ctx, tx, "id = ?", id)
		if err != nil {
			return err
		}
		if l.State != lease.Ended {
			return fmt.Errorf("%w: it is %s, and only what has ended is corrected", ErrTransition, l.State)
		}
		var before policy.Money
		if err := tx.QueryRowContext(ctx, "SELECT CAST(COALESCE(SUM(cost), 0) AS BIGINT) FROM events WHERE lease = ? AND was = 'ended'", id).Scan(&before); err != nil {
			return err
		}
		total := policy.Totals{Lifetime: l.Cost + before} // never below 0
		if err := add(&total, policy.Totals{Lifetime: amount}); err != nil {
			return err
		}
		if total.Lifetime < 0 {
			return fmt.Errorf("%w: its cost would fall to %s", ErrInvalid, total.Lifetime)
		}
		return appendEvent(ctx, tx, at, l.State, l, amount, note)
	})
	if err != nil {
		return fmt.Errorf("correct the cost of lease %q by %s: %w", id, amount, err)
	}
	return nil
}
