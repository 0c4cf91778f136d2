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
	SecondTry  ID // the lease that was launched because this one's machine was sick
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
	case !m.mayKnow(ctx, l.Principal):
		return Lease{}, notFound(id, ErrNotFound)
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
		most := limit
		if actor(ctx) != "" {
			most = 0 // how many of the newest are others' is not known
		}
		out, err = m.Store.List(ctx, most)
	}
	if err != nil {
		return nil, ledgerError("list leases", err)
	}
	out = m.known(ctx, out)
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
	late := false
	for {
		l, err := m.get(ctx, id)
		switch {
		case err == nil && done(l):
			return l, nil
		case err == nil:
			last, late = l, false
		case last.ID != "" && !late && timedOut(err):
			late = true // a connection that is being made can learn of the end of d before ctx does
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

func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// guards are the guards that were seen lately, newest first.
func (m *Manager) guards(ctx context.Context) []Guard {
	all, err := m.Store.Guards(ctx)
	if err != nil {
		return nil
	}
	now := m.now()
	return slices.DeleteFunc(all, func(g Guard) bool {
		if isReaper(g) {
			return now.Sub(g.Seen) > reaperShown
		}
		return isRole(g) || now.Sub(g.Seen) > guardSilence
	})
}

// reaperShown is how long a reaper's visit is told: it comes by a timer.
const reaperShown = 24 * time.Hour

func isReaper(g Guard) bool { return strings.HasPrefix(g.Name, GuardReap+" ") }

// ago is how long ago something was, for people.
func ago(d time.Duration) string {
	if d < 2*time.Minute {
		return fmt.Sprintf("%d s ago", max(0, int(d/time.Second)))
	}
	return fmt.Sprintf("%d min ago", int(d/time.Minute))
}

// deadlineNear is when answers begin to warn of the deadline.
const deadlineNear = 10 * time.Minute

// Status adds to a lease what belongs in every answer about it. What cannot be
// found out becomes a warning, never an error: the lease itself is known.
func (m *Manager) Status(ctx context.Context, l Lease) Status { return m.Statuses(ctx, []Lease{l})[0] }

// Statuses is Status for each of several leases; what they share is read once.
func (m *Manager) Statuses(ctx context.Context, leases []Lease) []Status {
	g := m.glance(ctx)
	out := make([]Status, 0, len(leases))
	for _, l := range leases {
		out = append(out, m.status(ctx, l, g))
	}
	return out
}

func (m *Manager) status(ctx context.Context, l Lease, g *glance) Status {
	now := g.now
	s := Status{Lease: l, Cost: l.CostAt(now), Guard: "none", At: now}
	warn := func(format string, args ...any) { s.Warnings = append(s.Warnings, fmt.Sprintf(format, args...)) }

	if left, trouble := g.left(l.Principal); trouble != "" {
		warn("%s", trouble)
	} else {
		s.BudgetLeft = left
		if s.BudgetLeft < l.Price && l.State == Ready {
			warn("budget low: %s are left, less than an hour of this machine, so it can hardly be extended", s.BudgetLeft)
		}
	}
	if second := m.secondTry(ctx, l); second.Note != "" {
		s.SecondTry = second.ID
		warn("%s", second.Note)
	}
	if l.State == Ended {
		s.Guard = ""
		return s
	}
	if l.State == AwaitingApproval {
		s.Guard = ""
		if l.ApprovedAt.IsZero() {
			warn("waits for a person until %s, then it expires", l.DecideBy.Format(time.RFC3339))
		}
		return s
	}
	if guards := g.guards(); len(guards) > 0 {
		said := make([]string, 0, len(guards))
		outlives := false
		for _, g := range guards {
			since := now.Sub(g.Seen)
			said = append(said, fmt.Sprintf("%s, seen %s", g.Name, ago(since)))
			outlives = outlives || !strings.HasPrefix(g.Name, GuardServer) && (!isReaper(g) || since <= reaperFresh)
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
	if unseen := now.Sub(l.SeenAt); !l.SeenAt.IsZero() && unseen >= loudUnseen {
		warn("the cloud has not shown this machine for %d min, so nobody can be sure to end it; gpulease doctor says whether the API key works", int(unseen/time.Minute))
	}
	if l.unlisted() && l.State == Ready {
		warn("%s", l.sayUnlisted())
	}
	for _, w := range unconfirmed(g.live(), l.ID, now) { // that belongs in every answer until it is mended
		warn("%s", w)
	}
	switch l.State {
	case Stopping:
		warn("stop not confirmed yet: until Lambda shows the instance as gone, %s/h are being spent", l.Price)
	case Launching:
		if !l.LaunchSentAt.IsZero() && now.Sub(l.LaunchSentAt) > m.Timing.LaunchCall {
			warn("the launch call's answer was lost; the account is being searched, and %s stay reserved", l.Reserved)
		}
	case Ready:
		if l.callsUnhealthy() {
			warn("the cloud calls the machine unhealthy, and it is billed on: if it does not answer, stop the lease")
		}
		if left := l.Deadline.Sub(now); left < deadlineNear {
			warn("the deadline is in %s; the machine and what is on it are gone then", max(0, left).Round(time.Second))
		}
		m.warnOfIdleness(l, now, warn)
	}
	return s
}

// warnOfIdleness says that a lease is about to be ended for being idle, or would be.
func (m *Manager) warnOfIdleness(l Lease, now time.Time, warn func(string, ...any)) {
	p, err := m.Policy.Current()
	if err != nil || l.IdleSince.IsZero() {
		return
	}
	timeout, mode := p.IdleFor(l.Principal)
	idle := now.Sub(l.IdleSince)
	if timeout <= 0 || idle < timeout/2 {
		return
	}
	if mode == policy.IdleWarn {
		warn("nothing has used the machine for %s, and %s/h are being spent", idle.Round(time.Second), l.Price)
		return
	}
	warn("nothing has used the machine for %s; at %s (idle_timeout) it is ended", idle.Round(time.Second), timeout)
}

// unlisted says whether the last good listing did not show the machine. One may be
// behind; it takes more to believe that it is gone.
func (l Lease) unlisted() bool { return l.Missing > 0 }

func (l Lease) sayUnlisted() string {
	return fmt.Sprintf("the cloud has not listed this machine since %s: it may be gone, which is settled within a few minutes", l.MissingSince.UTC().Format(time.RFC3339))
}

// loudAfter is how long a stop may take before every answer says that it is not confirmed.
const loudAfter = 3 * time.Minute

// loudUnseen is how old the last sighting of a machine may be; in use it is written
// down every seenEvery.
const loudUnseen = 2 * seenEvery

// unconfirmed says which of the live leases but one should have ended and have not.
func unconfirmed(live []Lease, but ID, now time.Time) []string {
	var out []string
	for _, l := range live {
		if l.ID != but && l.State == Stopping && now.Sub(l.StopAt) > loudAfter {
			out = append(out, fmt.Sprintf("STOP NOT CONFIRMED for lease %s since %s: %s/h are still being spent (%s)", l.ID, ago(now.Sub(l.StopAt)), l.Price, l.Detail))
		}
	}
	return out
}

// Notices are what every answer that is about no single lease has to say: stops
// that are not confirmed, a freeze, and what runs in the account without a lease.
func (m *Manager) Notices(ctx context.Context) []string {
	g := m.glance(ctx)
	out := unconfirmed(g.live(), "", g.now)
	if f, err := m.Store.Frozen(ctx); err == nil && f.On() {
		text := "launches and extensions are frozen by " + f.By
		if f.Why != "" {
			text += ": " + f.Why
		}
		out = append(out, text)
	}
	if strangers, err := m.Store.Sighted(ctx); err == nil && len(strangers) > 0 {
		var rate policy.Money
		for _, s := range strangers {
			rate += s.Price
		}
		who := "1 instance in the account has no lease here and costs"
		if n := len(strangers); n > 1 {
			who = fmt.Sprintf("%d instances in the account have no lease here and cost", n)
		}
		out = append(out, fmt.Sprintf("%s %s/h; gpulease spend lists them", who, rate))
	}
	return out
}
