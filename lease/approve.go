package lease

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gpulease/gpulease/policy"
)

const (
	// maxWaiting is how many requests of one principal may wait for approval.
	maxWaiting = 10
	// approvedFor is how long after a yes the launch is tried, where nothing is free
	// or nobody runs who could do it.
	approvedFor = 15 * time.Minute
)

// refuseMany denies what would wait for approval beside many others: a person is
// not to be flooded.
func refuseMany(waiting int, d policy.Decision) policy.Decision {
	if d.Verdict != policy.Ask || waiting < maxWaiting {
		return d
	}
	d.Verdict = policy.Deny
	d.Violations = []policy.Violation{{
		Rule: "approve_above", Code: policy.CodePolicyDenied, Limit: fmt.Sprint(maxWaiting), Asked: fmt.Sprint(waiting + 1), Source: "built in",
		Message: fmt.Sprintf("%d requests wait for approval already; have some of them approved or denied first (gpulease approve, gpulease deny)", waiting),
	}}
	return d
}

// asked makes sure that somebody is there who launches when a person has said
// yes, or lets the request expire.
func (m *Manager) asked(ctx context.Context, l Lease, d policy.Decision) (Lease, error) {
	m.Crash("asked")
	m.log.Info("waits for approval", "lease", l.ID, "type", l.Type, "worst_case", d.WorstCase.String(), "rule", d.ApprovalRule)
	if err := m.EnsureGuard(ctx); err != nil {
		m.log.Warn("no keeper is there that would launch when it is approved", "lease", l.ID, "err", err)
	}
	return l, nil
}

// Approve says yes to a request that waits, as it was asked: this type, region
// and time, at no higher price. by names the person. Whoever works for the
// lease's home launches it then. Approving again changes nothing.
func (m *Manager) Approve(ctx context.Context, id ID, by string) (Lease, error) {
	return m.decide(ctx, id, func(l Lease, now time.Time) (Lease, string, error) {
		l, note := l.approved(now, by)
		return l, note, nil
	})
}

// ApproveShown says yes to a request as a person was shown it. One that has become
// another since, or that somebody has decided about, stays as it is.
func (m *Manager) ApproveShown(ctx context.Context, shown Lease, by string) (Lease, error) {
	return m.decide(ctx, shown.ID, func(l Lease, now time.Time) (Lease, string, error) {
		if l.asked() != shown.asked() || !l.ApprovedAt.IsZero() {
			return l, "", &Error{
				Code: CodeInvalidInput, Message: fmt.Sprintf("lease %s is not what was shown any more", l.ID), Why: l.Detail, LeaseID: l.ID,
				Next: fmt.Sprintf("get_lease with lease_id %q", l.ID),
			}
		}
		l, note := l.approved(now, by)
		return l, note, nil
	})
}

func (l Lease) approved(now time.Time, by string) (Lease, string) {
	if l.ApprovedAt.IsZero() {
		l.ApprovedAt, l.ApprovedBy, l.Detail = now, by, "approved by "+by+"; about to be launched"
	}
	return l, "approved by " + by
}

// asked is what a person is shown of a request that waits, but for its purpose.
func (l Lease) asked() string {
	return fmt.Sprint(l.ID, l.Principal, l.Type, l.AskedRegion, l.ImageFamily, l.GPUs, l.TTL, l.Price, l.WorstCase(), l.DecideBy.UnixMilli())
}

// Deny says no to a request that waits, also to one that was approved and is
// not launched yet.
func (m *Manager) Deny(ctx context.Context, id ID, by, why string) (Lease, error) {
	return m.decide(ctx, id, func(l Lease, now time.Time) (Lease, string, error) {
		l.State, l.Reason, l.StopAt, l.EndedAt = Ended, Denied, now, now
		l.Detail = "denied by " + by
		if why != "" {
			l.Detail += ": " + why
		}
		return l, l.Detail, nil
	})
}

// Doubts says why a request that waits would not be launched now, although a
// person said yes; "" where nothing stands against it.
func (m *Manager) Doubts(ctx context.Context, l Lease) string {
	p, err := m.policyOf(l)
	if err != nil {
		return "the policy cannot be used: " + err.Error()
	}
	if f, err := m.Store.Frozen(ctx); err == nil && f.On() {
		return "launches are frozen by " + f.By
	}
	now := m.now()
	u, err := m.Store.Usage(ctx, l.Principal, now, m.periods(p, now))
	if err != nil {
		return "the ledger cannot be read: " + err.Error()
	}
	r := policy.Request{
		Principal: l.Principal, Type: l.Type, Region: l.AskedRegion, Image: l.ImageFamily, GPUs: l.GPUs, PricePerHour: l.Price,
		TTL: l.TTL, BootAllowance: l.BootAllowance, StopAllowance: l.StopAllowance,
	}
	d := policy.Evaluate(p, r, u, nil)
	var said []string
	for _, v := range d.Violations {
		if l.AskedRegion == "" && strings.Contains(v.Rule, "regions.") {
			continue // one that is allowed may be free then
		}
		said = append(said, fmt.Sprintf("%s (%s: %s)", v.Message, v.Rule, v.Source))
	}
	return strings.Join(said, "; ")
}

// policyOf is the policy that a request was made under, as it is now: by another
// process' policy, the caps of a stricter one would not bind.
func (m *Manager) policyOf(l Lease) (*policy.Policy, error) {
	if l.PolicyOrigin == "" || l.PolicyOrigin == m.Policy.Origin() {
		return m.Policy.Current()
	}
	source, err := policy.SourceFrom(l.PolicyOrigin)
	if err != nil {
		return nil, err
	}
	return source.Current()
}

