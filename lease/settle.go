package lease

import (
	"context"
	"errors"
	"fmt"
	"strings"
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

// ErrStray says that instances of ended leases were found in the account.
var ErrStray = errors.New("instances of ended leases are billed")

// Sweep ends instances and removes SSH keys of this ledger's ended leases that a
// process could not end or remove any more. Those of others are never touched. A ledger that
// has never had a lease asks the cloud nothing. It fails with [ErrStray] where it has found
// an instance: whether that has ended, the next sweep shows.
func (m *Manager) Sweep(ctx context.Context) error {
	if any, err := m.Store.List(ctx, 1); err != nil || len(any) == 0 {
		return err
	}
	return errors.Join(m.sweepPrivate(ctx), m.sweepAccount(ctx))
}

// sweepPrivate deletes this home's private keys of leases that have ended: whoever
// settled them died before it came to that, or works for another home.
func (m *Manager) sweepPrivate(ctx context.Context) error {
	ids, err := m.Keys.List()
	errs := []error{err}
	for _, id := range ids {
		if l, err := m.Store.Get(ctx, id); err == nil && l.State == Ended {
			errs = append(errs, m.Keys.Delete(id))
		}
	}
	return errors.Join(errs...)
}

// sweepAccount is Sweep in the account.
func (m *Manager) sweepAccount(ctx context.Context) error {
	ledger, err := m.Store.LedgerID(ctx)
	if err != nil {
		return err
	}
	instances, err := m.Cloud.Instances(ctx)
	if err != nil {
		return err
	}
	m.observe()
	found, err := m.endStrays(ctx, instances)
	if found > 0 {
		err = errors.Join(fmt.Errorf("%w: %d", ErrStray, found), err)
	}
	if strangers, sightErr := m.strangers(ctx, instances); sightErr != nil {
		err = errors.Join(err, sightErr)
	} else {
		err = errors.Join(err, m.writeSight(ctx, strangers))
	}
	prefix := namePrefix + "-" + ledger + "-"
	return errors.Join(err, m.sweepKeys(ctx, func(name string) bool {
		id, ours := strings.CutPrefix(name, prefix)
		if !ours || !ValidID(id) {
			return false
		}
		l, err := m.Store.Get(ctx, ID(id))
		return err == nil && l.State == Ended
	}))
}
