package lease

import (
	"context"
	"errors"
	"time"

	"github.com/gpulease/gpulease/lambda"
)

// settle writes a lease as ended: its cost is fixed, its reservation given back,
// both in one write. The caller has proof that nothing can be billed any more.
func (m *Manager) settle(ctx context.Context, l Lease, note string) (Lease, error) {
	now := m.now()
	if l.BillingFrom.After(l.GoneAt) && !l.GoneAt.IsZero() {
		l.BillingFrom = l.LaunchSentAt // dated by a clock that was wrong: rather too much than too little
	}
	l.State = Stopping // CostAt counts up to GoneAt or now
	cost := l.CostAt(now)
	if l.LaunchSentAt.After(l.GoneAt) && !l.GoneAt.IsZero() {
		cost = max(cost, l.Reserved) // nobody knows how long it was
	}
	l.State, l.Cost, l.Reserved, l.EndedAt = Ended, cost, 0, now
	m.Crash("settling")
	done, err := m.Store.Update(ctx, l, note)
	if err != nil {
		return l, err
	}
	m.Crash("settled")
	m.log.Info("ended", "lease", l.ID, "reason", l.Reason, "cost", cost.String())
	m.forget(ctx, done)
	return done, nil
}

// forget removes what a lease leaves behind: connection, private key and the
// public key in the account. What fails is swept later.
func (m *Manager) forget(ctx context.Context, l Lease) {
	m.Machine.Forget(string(l.ID))
	m.Crash("forgetting")
	m.mu.Lock()
	delete(m.stops, l.ID)
	delete(m.used, l.ID)
	delete(m.uses, l.ID)
	m.mu.Unlock()
	if err := m.Keys.Delete(l.ID); err != nil {
		m.log.Warn("a private key stays behind", "lease", l.ID, "err", err)
	}
	if err := m.Begun.Delete(l.ID); err != nil {
		m.log.Warn("what was noted of its jobs stays behind", "lease", l.ID, "err", err)
	}
	m.Crash("private-key-deleted")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	if err := m.sweepKeys(ctx, func(name string) bool { return name == l.KeyName }); err != nil {
		m.log.Warn("an SSH key stays in the account for now", "lease", l.ID, "key", l.KeyName, "err", err)
	}
	m.Crash("forgotten")
}

// sweepKeys deletes the account's SSH keys whose names are chosen.
func (m *Manager) sweepKeys(ctx context.Context, chosen func(name string) bool) error {
	keys, err := m.Cloud.SSHKeys(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, k := range keys {
		if chosen(k.Name) {
			if err := m.Cloud.DeleteSSHKey(ctx, k.ID); err != nil && !lambda.IsNotFound(err) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
