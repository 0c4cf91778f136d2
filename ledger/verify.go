package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gpulease/gpulease/lease"
)

// TamperError is a place where the ledger is not what was written. It is a sign of damage or of somebody's hand.
type TamperError struct {
	Table string // "events", "decisions" or "leases"
	Row   string // which row, as people would name it
	What  string // what is wrong with it
}

func (e *TamperError) Error() string { return fmt.Sprintf("%s, %s: %s", e.Table, e.Row, e.What) }

// Verify reads the whole ledger and checks the file, the chains of events and decisions, and that each lease is what its last event
// says. It returns nil, or an error in whose chain is a [*TamperError] for each chain that is broken and each lease that
// differs, or ErrCorrupt. Others may go on writing meanwhile.
func (db *DB) Verify(ctx context.Context) error {
	err := db.readAll(ctx, func(ctx context.Context, tx session) error {
		if err := db.engine.check(ctx, tx); err != nil {
			return err
		}
		last := map[lease.ID]string{} // digest by the last event
		const leaseAt, digestAt = 1, 7
		var errs []error
		for _, c := range chains {
			err := c.verify(ctx, tx, db.id, func(values []any) {
				if c.table == eventChain.table {
					last[lease.ID(values[leaseAt].(string))] = values[digestAt].(string)
				}
			})
			var broken *TamperError
			if err != nil && !errors.As(err, &broken) {
				return err
			}
			errs = append(errs, err)
		}
		if errors.Join(errs...) == nil { // else the digests prove nothing
			errs = append(errs, checkLeases(ctx, tx, last))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return fmt.Errorf("verify the ledger: %w", err)
	}
	return nil
}

// verify walks a chain from its root to its end.
func (c chain) verify(ctx context.Context, tx session, ledgerID string, seen func(values []any)) error {
	var end int64
	var endHash []byte
	if err := tx.QueryRowContext(ctx, "SELECT seq, hash FROM chains WHERE name = ?", c.table).Scan(&end, &endHash); err != nil {
		return fmt.Errorf("read the end of %s: %w", c.table, err)
	}
	var seq int64
	hash := c.root(ledgerID)
	err := each(ctx, tx, func(row scanner) error {
		var have int64
		var haveHash []byte
		values := make([]any, len(c.columns))
		dest := []any{&have}
		for i := range values {
			dest = append(dest, &values[i])
		}
		if err := row.Scan(append(dest, &haveHash)...); err != nil {
			return err
		}
		seq++
		if have != seq {
			return &TamperError{c.table, fmt.Sprintf("row %d", seq), "it is missing"}
		}
		next, err := c.link(hash, seq, values)
		if err != nil {
			return err
		}
		if !bytes.Equal(next, haveHash) {
			return &TamperError{c.table, fmt.Sprintf("row %d", seq), "it was changed, or a row before it was"}
		}
		hash = next
		seen(values)
		return nil
	}, "SELECT seq, "+strings.Join(c.columns, ", ")+", hash FROM "+c.table+" ORDER BY seq")
	if err != nil {
		return err
	}
	switch {
	case seq < end:
		return &TamperError{c.table, fmt.Sprintf("row %d", seq+1), fmt.Sprintf("it is missing, with all up to row %d", end)}
	case seq > end || !bytes.Equal(hash, endHash):
		return &TamperError{c.table, fmt.Sprintf("row %d", seq), fmt.Sprintf("the chain was recorded to end at row %d", end)}
	}
	return nil
}

// checkLeases compares each lease with the digest in its last event. It uses up last.
func checkLeases(ctx context.Context, tx session, last map[lease.ID]string) error {
	var errs []error
	err := each(ctx, tx, func(row scanner) error {
		l, err := scanLease(row)
		if err != nil {
			return err
		}
		have, err := digest(l)
		if err != nil {
			return err
		}
		want, ok := last[l.ID]
		delete(last, l.ID)
		switch {
		case !ok:
			errs = append(errs, &TamperError{"leases", "lease " + string(l.ID), "no event made it"})
		case have != want:
			errs = append(errs, &TamperError{"leases", "lease " + string(l.ID), "it is not what its last event says"})
		}
		return nil
	}, selectLease+"ORDER BY seq")
	for id := range last {
		errs = append(errs, &TamperError{"leases", "lease " + string(id), "it is missing"})
	}
	return errors.Join(append(errs, err)...)
}
