package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// chain is an append-only table. Each row carries the hash of its content and of the row before it.
type chain struct {
	table   string
	columns []string // without seq, which comes first, and hash, which comes last
}

var (
	eventChain    = chain{"events", []string{"at", "lease", "version", "was", "became", "note", "cost", "digest"}}
	decisionChain = chain{"decisions", []string{"at", "principal", "verdict", "worst_case", "policy_hash", "lease", "violations"}}
	chains        = []chain{eventChain, decisionChain}
)

// root is what the first row of a chain follows. It differs in each ledger, so a row cannot move to another one.
func (c chain) root(ledgerID string) []byte {
	sum := sha256.Sum256([]byte("gpulease " + c.table + " " + ledgerID))
	return sum[:]
}

// link is the hash of a row: over the one before it and its own content as a JSON array.
func (c chain) link(before []byte, seq int64, values []any) ([]byte, error) {
	raw, err := json.Marshal(append([]any{c.table, seq}, values...))
	if err != nil {
		return nil, fmt.Errorf("hash row %d of %s: %w", seq, c.table, err)
	}
	h := sha256.New()
	h.Write(before)
	h.Write(raw)
	return h.Sum(nil), nil
}

// add appends a row; values are int64s and strings in the order of c.columns.
func (c chain) add(ctx context.Context, tx session, values ...any) error {
	var seq int64
	var hash []byte
	if err := tx.QueryRowContext(ctx, "SELECT seq, hash FROM chains WHERE name = ?", c.table).Scan(&seq, &hash); err != nil {
		return fmt.Errorf("read the end of %s: %w", c.table, err)
	}
	seq++
	hash, err := c.link(hash, seq, values)
	if err != nil {
		return err
	}
	row := append(append([]any{seq}, values...), hash)
	insert := "INSERT INTO " + c.table + " (seq, " + strings.Join(c.columns, ", ") + ", hash) VALUES (?" + strings.Repeat(", ?", len(row)-1) + ")"
	if _, err := tx.ExecContext(ctx, insert, row...); err != nil {
		return fmt.Errorf("append to %s: %w", c.table, err)
	}
	if _, err := tx.ExecContext(ctx, "UPDATE chains SET seq = ?, hash = ? WHERE name = ?", seq, hash, c.table); err != nil {
		return fmt.Errorf("append to %s: %w", c.table, err)
	}
	return nil
}

// addEvent writes down that a lease has become l. l is as stored.
func addEvent(ctx context.Context, tx session, at time.Time, was lease.State, l lease.Lease, note string) error {
	var cost policy.Money
	if l.State == lease.Ended {
		cost = l.Cost
	}
	return appendEvent(ctx, tx, at, was, l, cost, note)
}

func appendEvent(ctx context.Context, tx session, at time.Time, was lease.State, l lease.Lease, cost policy.Money, note string) error {
	sum, err := digest(l)
	if err != nil {
		return err
	}
	return eventChain.add(ctx, tx, toMillis(at), string(l.ID), l.Version, string(was), string(l.State), text(note), int64(cost), sum)
}

// addDecision writes down what was decided; id is the lease that it led to or was about, "" for none.
func addDecision(ctx context.Context, tx session, at time.Time, principal string, d policy.Decision, id lease.ID) error {
	violations, err := json.Marshal(append([]policy.Violation{}, d.Violations...))
	if err != nil {
		return fmt.Errorf("write the decision down: %w", err)
	}
	return decisionChain.add(ctx, tx, toMillis(at), text(principal), string(d.Verdict), int64(d.WorstCase), text(d.PolicyHash), string(id), string(violations))
}
