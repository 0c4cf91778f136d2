package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/policy"
)

// endStrays ends the instances that carry this ledger's signed names and belong
// to no living lease: one that appeared long after its launch was taken for not
// having happened, or a second one of one launch. The signature proves that
// they are ours; without it nothing is touched. found is how many were there, ended or not.
func (m *Manager) endStrays(ctx context.Context, instances []lambda.Instance) (found int, err error) {
	ledger, err := m.Store.LedgerID(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the ledger's name: %w", err)
	}
	live, err := m.Store.Live(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the live leases: %w", err)
	}
	var errs []error
	for _, inst := range instances {
		if inst.Status == lambda.StatusTerminated || inst.Status == lambda.StatusTerminating {
			continue
		}
		if slices.ContainsFunc(live, func(l Lease) bool { return l.InstanceID == inst.ID }) {
			continue // it is that lease's by its id, whatever name somebody has given it
		}
		n, ours, err := signedName(ctx, m.Cloud, inst)
		if err != nil {
			return found, err
		}
		if !ours || n.Ledger != ledger {
			continue
		}
		l, err := m.Store.Get(ctx, n.Lease)
		switch {
		case errors.Is(err, ErrNotFound):
			// Ours by the key and of this ledger's name, but the ledger has lost it: it
			// was restored from an older copy, say.
			if _, err := m.adopt(ctx, n, inst); err != nil {
				errs = append(errs, err)
			}
			continue
		case err != nil:
			errs = append(errs, err)
			continue
		case l.State != Ended && !l.hasAnother(inst.ID):
			continue
		}
		found++
		errs = append(errs, m.endStray(ctx, l, inst.ID, policy.Cents(int64(inst.InstanceType.PriceCentsPerHour))))
	}
	return found, errors.Join(errs...)
}

// returnsWithin is how long after an end that nothing but absence has shown an
// instance is looked for once more: a cloud can deny for minutes what it bills.
const returnsWithin = 15 * time.Minute

// MayReturn reports whether a lease has just ended whose instance the cloud has named, and of
// which it has neither accepted a stop nor shown an end. Until its time is over, sweeps are made
// each minute. One that never showed has had its time to appear.
func (m *Manager) MayReturn(ctx context.Context) (bool, error) {
	newest, err := m.Store.List(ctx, 100)
	if err != nil {
		return false, fmt.Errorf("read the newest leases: %w", err)
	}
	now := m.now()
	return slices.ContainsFunc(newest, func(l Lease) bool {
		since := now.Sub(l.EndedAt)
		return l.State == Ended && l.InstanceID != "" && l.Missing > 0 && l.TerminateAt.IsZero() && since >= 0 && since < returnsWithin
	}), nil
}

// signedName is the signed name of an instance, from its name or its tag.
func signedName(ctx context.Context, s Signer, inst lambda.Instance) (Name, bool, error) {
	candidates := []string{inst.Name}
	for _, t := range inst.Tags {
		if t.Key == tagKey {
			candidates = append(candidates, t.Value)
		}
	}
	for _, c := range candidates {
		if n, ok, err := ParseName(ctx, s, c); err != nil || ok {
			return n, ok, err
		}
	}
	return Name{}, false, nil
}

// endStray asks the cloud to end an instance of an ended lease, and adds what it
// may have cost to that lease: from its launch call until an end that is asked
// for now, which is never too little. A second machine of a lease counts by itself, see strangers.
func (m *Manager) endStray(ctx context.Context, l Lease, instance string, price policy.Money) error {
	now := m.now()
	if l.State == Ended && !l.LaunchSentAt.IsZero() && !l.hasAnother(instance) {
		want := max(price, l.Price).For(now.Sub(l.LaunchSentAt) + l.StopAllowance)
		if history, err := m.Store.History(ctx, l.ID); err == nil {
			for _, e := range history {
				if e.From == Ended {
					want -= e.Cost
				}
			}
			// Small differences are the time between two looks.
			if more := want - l.Cost; more > l.Price.For(l.StopAllowance)/2 {
				if err := m.Store.Correct(ctx, l.ID, more, now, "instance "+instance+" was found after the end"); err != nil {
					m.log.Error("the cost of a stray instance could not be written down", "lease", l.ID, "err", err)
				}
			}
		}
	}
	if !m.mayTry(ID(instance)) {
		return nil
	}
	m.log.Error("an instance of ours is billed without a lease; ending it", "lease", l.ID, "instance", instance)
	callCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), terminateCall)
	defer cancel()
	if _, err := m.Cloud.Terminate(callCtx, instance); err != nil && !lambda.IsCode(err, lambda.CodeObjectDoesNotExist) {
		return fmt.Errorf("end the stray instance %s: %w", instance, err)
	}
	return nil
}
