package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// strangerGap is how long after it was last seen an instance may have gone on at most, as far as we count it.
const strangerGap = time.Hour

// accountSilence is how long nobody may look at an account before what was seen there counts as ended: its key is not used
// any more, and would hold up the caps for ever.
const accountSilence = 24 * time.Hour

// Sight implements [lease.Store].
func (db *DB) Sight(ctx context.Context, account string, at time.Time, seen []lease.Stranger) error {
	account = text(account)
	err := db.write(ctx, func(ctx context.Context, tx session) error {
		// First all that were there have ended, also what was seen at this very moment; then what is seen goes on.
		_, err := tx.ExecContext(ctx, "UPDATE strangers SET ended = CASE WHEN seen < ? THEN seen + ? ELSE ? END WHERE account = ? AND ended = 0 AND seen <= ?",
			toMillis(at)-strangerGap.Milliseconds(), strangerGap.Milliseconds(), toMillis(at), account, toMillis(at))
		if err != nil {
			return err
		}
		for _, s := range seen {
			since := s.Since
			if since.IsZero() || since.After(at) {
				since = at
			}
			// One that was thought to have ended goes on from when it was first seen.
			_, err := tx.ExecContext(ctx, `INSERT INTO strangers (account, instance, name, type, region, price, since, seen, ended) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)
				ON CONFLICT (account, instance) DO UPDATE SET name = excluded.name, type = excluded.type, region = excluded.region, ended = 0,
				price = CASE WHEN excluded.price > strangers.price THEN excluded.price ELSE strangers.price END,
				since = CASE WHEN excluded.since < strangers.since THEN excluded.since ELSE strangers.since END,
				seen = CASE WHEN excluded.seen > strangers.seen THEN excluded.seen ELSE strangers.seen END`,
				account, text(s.Instance), text(s.Name), text(s.Type), text(s.Region), s.Price, toMillis(since), toMillis(at))
			if err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, "UPDATE strangers SET ended = seen + ? WHERE account <> ? AND ended = 0 AND seen < ?",
			strangerGap.Milliseconds(), account, toMillis(at.Add(-accountSilence)))
		if err != nil {
			return err
		}
		// What a lease accounts for is counted there.
		_, err = tx.ExecContext(ctx, "DELETE FROM strangers WHERE account = ? AND instance IN (SELECT instance_id FROM leases)", account)
		return err
	})
	if err != nil {
		return fmt.Errorf("write down what else runs in the account: %w", err)
	}
	return nil
}

// Sighted implements [lease.Store].
func (db *DB) Sighted(ctx context.Context) ([]lease.Stranger, error) {
	var out []lease.Stranger
	err := db.read(ctx, func(ctx context.Context, tx session) error {
		return each(ctx, tx, func(row scanner) error {
			var s lease.Stranger
			err := row.Scan(&s.Account, &s.Instance, &s.Name, &s.Type, &s.Region, &s.Price, millis{&s.Since}, millis{&s.Seen})
			out = append(out, s)
			return err
		}, "SELECT account, instance, name, type, region, price, since, seen FROM strangers WHERE ended = 0 ORDER BY since, instance")
	})
	if err != nil {
		return nil, fmt.Errorf("list what else runs in the account: %w", err)
	}
	return out, nil
}

// addStrangers adds what instances without a lease have cost in each period, and the rate of those that are still there.
func addStrangers(ctx context.Context, tx session, to *policy.Totals, at time.Time, p lease.Periods) error {
	return each(ctx, tx, func(row scanner) error {
		var price policy.Money
		var since, seen, ended time.Time
		if err := row.Scan(&price, millis{&since}, millis{&seen}, millis{&ended}); err != nil {
			return err
		}
		// What nobody has seen for long, such as that of an account that is not used any more, does not count on for ever.
		end, there := ended, false
		if ended.IsZero() {
			end = seen.Add(strangerGap)
			there = !at.After(end)
		}
		if end.After(at) {
			end = at
		}
		cost := func(from time.Time) policy.Money {
			if from.Before(since) {
				from = since
			}
			return price.For(max(0, end.Sub(from)))
		}
		t := policy.Totals{Day: cost(p.Day), Week: cost(p.Week), Month: cost(p.Month), Lifetime: cost(since)}
		if there {
			t.BurnPerHour = price
		}
		return add(to, t)
	}, "SELECT price, since, seen, ended FROM strangers")
}

// Touch implements [lease.Store].
func (db *DB) Touch(ctx context.Context, id lease.ID, at time.Time) error {
	err := db.write(ctx, func(ctx context.Context, tx session) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO uses (lease, at) VALUES (?, ?) ON CONFLICT (lease) DO UPDATE SET at = CASE WHEN excluded.at > uses.at THEN excluded.at ELSE uses.at END", string(id), toMillis(at))
		return err
	})
	if err != nil {
		return fmt.Errorf("write down the use of lease %q: %w", id, err)
	}
	return nil
}

// Touched implements [lease.Store].
func (db *DB) Touched(ctx context.Context, id lease.ID) (time.Time, error) {
	var at time.Time
	err := db.read(ctx, func(ctx context.Context, tx session) error {
		return each(ctx, tx, func(row scanner) error { return row.Scan(millis{&at}) }, "SELECT at FROM uses WHERE lease = ?", string(id))
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("read the use of lease %q: %w", id, err)
	}
	return at, nil
}
