package lease

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/policy"
)

// look is when a listing was made: what it shows was true at some moment
// between the two. Each conclusion takes the one that is safe for it. Where the
// time is in doubt, nothing that costs money is dated by it, and where it is not, still
// by the cloud's clock if that makes it more.
type look struct {
	from, to time.Time
	sure     bool
	off      time.Duration // of the cloud's clock from our time
}

// billedFrom and billedTo are the look's ends for what costs money.
func (at look) billedFrom() time.Time { return at.from.Add(min(at.off, 0)) }
func (at look) billedTo() time.Time   { return at.to.Add(max(at.off, 0)) }

// lookSince dates a listing that was begun at our clock's before, after its
// answer has told the cloud's time.
func (m *Manager) lookSince(before time.Time) look {
	to := m.now()
	return look{from: to.Add(before.Round(0).Sub(m.Now().Round(0))), to: to, sure: m.timeIsSure(), off: m.clock.off()}
}

// present takes in that the cloud shows the lease's instance.
func (r *reconciler) present(ctx context.Context, l Lease, inst lambda.Instance, at look) error {
	m := r.m
	was := l
	if l.InstanceID == "" {
		m.Crash("found")
		l.InstanceID, l.BillingFrom = inst.ID, l.LaunchSentAt
		l.Detail = "found in the account after its launch call's answer was lost"
		if l.State == Launching {
			l.State = Booting
		}
	}
	l.Missing, l.MissingSince = 0, time.Time{}
	if seen := at.from.Sub(l.SeenAt); l.SeenAt.IsZero() || seen >= seenEvery || l.State != Ready && seen >= beatEvery {
		l.SeenAt = at.from // in use, each sighting would only swell the history
	}
	if inst.IP != "" && !l.InTailnet() {
		l.Addr = inst.IP
	}
	if inst.Status != lambda.StatusBooting {
		r.up[l.ID] = true
	}
	if l.State == Ready {
		l.Detail = strings.TrimSuffix(l.Detail, calledUnhealthy)
		if inst.Status == lambda.StatusUnhealthy {
			l.Detail += calledUnhealthy
		}
	}
	if !r.up[l.ID] && l.ReadyAt.IsZero() && (inst.FirstHealthy == nil || inst.FirstHealthy.IsZero()) && at.sure && at.billedFrom().After(l.BillingFrom) {
		l.BillingFrom = at.billedFrom() // not billed up to here
	}
	dearer := false
	if price := policy.Cents(int64(inst.InstanceType.PriceCentsPerHour)); price > l.Price {
		l.Price, dearer = price, true // what it costs is what the cloud charges, agreed or not
	}
	if inst.Status == lambda.StatusTerminated {
		if !at.sure {
			return nil // the next listing says it again
		}
		l.GoneAt = at.billedTo()
		return r.gone(ctx, l, "the cloud shows it as terminated")
	}
	if l != was {
		fresh, err := m.Store.Update(ctx, l, changeNote(was, l))
		if err != nil {
			return fmt.Errorf("write down what the listing shows: %w", err)
		}
		l = fresh
		m.Crash("seen")
	}
	if l.State == Stopping {
		if m.mayEnd(l) && m.mayTry(l.ID) {
			m.terminate(ctx, l)
		}
		return nil
	}
	var why Reason
	var detail string
	switch {
	case dearer:
		why, detail = OverBudget, fmt.Sprintf("the cloud charges %s/h, more than the %s/h that were agreed", l.Price, was.Price)
	case inst.Status == lambda.StatusTerminating || inst.Status == lambda.StatusPreempted:
		why, detail = Gone, fmt.Sprintf("the cloud shows it as %s, and we did not ask for that", inst.Status)
	case inst.Status == lambda.StatusUnhealthy && l.State == Booting && r.sickFor(l.ID, at.to) >= m.Timing.Unhealthy:
		why, detail = GPUUnhealthy, "the cloud calls the machine unhealthy"
	}
	if inst.Status != lambda.StatusUnhealthy {
		delete(r.sick, l.ID)
	}
	if why != "" {
		_, err := m.stop(ctx, l.ID, why, detail)
		return err
	}
	return nil
}

