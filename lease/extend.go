package lease

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gpulease/gpulease/policy"
)

// Extension asks for more time on a lease.
type Extension struct {
	More time.Duration // whole minutes, above 0
	// Call is the caller's own name for this very call: the same again changes
	// nothing. With "" each call extends.
	Call string
	// By names a person who has approved it, "" for none: then an extension that
	// needs approval is refused.
	By string
}

// Extend moves a lease's deadline. It is a new decision and a new reservation: the
// policy is asked about all of the lease's time together, and its hard stop, which is in
// its name and never moves, is the end of all extensions.
func (m *Manager) Extend(ctx context.Context, id ID, x Extension) (Lease, error) {
	if x.More < time.Minute || x.More%time.Minute != 0 {
		return Lease{}, invalid("give whole minutes, at least one", "an extension of %s makes no sense", x.More)
	}
	if len(x.Call) > maxIdemKey {
		return Lease{}, invalid("shorten it", "the name of the call has %d bytes, at most %d are kept", len(x.Call), maxIdemKey)
	}
	for {
		l, err := m.get(ctx, id)
		if err != nil {
			return Lease{}, err
		}
		if done, err := m.extended(ctx, l, x); err != nil || done {
			return l, err
		}
		if err := extendable(l); err != nil {
			return l, err
		}
		p, err := m.policyNow()
		if err != nil {
			return l, err
		}
		if err := m.askTime(ctx); err != nil {
			return l, err
		}
		got, err := m.extend(ctx, p, l, x)
		if errors.Is(err, ErrConflict) {
			continue
		}
		return got, err
	}
}

// extended reports whether this very call has been carried out before.
func (m *Manager) extended(ctx context.Context, l Lease, x Extension) (bool, error) {
	if x.Call == "" {
		return false, nil
	}
	history, err := m.Store.History(ctx, l.ID)
	if err != nil {
		return false, ledgerError("look for an earlier extension", err)
	}
	for _, e := range history {
		if strings.HasPrefix(e.Note, extendNote) && strings.HasSuffix(e.Note, x.mark()) {
			return true, nil
		}
	}
	return false, nil
}

const extendNote = "extended by "

// mark tells in a lease's history which call has extended it.
func (x Extension) mark() string {
	if x.Call == "" {
		return ""
	}
	return fmt.Sprintf(" (call %q)", x.Call)
}

func extendable(l Lease) error {
	switch l.State {
	case Ready, Booting:
		return nil
	case Stopping, Ended:
		return &Error{
			Code: CodeLeaseEnded, Message: fmt.Sprintf("lease %s is %s (%s) and cannot be extended", l.ID, l.State, l.Reason), Why: l.Detail, LeaseID: l.ID,
			Next: "launch_lease for a new machine",
		}
	}
	return &Error{
		Code: CodeLeaseNotReady, Message: fmt.Sprintf("lease %s is %s; only one that boots or is ready can be extended", l.ID, l.State), Why: l.Detail, LeaseID: l.ID, Retryable: true,
		Next: fmt.Sprintf("get_lease with lease_id %q, until its state is ready", l.ID),
	}
}

