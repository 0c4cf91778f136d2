package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// Decision is a decision that was made inside the ledger, as it was written down.
type Decision struct {
	At         time.Time
	Principal  string
	Verdict    policy.Verdict
	WorstCase  policy.Money
	PolicyHash string
	Lease      lease.ID // the lease that it led to or was about; "" where a request was not allowed
	Violations []policy.Violation
}

// Decisions lists decisions, newest first, at most limit (0 = all).
func (db *DB) Decisions(ctx context.Context, limit int) ([]Decision, error) {
	query, args := "SELECT at, principal, verdict, worst_case, policy_hash, lease, violations FROM decisions ORDER BY seq DESC", []any{}
	if limit > 0 {
		query, args = query+" LIMIT ?", append(args, limit)
	}
	var out []Decision
	err := db.read(ctx, func(ctx context.Context, tx session) error {
		return each(ctx, tx, func(row scanner) error {
			var d Decision
			var violations []byte
			if err := row.Scan(millis{&d.At}, &d.Principal, &d.Verdict, &d.WorstCase, &d.PolicyHash, &d.Lease, &violations); err != nil {
				return err
			}
			out = append(out, d)
			return json.Unmarshal(violations, &out[len(out)-1].Violations)
		}, query, args...)
	})
	if err != nil {
		return nil, fmt.Errorf("list decisions: %w", err)
	}
	return out, nil
}
