package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gpulease/gpulease/policy"
)

// Status is a lease with what an agent has to know beside it. Every answer
// about a lease carries one.
type Status struct {
	Lease      Lease
	Cost       policy.Money // so far, or settled
	BudgetLeft policy.Money // the smallest of what is left under the caps
	Guard      string       // who enforces the deadline and when it was last seen; "none" for nobody
	Warnings   []string
	At         time.Time
}

func (m *Manager) get(ctx context.Context, id ID) (Lease, error) {
	if !ValidID(string(id)) {
		return Lease{}, notFound(id, ErrNotFound)
	}
	l, err := m.Store.Get(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return Lease{}, notFound(id, err)
	case err != nil:
		return Lease{}, ledgerError("read lease "+string(id), err)
	}
	return l, nil
}

// Get reads a lease.
func (m *Manager) Get(ctx context.Context, id ID) (Lease, error) { return m.get(ctx, id) }

// List reads leases, newest first; with live only those that have not ended.
func (m *Manager) List(ctx context.Context, live bool, limit int) ([]Lease, error) {
	var out []Lease
	var err error
	if live {
		out, err = m.Store.Live(ctx)
	} else {
		out, err = m.Store.List(ctx, limit)
	}
	if err != nil {
		return nil, ledgerError("list leases", err)
	}
	if limit > 0 && len(out) > limit {
		out = out[:limit]
	}
	return out, nil
}

// storePoll is how often Wait looks at the ledger. Other processes change it,
// so there is nothing to be told by.
const storePoll = 200 * time.Millisecond

// Wait returns the lease as soon as done says so, or as it is when d is over or
// ctx ends. It changes nothing.
func (m *Manager) Wait(ctx context.Context, id ID, d time.Duration, done func(Lease) bool) (Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	tick := time.NewTicker(storePoll)
	defer tick.Stop()
	var last Lease
	for {
		l, err := m.get(ctx, id)
		switch {
		case err == nil && done(l):
			return l, nil
		case err == nil:
			last = l
		case ctx.Err() == nil || last.ID == "":
			if ctx.Err() != nil {
				return m.get(context.WithoutCancel(ctx), id)
			}
			return Lease{}, err
		}
		select {
		case <-ctx.Done():
			return last, nil
		case <-tick.C:
		}
	}
}

// guards are the guards that were seen lately, newest first.
func (m *Manager) guards(ctx context.Context) []Guard {
	all, err := m.Store.Guards(ctx)
	if err != nil {
		return nil
	}
	now := m.now()
	return slices.DeleteFunc(all, func(g Guard) bool { return isLeader(g) || now.Sub(g.Seen) > guardSilence })
}

// deadlineNear is when answers begin to warn of the deadline.
const deadlineNear = 10 * time.Minute

// Status adds to a lease what belongs in every answer about it. What cannot be
// found out becomes a warning, never an error: the lease itself is known.
func (m *Manager) Status(ctx context.Context, l Lease) Status {
	now := m.now()
	s := Status{Lease: l, Cost: l.CostAt(now), Guard: "none", At: now}
	warn := func(format string, args ...any) { s.Warnings = append(s.Warnings, fmt.Sprintf(format, args...)) }

	if p, err := m.Policy.Current(); err != nil {
		warn("the policy file cannot be used, so no launch is possible: %v", err)
	} else if u, err := m.Store.Usage(ctx, l.Principal, now, m.periods(p, now)); err != nil {
		warn("the ledger cannot be read: %v", err)
	} else {
		s.BudgetLeft = policy.Evaluate(p, policy.Request{Principal: l.Principal}, u, nil).BudgetLeft
	}
	if l.State == Ended {
		s.Guard = ""
		return s
	}
	if guards := m.guards(ctx); len(guards) > 0 {
		said := make([]string, 0, len(guards))
		outlives := false
		for _, g := range guards {
			said = append(said, fmt.Sprintf("%s, seen %d s ago", g.Name, max(0, int(now.Sub(g.Seen)/time.Second))))
			outlives = outlives || !strings.HasPrefix(g.Name, GuardServer)
		}
		s.Guard = strings.Join(said, "; ")
		if !outlives {
			warn("only the server of this session enforces the deadline: it does so until the session ends")
		}
	} else if now.Sub(l.CreatedAt) > guardSilence {
		warn("nobody enforces this lease's deadline at the moment; start gpulease serve, or stop_lease when you are done")
	}
	if account, err := m.Cloud.Account(ctx); err == nil && account != l.Account {
		warn("this lease was launched with another API key; with the present one it can be neither watched nor stopped")
	}
	switch l.State {
	case Stopping:
		warn("stop not confirmed yet: until Lambda shows the instance as gone, %s/h are being spent", l.Price)
	case Launching:
		if !l.LaunchSentAt.IsZero() && now.Sub(l.LaunchSentAt) > m.Timing.LaunchCall {
			warn("the launch call's answer was lost; the account is being searched, and %s stay reserved", l.Reserved)
		}
	case Ready:
		if left := l.Deadline.Sub(now); left < deadlineNear {
			warn("the deadline is in %s; the machine and what is on it are gone then", max(0, left).Round(time.Second))
		}
	}
	return s
}
