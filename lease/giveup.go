package lease

import (
	"context"
	"errors"
)

// unsettled is a lease of which this process has proof that nothing was created,
// and whose end the ledger did not take.
type unsettled struct {
	why   Reason
	cause *Error
}

// giveUp ends a lease of which it is proven that nothing was created.
func (m *Manager) giveUp(ctx context.Context, l Lease, why Reason, cause *Error) error {
	for {
		m.Crash("giving-up")
		l.State, l.Reason, l.Detail = Ended, why, cause.Message
		if l.StopAt.IsZero() {
			l.StopAt = m.now()
		}
		_, err := m.settle(ctx, l, "proven: nothing was created")
		if err == nil {
			return cause
		}
		if !errors.Is(err, ErrConflict) {
			m.log.Error("a launch that came to nothing could not be settled; its reservation stays until the ledger can be written", "lease", l.ID, "err", err)
			m.mu.Lock()
			m.unsettled[l.ID] = unsettled{why: why, cause: cause}
			m.mu.Unlock()
			told := *cause
			told.Message += "; its reservation is given back when the ledger can be written again"
			return &told
		}
		fresh, err := m.Store.Get(ctx, l.ID)
		if err != nil || fresh.State == Ended {
			return cause
		}
		if fresh.InstanceID != "" {
			// An instance of that name was found after all, whatever the answers said.
			if _, err := m.stop(ctx, l.ID, why, "an instance was found although the launch was refused"); err != nil {
				m.log.Error("a refused launch that has an instance could not be stopped", "lease", l.ID, "err", err)
			}
			return cause
		}
		l = fresh
	}
}

// settleLate tries once more to settle what giveUp could not, given the live leases.
// What this process does not come to any more, the reconciler does after a while.
func (m *Manager) settleLate(ctx context.Context, live []Lease) {
	for _, l := range live {
		m.mu.Lock()
		u, due := m.unsettled[l.ID]
		delete(m.unsettled, l.ID)
		m.mu.Unlock()
		if due && l.InstanceID == "" {
			_ = m.giveUp(ctx, l, reasonOr(l.Reason, u.why), u.cause) // kept for the next time where it fails
		}
	}
}
