package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/gpulease/gpulease/lease"
)

// Adopt implements [lease.Store]. It fails with [ErrDuplicate] where the lease, its instance or its name is known already.
func (db *DB) Adopt(ctx context.Context, l lease.Lease, at time.Time, note string) (lease.Lease, error) {
	if !lease.ValidID(string(l.ID)) || !l.Counts() || l.InstanceID == "" {
		return l, fmt.Errorf("adopt lease %q: %w: it is no lease with a living instance", l.ID, ErrInvalid)
	}
	out := stored(l)
	err := db.write(ctx, func(ctx context.Context, tx session) error {
		out.Version = 1
		if _, err := tx.ExecContext(ctx, insertLease, fields(&out)...); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM strangers WHERE account = ? AND instance = ?", out.Account, out.InstanceID); err != nil {
			return err
		}
		return addEvent(ctx, tx, at, "", out, note)
	})
	if err != nil {
		return l, fmt.Errorf("adopt lease %s: %w", l.ID, err)
	}
	return out, nil
}