func (m *Manager) decide(ctx context.Context, id ID, change func(Lease, time.Time) (Lease, string, error)) (_ Lease, err error) {
	defer m.nudgeUnless(&err)
	for {
		l, err := m.get(ctx, id)
		if err != nil {
			return Lease{}, err
		}
		now := m.now()
		if l.State == AwaitingApproval && l.ApprovedAt.IsZero() && !now.Before(l.DecideBy) {
			l, err = m.withdraw(ctx, l, Expired, "nobody approved it in time")
			if errors.Is(err, ErrConflict) {
				continue
			}
			if err != nil {
				return l, err
			}
		}
		if l.State != AwaitingApproval {
			return l, &Error{
				Code: CodeInvalidInput, Message: fmt.Sprintf("lease %s does not wait for approval: it is %s", l.ID, l.State), Why: l.Detail, LeaseID: l.ID,
				Next: "gpulease leases shows what waits",
			}
		}
		l, note, err := change(l, now)
		if err != nil {
			return l, err
		}
		m.Crash("deciding")
		done, err := m.Store.Update(ctx, l, note)
		if errors.Is(err, ErrConflict) {
			continue
		}
		if err != nil {
			return l, ledgerError("write the decision down", err)
		}
		m.Crash("decided")
		m.log.Info("decided", "lease", id, "what", note)
		return done, nil
	}
}

// withdraw ends a lease that waits: nothing was reserved, nothing launched.
func (m *Manager) withdraw(ctx context.Context, l Lease, why Reason, detail string) (Lease, error) {
	now := m.now()
	l.State, l.Reason, l.Detail, l.StopAt, l.EndedAt, l.Reserved = Ended, why, detail, now, now, 0
	done, err := m.Store.Update(ctx, l, detail)
	if err != nil {
		return l, err
	}
	m.log.Info("ended", "lease", l.ID, "reason", why)
	return done, nil
}

// undecided says why a lease that waits has to end now, or "".
func (m *Manager) undecided(l Lease, now time.Time) (why Reason, detail string) {
	switch {
	case l.ApprovedAt.IsZero() && !now.Before(l.DecideBy):
		return Expired, "nobody approved it in time"
	case !l.ApprovedAt.IsZero() && now.Sub(l.ApprovedAt) >= approvedFor:
		return Expired, fmt.Sprintf("approved, but it could not be launched within %s (last: %s)", approvedFor, l.Detail)
	}
	return "", ""
}

// launchApproved launches what a person has approved. The policy decides once
// more, with the approval in hand: what is over a cap by now, or dearer, is not launched.
func (m *Manager) launchApproved(ctx context.Context, id ID) error {
	l, err := m.Store.Get(ctx, id)
	if err != nil || l.State != AwaitingApproval || l.ApprovedAt.IsZero() || m.isClosed() {
		return err
	}
	if why, _ := m.undecided(l, m.now()); why != "" {
		return nil // the leader ends it
	}
	p, err := m.policyOf(l)
	if err != nil {
		return m.hold(ctx, l, fmt.Errorf("the policy cannot be used: %w", err))
	}
	r := LaunchRequest{Type: l.Type, Region: l.AskedRegion, TTL: l.TTL, Principal: l.Principal}
	q, offers, err := m.find(ctx, p, r)
	switch code := CodeOf(err); {
	case code == CodePolicyDenied || code == CodeInvalidInput:
		_, err := m.withdraw(ctx, l, Refused, "approved, but not possible any more: "+err.Error())
		return err
	case err != nil:
		return m.hold(ctx, l, err)
	case q.Offer.Price > l.Price:
		_, err := m.withdraw(ctx, l, Refused, fmt.Sprintf("approved at %s/h, and it costs %s/h now", l.Price, q.Offer.Price))
		return err
	}
	if err := m.sight(ctx); err != nil {
		return m.hold(ctx, l, err)
	}
	if err := m.askTime(ctx); err != nil {
		return m.hold(ctx, l, err)
	}
	now := m.now()
	next, s, err := m.dated(ctx, p, l, q, now)
	if err != nil {
		return m.hold(ctx, l, err)
	}
	m.Crash("approval-reserving")
	got, d, err := m.Store.Rereserve(ctx, next, now, m.periods(p, now), "reserved, approved by "+l.ApprovedBy, func(u policy.Usage) policy.Decision {
		d := policy.Evaluate(p, m.policyRequest(p, l.Principal, q.Offer, next.Region, l.TTL), u, m.alternatives(offers))
		if d.Verdict == policy.Ask {
			d.Verdict = policy.Allow // a person has said yes to this very request
		}
		return d
	})
	switch {
	case errors.Is(err, ErrConflict):
		return nil // stopped, denied or taken by another process
	case err != nil:
		return m.hold(ctx, l, ledgerError("reserve", err))
	case d.Verdict != policy.Allow:
		_, err := m.withdraw(ctx, l, Refused, "approved, but the policy does not allow it now: "+strings.ReplaceAll(d.Explain(), "\n", "; "))
		return err
	}
	m.Crash("approval-reserved")
	_, err = m.send(ctx, p, got, q, s)
	if CodeOf(err) != "" {
		return nil // it is in the lease
	}
	return err
}

// hold writes down why an approved launch has to wait.
func (m *Manager) hold(ctx context.Context, l Lease, cause error) error {
	if detail := "approved; not launched yet: " + cause.Error(); l.Detail != detail {
		l.Detail = detail
		if _, err := m.Store.Update(ctx, l, detail); err != nil && !errors.Is(err, ErrConflict) {
			return fmt.Errorf("write down why it waits: %w", err)
		}
	}
	return cause
}
