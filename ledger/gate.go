package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/gpulease/gpulease/lambda"
)

// maxHold is how long [Gate.Hold] can make a slot busy at most. A row further ahead than that, and than the slot's own
// period, was written by a clock that was wrong.
const maxHold = 30 * time.Second

// longestPeriod stands in for a slot's period where that is not known.
const longestPeriod = time.Hour

// Gate is the [lambda.Gate] of all processes that share a ledger: an account's rate limit, kept in rows.
type Gate struct {
	db      *DB
	account string
}

var _ lambda.Gate = (*Gate)(nil)

// Gate returns the gate of an account. The name of the account only has to be the same in every process.
func (db *DB) Gate(account string) *Gate { return &Gate{db: db, account: text(account)} }

// Take implements [lambda.Gate]. While a slot is busy it only reads.
func (g *Gate) Take(ctx context.Context, slots ...lambda.Slot) (time.Duration, error) {
	var wait time.Duration
	err := g.db.read(ctx, func(ctx context.Context, tx session) (err error) {
		wait, err = g.wait(ctx, tx, slots)
		return err
	})
	if err == nil && wait == 0 {
		err = g.db.write(ctx, func(ctx context.Context, tx session) (err error) {
			if wait, err = g.wait(ctx, tx, slots); err != nil || wait > 0 {
				return err
			}
			for _, s := range slots {
				if err := g.set(ctx, tx, s.Name, g.db.now().Add(s.Every)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return 0, fmt.Errorf("take a slot of the rate limit: %w", err)
	}
	return wait, nil
}

// wait is how long until all slots may be free.
func (g *Gate) wait(ctx context.Context, tx session, slots []lambda.Slot) (time.Duration, error) {
	next := map[string]time.Time{}
	err := each(ctx, tx, func(row scanner) error {
		var name string
		var t time.Time
		if err := row.Scan(&name, millis{&t}); err != nil {
			return err
		}
		next[name] = t
		return nil
	}, "SELECT slot, next FROM rates WHERE account = ?", g.account)
	now := g.db.now()
	var wait time.Duration
	for _, s := range slots {
		// A row is rounded up to the next millisecond.
		if d := next[s.Name].Sub(now); d <= max(s.Every, maxHold)+time.Millisecond {
			wait = max(wait, d)
		}
	}
	return wait, err
}

// Hold implements [lambda.Gate], for at most 30 s.
func (g *Gate) Hold(ctx context.Context, name string, d time.Duration) error {
	d = min(d, maxHold)
	err := g.db.write(ctx, func(ctx context.Context, tx session) error {
		busy, err := g.wait(ctx, tx, []lambda.Slot{{Name: name, Every: longestPeriod}})
		if err != nil || busy >= d {
			return err
		}
		return g.set(ctx, tx, name, g.db.now().Add(d))
	})
	if err != nil {
		return fmt.Errorf("hold slot %s of the rate limit: %w", name, err)
	}
	return nil
}

func (g *Gate) set(ctx context.Context, tx session, name string, next time.Time) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO rates (account, slot, next) VALUES (?, ?, ?) ON CONFLICT (account, slot) DO UPDATE SET next = excluded.next",
		g.account, text(name), toMillis(next.Add(time.Millisecond-1)))
	return err
}
