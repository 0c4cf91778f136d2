package lease

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/gpulease/gpulease/policy"
)

// glance is what one answer reads of the ledger, each thing once and only if it is wanted. It is for one goroutine.
type glance struct {
	now    time.Time
	left   func(principal string) (left policy.Money, trouble string) // of the budget
	guards func() []Guard
	live   func() []Lease // those that the caller may know
}

func (m *Manager) glance(ctx context.Context) *glance {
	type budget struct {
		left    policy.Money
		trouble string
	}
	now, budgets := m.now(), map[string]budget{}
	return &glance{
		now: now,
		left: func(principal string) (policy.Money, string) {
			b, ok := budgets[principal]
			if !ok {
				b.left, b.trouble = m.budgetLeft(ctx, principal, now)
				budgets[principal] = b
			}
			return b.left, b.trouble
		},
		guards: sync.OnceValue(func() []Guard { return m.guards(ctx) }),
		live: sync.OnceValue(func() []Lease {
			live, err := m.Store.Live(ctx)
			if err != nil {
				return nil
			}
			return m.known(ctx, live)
		}),
	}
}

// budgetLeft is what a principal may still spend, or why that is not known.
func (m *Manager) budgetLeft(ctx context.Context, principal string, now time.Time) (left policy.Money, trouble string) {
	p, err := m.Policy.Current()
	if err != nil {
		return 0, fmt.Sprintf("the policy file cannot be used, so no launch is possible: %v", err)
	}
	u, err := m.Store.Usage(ctx, principal, now, m.periods(p, now))
	if err != nil {
		return 0, fmt.Sprintf("the ledger cannot be read: %v", err)
	}
	return policy.Evaluate(p, policy.Request{Principal: principal}, u, nil).BudgetLeft, ""
}