func (m *Manager) extend(ctx context.Context, p *policy.Policy, l Lease, x Extension) (Lease, error) {
	now := m.now()
	if l.State == Ready && !now.Before(l.Deadline) {
		return l, &Error{Code: CodeLeaseEnded, Message: fmt.Sprintf("the deadline of lease %s has come; it is being ended", l.ID), LeaseID: l.ID, Next: "launch_lease for a new machine"}
	}
	next := l
	next.TTL += x.More
	next.Deadline = l.Deadline.Add(x.More)
	next.PolicyHash = p.Hash()
	last := l.HardStop.Add(-l.StopAllowance)
	beyond := next.Deadline.After(last)
	// What booting has taken is known once it is ready.
	boot := l.BootAllowance
	if l.State == Ready {
		boot = max(0, l.ReadyAt.Sub(l.LaunchSentAt))
	}
	req := policy.Request{
		Principal: l.Principal, Type: l.Type, Region: l.Region, Image: l.ImageFamily, GPUs: l.GPUs, PricePerHour: l.Price,
		TTL: next.TTL, BootAllowance: boot, StopAllowance: l.StopAllowance,
	}
	next.Reserved = max(l.Reserved, req.WorstCase())
	note := fmt.Sprintf("%s%s to %s", extendNote, x.More, next.Deadline.Format(time.RFC3339))
	if x.By != "" {
		note += ", approved by " + x.By
	}
	m.Crash("extending")
	got, d, err := m.Store.Rereserve(ctx, next, now, m.periods(p, now), note+x.mark(), func(u policy.Usage) policy.Decision {
		u.Account.LaunchesLastHour, u.Principal.LaunchesLastHour = 0, 0 // nothing is launched
		d := policy.Evaluate(p, req, u, nil)
		if d.Verdict == policy.Ask && x.By != "" {
			d.Verdict = policy.Allow
		}
		if beyond {
			d = deniedByName(d, l, next.Deadline, last)
		}
		return d
	})
	switch {
	case errors.Is(err, ErrConflict):
		return l, err
	case err != nil:
		return l, ledgerError("extend the lease", err).of(l.ID)
	case d.Verdict != policy.Allow:
		return l, notExtended(l, x, d, last)
	}
	m.Crash("extended")
	m.log.Info("extended", "lease", l.ID, "deadline", got.Deadline, "reserved", got.Reserved.String())
	m.nudge()
	return got, nil
}

// deniedByName adds to a decision that the lease's name, which holds its hard
// stop, allows no deadline that late.
func deniedByName(d policy.Decision, l Lease, asked, last time.Time) policy.Decision {
	d.Verdict = policy.Deny
	d.Violations = append(d.Violations, policy.Violation{
		Rule: "hard_stop", Code: policy.CodePolicyDenied, Limit: last.Format(time.RFC3339), Asked: asked.Format(time.RFC3339), Source: "the name of its instance",
		Message: fmt.Sprintf("a deadline at %s is later than %s, the last that max_ttl could ever allow when lease %s was launched", asked.Format(time.RFC3339), last.Format(time.RFC3339), l.ID),
	})
	return d
}

// notExtended refuses an extension and names the longest that passes now, if there
// is one: what the policy leaves and what the hard stop leaves, whichever is less.
func notExtended(l Lease, x Extension, d policy.Decision, last time.Time) *Error {
	if n := d.Nearest; n != nil && (n.Type != l.Type || n.Region != l.Region || n.TTL <= l.TTL) {
		d.Nearest = nil // another machine, or no more than it has: a request, but no extension
	}
	e := &Error{
		Code: Code(d.Code()), Message: fmt.Sprintf("the policy does not allow this extension; lease %s keeps its deadline", l.ID), Why: d.Explain(), LeaseID: l.ID,
		Next: "finish before the deadline, or have the policy changed by its owner",
	}
	longest, approval := d.LongestTTL, false
	switch n := d.Nearest; {
	case d.Verdict == policy.Ask:
		e.Message = fmt.Sprintf("this extension needs a person's approval; lease %s keeps its deadline", l.ID)
		e.Next = fmt.Sprintf("ask a person to run gpulease extend %s --minutes %d", l.ID, int(x.More/time.Minute))
		longest = 0
		if n != nil {
			longest = n.TTL
		}
	case n != nil && n.Type == l.Type && n.Region == l.Region:
		longest, approval = n.TTL, n.Approval && x.By == ""
	}
	more := min(longest-l.TTL, last.Sub(l.Deadline)).Truncate(time.Minute)
	switch {
	case more < time.Minute:
	case approval:
		e.Next += fmt.Sprintf("; extend_lease by %d minutes would pass if a person approves it (gpulease extend %s --minutes %d)", int(more/time.Minute), l.ID, int(more/time.Minute))
	default:
		e.Next += fmt.Sprintf("; extend_lease by %d minutes would pass", int(more/time.Minute))
	}
	return e
}