// seenEvery is how often it is written down that the machine of a lease in use is
// still listed.
const seenEvery = 5 * time.Minute

// sickFor is how long the instance has been called unhealthy without a break.
func (r *reconciler) sickFor(id ID, at time.Time) time.Duration {
	since, ok := r.sick[id]
	if !ok {
		r.sick[id] = at
		return 0
	}
	return at.Sub(since)
}

// calledUnhealthy ends the detail of a lease in use while the cloud says so. It ends nothing:
// what the machine has may still be wanted, and whether it works SSH tells.
const calledUnhealthy = "; the cloud calls the machine unhealthy"

func (l Lease) callsUnhealthy() bool { return strings.HasSuffix(l.Detail, calledUnhealthy) }

func changeNote(was, is Lease) string {
	switch {
	case was.InstanceID != is.InstanceID:
		return "found as " + is.InstanceID
	case was.Price != is.Price:
		return "price " + is.Price.String()
	case was.Addr != is.Addr:
		return "address " + is.Addr
	case was.Missing != is.Missing:
		return "listed again"
	case was.callsUnhealthy() != is.callsUnhealthy():
		return is.Detail
	}
	return "seen"
}

// absent takes in that a good listing does not show the lease's instance.
func (r *reconciler) absent(ctx context.Context, l Lease, at look) error {
	m := r.m
	if l.LaunchSentAt.IsZero() || !at.sure {
		return nil // nothing was sent yet (expire watches over it), or nobody knows when this is
	}
	if l.InstanceID == "" && at.from.Sub(l.LaunchSentAt) < m.Timing.LaunchCall {
		return nil // the call may still be on its way
	}
	if l.Missing == 0 || at.from.Before(l.MissingSince) {
		l.Missing, l.MissingSince = 0, at.to
	}
	l.Missing++
	if r.provenAbsent(l, at) {
		gone := true
		if l.InstanceID != "" {
			inst, err := m.Cloud.Instance(ctx, l.InstanceID)
			switch {
			case err == nil && inst.Status != lambda.StatusTerminated:
				return r.present(ctx, l, inst, at)
			case err != nil && !lambda.IsNotFound(err):
				gone = false
			}
		}
		if gone {
			l.GoneAt = m.now().Add(max(m.clock.off(), 0)) // not when it was first missing: listings that are behind lack what runs
			return r.gone(ctx, l, "the cloud does not list it any more")
		}
	}
	if _, err := m.Store.Update(ctx, l, fmt.Sprintf("not listed (%d in a row)", l.Missing)); err != nil {
		return fmt.Errorf("write down that it is not listed: %w", err)
	}
	m.Crash("absence-noted")
	return nil
}

// provenAbsent reports whether the listings that lack an instance are enough to
// ask for it by its id, and to believe a "does not exist" then. An instance of
// which the cloud has never shown any knowledge may appear late; one in use is
// given longer than one that we have asked the cloud to end.
func (r *reconciler) provenAbsent(l Lease, at look) bool {
	t := r.m.Timing
	known := !l.SeenAt.IsZero() || !l.TerminateAt.IsZero() || at.from.Sub(l.LaunchSentAt) >= t.Settle
	if !known {
		return false
	}
	since := at.from.Sub(l.MissingSince)
	if l.InstanceID == "" {
		// It cannot be asked for by its id, so listings alone decide: a few that are
		// empty by error must not make an instance that nobody has bound an orphan.
		return l.Missing >= 3 && since >= t.Vanish
	}
	if l.State == Stopping {
		return l.Missing >= 2 && since >= t.Poll/2
	}
	return l.Missing >= 3 && since >= t.Vanish
}

// gone ends a lease whose instance is proven to be gone.
func (r *reconciler) gone(ctx context.Context, l Lease, detail string) error {
	if l.State != Stopping {
		l.Reason = Gone
		if l.InstanceID == "" {
			l.Reason, detail = Refused, "no instance appeared after the launch call; it was not launched"
		}
		l.StopAt = l.GoneAt
	}
	l.Detail = detail
	delete(r.up, l.ID)
	r.m.Crash("gone")
	if _, err := r.m.settle(ctx, l, detail); err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	r.m.nudge()
	return nil
}
