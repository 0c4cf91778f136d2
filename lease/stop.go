package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gpulease/gpulease/lambda"
)

// Stop decides the end of a lease and asks the cloud for it, once its results
// have been brought home where it has some. It may be called
// any number of times, in any state. It returns as soon as the decision is on
// disk and the cloud was asked once; the lease is [Ended] only when the cloud
// has shown the instance to be gone, which [Manager.Wait] waits for.
func (m *Manager) Stop(ctx context.Context, id ID) (Lease, error) {
	if l, err := m.get(ctx, id); err == nil && l.State == Ready {
		m.freshUse(ctx, l, lastLook)
	}
	l, err := m.stop(ctx, id, Stopped, "stop was asked for")
	if err == nil && l.Reason == GPUUnhealthy && l.State == Stopping {
		l, err = m.notAgain(ctx, l)
	}
	if err != nil || l.State != Stopping {
		return l, err
	}
	if l.InstanceID != "" && m.mayEnd(l) && m.mayTry(l.ID) {
		l = m.terminate(ctx, l)
	}
	return l, nil
}

// stop writes the decision to end a lease.
func (m *Manager) stop(ctx context.Context, id ID, why Reason, detail string) (Lease, error) {
	return m.stopIf(ctx, id, func(Lease) (Reason, string) { return why, detail })
}

// stopIf is stop, where cause gives a reason for the lease as it is when that is written.
func (m *Manager) stopIf(ctx context.Context, id ID, cause func(Lease) (Reason, string)) (_ Lease, err error) {
	defer m.nudgeUnless(&err)
	for {
		l, err := m.get(ctx, id)
		if err != nil {
			return Lease{}, err
		}
		if l.State == Ended || l.State == Stopping {
			return l, nil
		}
		why, detail := cause(l)
		if why == "" {
			return l, nil
		}
		if l.State == AwaitingApproval {
			if why == Stopped {
				why, detail = Cancelled, "withdrawn before anybody approved it"
			}
			done, err := m.withdraw(ctx, l, why, detail)
			if errors.Is(err, ErrConflict) {
				continue
			}
			if err != nil {
				return l, ledgerError("withdraw the request", err)
			}
			return done, nil
		}
		unsent := l.LaunchSentAt.IsZero()
		l = m.withUse(l)
		l.State, l.Reason, l.Detail, l.StopAt = Stopping, why, detail, m.now()
		if l.wantsRescue() && l.Results != "" {
			l.Detail += resultsFirst
		}
		m.Crash("stopping")
		stopped, err := m.Store.Update(ctx, l, detail)
		if errors.Is(err, ErrConflict) {
			continue
		}
		if err != nil {
			return Lease{}, m.stopUnwritten(ctx, l, err)
		}
		m.Crash("stop-written")
		m.log.Info("stopping", "lease", id, "reason", why, "detail", detail)
		if unsent {
			// The launcher can not mark its call as sent any more: its row has changed.
			stopped.Detail = "stopped before anything was launched"
			if ended, err := m.settle(ctx, stopped, "no launch call was sent"); err == nil {
				return ended, nil
			}
		}
		return stopped, nil
	}
}

// stopUnwritten ends a machine although the decision cannot be written: what is
// not in the ledger can be found out later, what was spent cannot be had back.
func (m *Manager) stopUnwritten(ctx context.Context, l Lease, cause error) *Error {
	e := ledgerError("stop lease "+string(l.ID), cause).of(l.ID)
	if l.InstanceID == "" && l.LaunchSentAt.IsZero() || !m.mayTry(l.ID) {
		return e
	}
	err := m.endUnbound(ctx, l)
	switch {
	case errors.Is(err, errNoneShown):
		e.Message += "; the account shows no machine of it so far"
		return e
	case err != nil:
		e.Message += ", and the cloud could not be asked to end the machine: " + err.Error()
		return e
	}
	e.Message += "; the cloud was asked to end the machine all the same, and the lease is settled when the ledger works again"
	return e
}

var errNoneShown = errors.New("the account shows no instance of the lease")

// endUnbound is askTerminate for a lease of which the ledger may not know the instance: where
// it could not be written down, the account shows it under the lease's name.
func (m *Manager) endUnbound(ctx context.Context, l Lease) error {
	if l.InstanceID != "" {
		return m.askTerminate(ctx, l)
	}
	callCtx, cancel := context.WithTimeout(ctx, listingCall)
	defer cancel()
	instances, err := m.Cloud.Instances(callCtx)
	if err != nil {
		return fmt.Errorf("look for the instance of lease %s: %w", l.ID, err)
	}
	for _, inst := range instances {
		if !l.owns(inst) || inst.Status == lambda.StatusTerminated || inst.Status == lambda.StatusTerminating {
			continue
		}
		l.InstanceID = inst.ID
		return m.askTerminate(ctx, l)
	}
	return errNoneShown
}

// askTerminate asks the cloud once to end the lease's instance.
func (m *Manager) askTerminate(ctx context.Context, l Lease) error {
	account, err := m.Cloud.Account(ctx)
	if err != nil {
		return err
	}
	if account != l.Account {
		return errors.New("the lease was launched with another API key")
	}
	callCtx, cancel := context.WithTimeout(ctx, terminateCall)
	defer cancel()
	m.Crash("terminating")
	_, err = m.Cloud.Terminate(callCtx, l.InstanceID)
	m.Crash("terminate-sent")
	return err
}

// stopTry is when a lease's terminate call may be sent again.
type stopTry struct {
	next time.Time
	wait time.Duration
}

const maxStopRetry = 2 * time.Minute

// mayTry reports whether a terminate call is due, and counts it. The waits grow,
// and never end.
func (m *Manager) mayTry(id ID) bool {
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.stops[id]
	if wait := t.next.Sub(now); wait > 0 && wait <= 2*max(maxStopRetry, m.Timing.StopRetry) {
		return false // longer than any wait of ours is a clock that went back
	}
	if t.wait == 0 {
		t.wait = m.Timing.StopRetry
	} else {
		t.wait = min(2*t.wait, max(maxStopRetry, m.Timing.StopRetry))
	}
	t.next = now.Add(t.wait)
	m.stops[id] = t
	return true
}

// terminateCall bounds one terminate call: it was seen to hang.
const terminateCall = 30 * time.Second

// terminate asks the cloud once to end the lease's instance. Its answer proves
// nothing; the listing does.
func (m *Manager) terminate(ctx context.Context, l Lease) Lease {
	err := m.askTerminate(ctx, l)
	switch {
	case err == nil:
		m.Crash("terminate-noting")
		l.TerminateAt, l.Detail = m.now(), "the cloud has accepted the stop; not yet confirmed"
	case lambda.IsCode(err, lambda.CodeObjectDoesNotExist):
		l.Detail = "the cloud does not know the instance any more; not yet confirmed"
	default:
		l.Detail = "STOP NOT CONFIRMED, still billing: " + err.Error()
		m.log.Error("stop not confirmed, still billing", "lease", l.ID, "instance", l.InstanceID, "rate_per_hour", l.Price.String(), "err", err)
	}
	fresh, upErr := m.Store.Update(context.WithoutCancel(ctx), l, l.Detail)
	if upErr != nil {
		if !errors.Is(upErr, ErrConflict) {
			m.log.Error("a stop could not be noted", "lease", l.ID, "err", upErr)
		}
		return l
	}
	m.Crash("terminate-noted")
	return fresh
}
