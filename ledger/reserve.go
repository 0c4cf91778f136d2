package ledger

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// Reserve implements [lease.Store]. The decision is written down whatever it is, unless the idempotency key was used before.
func (db *DB) Reserve(ctx context.Context, l lease.Lease, at time.Time, p lease.Periods, decide func(policy.Usage) policy.Decision) (lease.Reservation, error) {
	if !lease.ValidID(string(l.ID)) {
		return lease.Reservation{}, fmt.Errorf("reserve lease %q: %w: not a lease id", l.ID, ErrInvalid)
	}
	if !l.State.Live() {
		return lease.Reservation{}, fmt.Errorf("reserve lease %s: %w: it begins as %q", l.ID, ErrTransition, l.State)
	}
	var res lease.Reservation
	err := db.write(ctx, func(ctx context.Context, tx session) error {
		res = lease.Reservation{Lease: stored(l)}
		old, err := byKey(ctx, tx, res.Lease.Principal, res.Lease.IdempotencyKey)
		if err == nil {
			res = lease.Reservation{Lease: old, Existing: true}
			return nil
		}
		if !errors.Is(err, lease.ErrNotFound) {
			return err
		}
		if err := mayReserve(ctx, tx, at); err != nil {
			return err
		}
		u, err := usage(ctx, tx, res.Lease.Principal, "", at, p)
		if err != nil {
			return err
		}
		res.Decision = decide(u)
		note := "reserved"
		switch res.Decision.Verdict {
		case policy.Allow:
		case policy.Ask:
			res.Lease, note = stored(res.Lease.Awaits()), "waits for approval"
		default:
			return addDecision(ctx, tx, at, l.Principal, res.Decision, "")
		}
		res.Lease.Version = 1
		if _, err := tx.ExecContext(ctx, insertLease, fields(&res.Lease)...); err != nil {
			return err
		}
		if err := addDecision(ctx, tx, at, l.Principal, res.Decision, l.ID); err != nil {
			return err
		}
		return addEvent(ctx, tx, at, "", res.Lease, note)
	})
	if err != nil {
		return lease.Reservation{}, fmt.Errorf("reserve lease %s: %w", l.ID, err)
	}
	return res, nil
}

// Rereserve implements [lease.Store]. Where it fails or the verdict is not [policy.Allow], the lease that it returns is l as given.
func (db *DB) Rereserve(ctx context.Context, l lease.Lease, at time.Time, p lease.Periods, note string, decide func(policy.Usage) policy.Decision) (lease.Lease, policy.Decision, error) {
	var d policy.Decision
	out := l
	err := db.write(ctx, func(ctx context.Context, tx session) error {
		was, err := current(ctx, tx, l)
		if err == nil {
			err = mayReserve(ctx, tx, at)
		}
		if err != nil {
			return err
		}
		u, err := usage(ctx, tx, was.Principal, l.ID, at, p)
		if err != nil {
			return err
		}
		d = decide(u)
		if err := addDecision(ctx, tx, at, was.Principal, d, l.ID); err != nil {
			return err
		}
		if d.Verdict != policy.Allow {
			return nil
		}
		out, err = replace(ctx, tx, at, was, l, note)
		return err
	})
	if err != nil {
		return l, policy.Decision{}, fmt.Errorf("reserve anew for lease %s: %w", l.ID, err)
	}
	return out, d, nil
}

// Usage implements [lease.Store].
func (db *DB) Usage(ctx context.Context, principal string, at time.Time, p lease.Periods) (policy.Usage, error) {
	var u policy.Usage
	err := db.read(ctx, func(ctx context.Context, tx session) (err error) {
		u, err = usage(ctx, tx, text(principal), "", at, p)
		return err
	})
	if err != nil {
		return policy.Usage{}, fmt.Errorf("sum up the usage: %w", err)
	}
	return u, nil
}

