package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/gpulease/gpulease/lease"
)

// Update implements [lease.Store]. Where it fails, the lease that it returns is l as given. Beside the errors that
// lease.Store names it fails with [ErrTransition], [ErrUnreserved], [ErrImmutable], [ErrDuplicate] or [ErrInvalid]; none of them
// goes away by reading the lease again.
func (db *DB) Update(ctx context.Context, l lease.Lease, note string) (lease.Lease, error) {
	out := l
	err := db.write(ctx, func(ctx context.Context, tx session) error {
		was, err := current(ctx, tx, l)
		if err != nil {
			return err
		}
		if l.Reserved > was.Reserved {
			return fmt.Errorf("%w: from %s to %s", ErrUnreserved, was.Reserved, l.Reserved)
		}
		if !stored(l).LaunchSentAt.Equal(was.LaunchSentAt) {
			if err := notFrozen(ctx, tx); err != nil {
				return err
			}
		}
		out, err = replace(ctx, tx, db.now(), was, l, note)
		return err
	})
	if err != nil {
		return l, fmt.Errorf("update lease %s: %w", l.ID, err)
	}
	return out, nil
}

// current reads the row that l is to replace and checks that it may.
func current(ctx context.Context, tx session, l lease.Lease) (lease.Lease, error) {
	was, err := one(ctx, tx, "id = ?", l.ID)
	switch next := stored(l); {
	case err != nil:
		return lease.Lease{}, err
	case was.Version != l.Version:
		return lease.Lease{}, fmt.Errorf("%w: it has version %d, not %d", lease.ErrConflict, was.Version, l.Version)
	case !was.State.CanBecome(l.State):
		return lease.Lease{}, fmt.Errorf("%w: from %q to %q", ErrTransition, was.State, l.State)
	case next.Principal != was.Principal, next.IdempotencyKey != was.IdempotencyKey, !next.CreatedAt.Equal(was.CreatedAt):
		return lease.Lease{}, ErrImmutable
	}
	return was, nil
}

// replace writes l over was and the event beside it.
func replace(ctx context.Context, tx session, at time.Time, was, l lease.Lease, note string) (lease.Lease, error) {
	l = stored(l)
	l.Version = was.Version + 1
	done, err := tx.ExecContext(ctx, updateLease, append(fields(&l), was.ID, was.Version)...)
	if err != nil {
		return lease.Lease{}, err
	}
	if n, err := done.RowsAffected(); err != nil || n != 1 {
		return lease.Lease{}, errors.Join(lease.ErrConflict, err)
	}
	return l, addEvent(ctx, tx, at, was.State, l, note)
}

// Get implements [lease.Store].
func (db *DB) Get(ctx context.Context, id lease.ID) (lease.Lease, error) {
	var l lease.Lease
	err := db.read(ctx, func(ctx context.Context, tx session) (err error) {
		l, err = one(ctx, tx, "id = ?", id)
		return err
	})
	if err != nil {
		return lease.Lease{}, fmt.Errorf("read lease %q: %w", id, err)
	}
	return l, nil
}

// ByKey implements [lease.Store].
func (db *DB) ByKey(ctx context.Context, principal, key string) (lease.Lease, error) {
	var l lease.Lease
	err := db.read(ctx, func(ctx context.Context, tx session) (err error) {
		l, err = byKey(ctx, tx, text(principal), text(key))
		return err
	})
	if err != nil {
		return lease.Lease{}, fmt.Errorf("read the lease of %q under the idempotency key %q: %w", principal, key, err)
	}
	return l, nil
}

// byKey takes its arguments as stored.
func byKey(ctx context.Context, tx session, principal, key string) (lease.Lease, error) {
	// The last condition lets the databases use the index, which is partial.
	return one(ctx, tx, "principal = ? AND idempotency_key = ? AND idempotency_key <> ''", principal, key)
}

// one reads a single lease; lease.ErrNotFound where there is none.
func one(ctx context.Context, tx session, where string, args ...any) (lease.Lease, error) {
	l, err := scanLease(tx.QueryRowContext(ctx, selectLease+"WHERE "+where, args...))
	if errors.Is(err, sql.ErrNoRows) {
		err = lease.ErrNotFound
	}
	return l, err
}

// Live implements [lease.Store].
func (db *DB) Live(ctx context.Context) ([]lease.Lease, error) {
	return db.leases(ctx, "WHERE state <> 'ended' ORDER BY created_at, seq")
}

// List implements [lease.Store].
func (db *DB) List(ctx context.Context, limit int) ([]lease.Lease, error) {
	if limit <= 0 {
		return db.leases(ctx, "ORDER BY created_at DESC, seq DESC")
	}
	return db.leases(ctx, "ORDER BY created_at DESC, seq DESC LIMIT ?", limit)
}

func (db *DB) leases(ctx context.Context, where string, args ...any) ([]lease.Lease, error) {
	var out []lease.Lease
	err := db.read(ctx, func(ctx context.Context, tx session) error {
		return each(ctx, tx, func(row scanner) error {
			l, err := scanLease(row)
			out = append(out, l)
			return err
		}, selectLease+where, args...)
	})
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	return out, nil
}

// History implements [lease.Store]. A lease that does not exist has none.
func (db *DB) History(ctx context.Context, id lease.ID) ([]lease.Event, error) {
	var out []lease.Event
	err := db.read(ctx, func(ctx context.Context, tx session) error {
		return each(ctx, tx, func(row scanner) error {
			var e lease.Event
			err := row.Scan(millis{&e.At}, &e.Lease, &e.From, &e.To, &e.Note, &e.Cost)
			out = append(out, e)
			return err
		}, "SELECT at, lease, was, became, note, cost FROM events WHERE lease = ? ORDER BY seq", id)
	})
	if err != nil {
		return nil, fmt.Errorf("read the history of lease %q: %w", id, err)
	}
	return out, nil
}
