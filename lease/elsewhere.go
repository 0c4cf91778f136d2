package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A sick machine is ended, and once that is confirmed the launch is tried again,
// once. That is a launch like any other, with its own decision and reservation.
// It is made by the process that was asked for the first one, and forgotten with
// it: nobody launches for an agent that is gone. Its idempotency key is the first
// lease's, so however often it is tried there is at most one.

// elsewhereKey is the idempotency key of the second try.
func elsewhereKey(first ID) string { return "instead-of " + string(first) }

// againFor is how long after a machine was found sick its launch may be tried again.
// Later, after a sleep of this computer say, nobody waits for it any more.
const againFor = 15 * time.Minute

// again is what this process knows of a second try.
type again struct {
	r      LaunchRequest
	trying bool
	failed string // why there is no second lease
}

// mayTryAgain keeps a request whose machine may turn out to be sick.
func (m *Manager) mayTryAgain(r LaunchRequest, l Lease) {
	if !r.Elsewhere || r.Region != "" || l.State == AwaitingApproval {
		return // a person's yes is for one launch
	}
	r.TTL, r.IdempotencyKey, r.Elsewhere = l.TTL, elsewhereKey(l.ID), false
	r.notAbove = l.Price
	m.mu.Lock()
	defer m.mu.Unlock()
	m.again[l.ID] = &again{r: r}
}

// tryAgain starts a second try for each sick machine that has ended. live are the
// leases that have not.
func (r *reconciler) tryAgain(ctx context.Context, live []Lease) {
	m := r.m
	m.mu.Lock()
	var over []ID
	for id, a := range m.again {
		if !a.trying && !slices.ContainsFunc(live, func(l Lease) bool { return l.ID == id }) {
			over = append(over, id)
		}
	}
	m.mu.Unlock()
	for _, id := range over {
		l, err := m.Store.Get(ctx, id)
		if err != nil || l.State != Ended { // it may be newer than the list
			continue
		}
		m.mu.Lock()
		wanted := l.Reason == GPUUnhealthy && m.now().Sub(l.StopAt) < againFor && m.MayAsk(l.Principal)
		if m.again[id].trying = wanted; !wanted {
			delete(m.again, id)
		}
		m.mu.Unlock()
		if wanted {
			r.task("second try", id, m.launchElsewhere)
		}
	}
}

// launchElsewhere launches once more what a sick machine was to be.
func (m *Manager) launchElsewhere(ctx context.Context, first ID) error {
	l, err := m.Store.Get(ctx, first)
	if err != nil {
		return fmt.Errorf("read the lease: %w", err)
	}
	m.mu.Lock()
	r := m.again[first].r
	m.mu.Unlock()
	r.avoid = l.Region
	m.log.Info("a sick machine has ended; its launch is tried again once", "lease", first, "avoid", r.avoid)
	_, err = m.Launch(ctx, r)
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.Store.ByKey(ctx, l.Principal, r.IdempotencyKey); known == nil {
		delete(m.again, first) // the ledger has it
	} else if err != nil {
		m.again[first].failed = err.Error()
	}
	if err != nil {
		return fmt.Errorf("launch %s again: %w", l.Type, err)
	}
	return nil
}

// notAgain writes down that a stop was asked for while a sick machine is being ended:
// whichever process would make the second try, it is not made.
func (m *Manager) notAgain(ctx context.Context, l Lease) (Lease, error) {
	for l.Reason == GPUUnhealthy && l.State == Stopping {
		l.Reason, l.Detail = Stopped, "stop was asked for; its machine was sick: "+l.Detail
		written, err := m.Store.Update(ctx, l, "stop was asked for, so it is not launched again")
		if err == nil {
			return written, nil
		}
		if !errors.Is(err, ErrConflict) {
			return l, ledgerError("write down that it is not to be launched again", err).of(l.ID)
		}
		if l, err = m.get(ctx, l.ID); err != nil {
			return l, err
		}
	}
	return l, nil
}

// elsewhere puts the region of the sick machine last, and refuses a higher price
// than that of the first try.
func (r LaunchRequest) elsewhere(q Quote) (Quote, error) {
	if r.notAbove > 0 && q.Offer.Price > r.notAbove {
		return q, &Error{Code: CodeNoCapacity, Message: fmt.Sprintf("%s costs %s/h now, more than the %s/h of the first try", q.Offer.Type, q.Offer.Price, r.notAbove)}
	}
	if i := slices.Index(q.Regions, r.avoid); i >= 0 {
		q.Regions = append(slices.Delete(slices.Clone(q.Regions), i, i+1), r.avoid)
	}
	return q, nil
}

// SecondTry is what has become of the second try for a lease with a sick machine.
type SecondTry struct {
	ID   ID     // its lease, "" where there is none yet
	Note string // for people; "" where there is nothing to tell
}

// secondTry tells of it. Any process can once it is in the ledger.
func (m *Manager) secondTry(ctx context.Context, l Lease) (s SecondTry) {
	if l.Reason != GPUUnhealthy {
		return s
	}
	second, err := m.Store.ByKey(ctx, l.Principal, elsewhereKey(l.ID))
	if err == nil {
		return SecondTry{ID: second.ID, Note: fmt.Sprintf("its machine was sick, and it was launched again: lease %s in %s is %s", second.ID, second.Region, second.State)}
	}
	if !errors.Is(err, ErrNotFound) {
		return s
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch a := m.again[l.ID]; {
	case a == nil:
	case a.failed != "":
		s.Note = "its machine was sick, and it could not be launched again: " + a.failed
	case l.State == Ended:
		s.Note = "its machine was sick; it is being launched again"
	default:
		s.Note = "its machine is sick; when its end is confirmed it is launched again, once"
	}
	return s
}