// Each of these yields a row for the principal's ended leases and one for all others', where there are any. PostgreSQL sums
// into a wider type; a sum that does not fit is an error in both.
const (
	sumEnded = `SELECT principal = ?, CAST(SUM(CASE WHEN ended_at >= ? THEN cost ELSE 0 END) AS BIGINT), CAST(SUM(CASE WHEN ended_at >= ? THEN cost ELSE 0 END) AS BIGINT),
		CAST(SUM(CASE WHEN ended_at >= ? THEN cost ELSE 0 END) AS BIGINT), CAST(SUM(cost) AS BIGINT)
		FROM leases WHERE state = 'ended' GROUP BY 1`
	sumCorrections = `SELECT l.principal = ?, CAST(SUM(CASE WHEN l.ended_at >= ? THEN e.cost ELSE 0 END) AS BIGINT), CAST(SUM(CASE WHEN l.ended_at >= ? THEN e.cost ELSE 0 END) AS BIGINT),
		CAST(SUM(CASE WHEN l.ended_at >= ? THEN e.cost ELSE 0 END) AS BIGINT), CAST(SUM(e.cost) AS BIGINT)
		FROM events e JOIN leases l ON l.id = e.lease WHERE e.was = 'ended' GROUP BY 1`
	countWaiting  = `SELECT principal = ?, 0, COUNT(*) FROM leases WHERE state = 'awaiting_approval' GROUP BY 1`
	countLaunches = `SELECT principal = ?, COUNT(*), 0 FROM leases WHERE reserved_at > ? AND id <> ? GROUP BY 1`
)

// usage sums what counts against the caps, the lease except left out. A sum that does not fit is an error.
func usage(ctx context.Context, tx session, principal string, except lease.ID, at time.Time, p lease.Periods) (policy.Usage, error) {
	var mine, others policy.Totals
	half := func(own bool) *policy.Totals {
		if own {
			return &mine
		}
		return &others
	}
	err := each(ctx, tx, func(rows scanner) error {
		l, err := scanLease(rows)
		if err != nil {
			return err
		}
		held := l.Held(at)
		return add(half(l.Principal == principal), policy.Totals{
			Leases: 1, GPUs: l.GPUs, BurnPerHour: l.Price, Day: held, Week: held, Month: held, Lifetime: held,
		})
	}, selectLease+"WHERE state NOT IN ('ended', 'awaiting_approval') AND id <> ?", except)
	if err != nil {
		return policy.Usage{}, fmt.Errorf("sum up live leases: %w", err)
	}
	var untracked policy.Totals
	if err := addStrangers(ctx, tx, &untracked, at, p); err != nil {
		return policy.Usage{}, fmt.Errorf("sum up what no lease accounts for: %w", err)
	}
	for _, query := range []string{sumEnded, sumCorrections} {
		err = each(ctx, tx, func(rows scanner) error {
			var own bool
			var t policy.Totals
			if err := rows.Scan(&own, &t.Day, &t.Week, &t.Month, &t.Lifetime); err != nil {
				return err
			}
			return add(half(own), t)
		}, query, principal, toMillis(p.Day), toMillis(p.Week), toMillis(p.Month))
		if err != nil {
			return policy.Usage{}, fmt.Errorf("sum up ended leases: %w", err)
		}
	}
	for query, args := range map[string][]any{countLaunches: {principal, toMillis(at.Add(-time.Hour)), except}, countWaiting: {principal}} {
		err = each(ctx, tx, func(rows scanner) error {
			var own bool
			var t policy.Totals
			if err := rows.Scan(&own, &t.LaunchesLastHour, &t.Waiting); err != nil {
				return err
			}
			return add(half(own), t)
		}, query, args...)
		if err != nil {
			return policy.Usage{}, fmt.Errorf("count launches and what waits for approval: %w", err)
		}
	}
	all := mine
	if err := add(&all, others); err != nil {
		return policy.Usage{}, err
	}
	return policy.Usage{Account: all, Principal: mine, Untracked: untracked}, nil
}

func add(to *policy.Totals, t policy.Totals) error {
	to.Leases += t.Leases
	to.GPUs += t.GPUs
	to.LaunchesLastHour += t.LaunchesLastHour
	to.Waiting += t.Waiting
	for _, m := range [...]struct {
		sum  *policy.Money
		more policy.Money
	}{{&to.BurnPerHour, t.BurnPerHour}, {&to.Day, t.Day}, {&to.Week, t.Week}, {&to.Month, t.Month}, {&to.Lifetime, t.Lifetime}} {
		if m.more > 0 && *m.sum > math.MaxInt64-m.more {
			return fmt.Errorf("%w: the sum of the amounts is too large", ErrInvalid)
		}
		*m.sum += m.more
	}
	return nil
}
