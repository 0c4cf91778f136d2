package lease

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gpulease/gpulease/policy"
)

// Spending is where the money stands.
type Spending struct {
	Principal string // for whom the caps were looked at
	Usage     policy.Usage
	Caps      []policy.CapLeft // every cap that binds, with what is left under it
	Left      policy.Money     // the smallest of them; policy.Unlimited for none
	// Trouble says why the policy cannot be read; "" if it can. Without it Caps and Left are
	// not known, and days and months are those of the default time zone.
	Trouble string
	Held    policy.Money // reserved by live leases, of what the caps count
	Leases  []Lease      // live ones, and those that ended since Since, newest first
	Since   time.Time
	// Principals are those who have leases since Since or caps of their own, by name.
	Principals []PrincipalSpending
	Strangers  []Stranger // instances that no lease accounts for
	Frozen     Freeze
	At         time.Time
}

// PrincipalSpending is what one principal has spent and reserved.
type PrincipalSpending struct {
	Name   string
	Totals policy.Totals
}

// Spend reads where the money stands. It costs nothing, asks the cloud nothing, and
// needs no policy but for the caps.
// Who acts as one of several principals (see [ActAs]) gets the account's caps, and of
// the rest its own part.
func (m *Manager) Spend(ctx context.Context, principal string) (Spending, error) {
	if principal == "" || !m.mayKnow(ctx, principal) {
		principal = m.asker(ctx)
	}
	p, broken := m.Policy.Current()
	if broken != nil {
		p = policy.Default()
	}
	now := m.now()
	periods := m.periods(p, now)
	s := Spending{Principal: principal, At: now, Since: periods.Month}
	var err error
	if s.Usage, err = m.Store.Usage(ctx, principal, now, periods); err != nil {
		return Spending{}, ledgerError("sum up what was spent", err)
	}
	if broken != nil {
		s.Trouble = fmt.Sprintf("the policy file cannot be used, so no cap is known and nothing can be launched: %v", broken)
	} else {
		d := policy.Evaluate(p, policy.Request{Principal: principal}, s.Usage, nil)
		s.Caps, s.Left = d.Caps, d.BudgetLeft
	}
	all, err := m.Store.List(ctx, 0)
	if err != nil {
		return Spending{}, ledgerError("list leases", err)
	}
	for _, l := range m.known(ctx, all) {
		if l.State.Live() || !l.EndedAt.Before(s.Since) {
			s.Leases = append(s.Leases, l)
		}
		if l.Counts() {
			s.Held += l.Held(now)
		}
	}
	if s.Principals, err = m.perPrincipal(ctx, p, s.Leases, now, periods); err != nil {
		return Spending{}, ledgerError("sum up what each principal has spent", err)
	}
	if actor(ctx) == "" {
		if s.Strangers, err = m.Store.Sighted(ctx); err != nil {
			return Spending{}, ledgerError("list what else runs in the account", err)
		}
	}
	s.Frozen, err = m.Frozen(ctx)
	return s, err
}

func (m *Manager) perPrincipal(ctx context.Context, p *policy.Policy, leases []Lease, now time.Time, periods Periods) ([]PrincipalSpending, error) {
	names := slices.Collect(maps.Keys(p.Principals))
	for _, l := range leases {
		names = append(names, l.Principal)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !m.mayKnow(ctx, name) })
	slices.Sort(names)
	var out []PrincipalSpending
	for _, name := range slices.Compact(names) {
		u, err := m.Store.Usage(ctx, name, now, periods)
		if err != nil {
			return nil, err
		}
		out = append(out, PrincipalSpending{Name: name, Totals: u.Principal})
	}
	return out, nil
}
