package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

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

// sweepPrivate deletes this home's private keys of leases that have ended, and what it has
// noted of their jobs: whoever settled them died before it came to that, or works for another home.
func (m *Manager) sweepPrivate(ctx context.Context) error {
	var errs []error
	for _, kept := range []interface {
		List() ([]ID, error)
		Delete(ID) error
	}{m.Keys, m.Begun} {
		ids, err := kept.List()
		errs = append(errs, err)
		for _, id := range ids {
			if l, err := m.Store.Get(ctx, id); err == nil && l.State == Ended {
				errs = append(errs, kept.Delete(id))
			}
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
	return errors.Join(err, m.sweepLoginKeys(ctx, ledger))
}

// sweepLoginKeys deletes the account's SSH keys of this ledger's ended leases.
func (m *Manager) sweepLoginKeys(ctx context.Context, ledger string) error {
	prefix := namePrefix + "-" + ledger + "-"
	return m.sweepKeys(ctx, func(name string) bool {
		id, ours := strings.CutPrefix(name, prefix)
		if !ours || !ValidID(id) {
			return false
		}
		l, err := m.Store.Get(ctx, ID(id))
		return err == nil && l.State == Ended
	})
}

const (
	// tidyPause is how long whoever has settled a lease has for removing its keys.
	tidyPause = 30 * time.Second
	// tidyTime bounds the calls for it: deadlines must not wait for them.
	tidyTime = 10 * time.Second
)

// noteEnds takes in which leases have ended since the last look. Whoever settled them
// may have died before it came to their keys.
func (r *reconciler) noteEnds(live []Lease) {
	ended := slices.ContainsFunc(r.known, func(was Lease) bool {
		return !slices.ContainsFunc(live, func(l Lease) bool { return l.ID == was.ID })
	})
	if now := r.m.now(); ended && r.tidyAt.Before(now) { // one that was due and not ours to do waits as well
		r.tidyAt = now.Add(tidyPause)
	}
}

// tidyWhenDue removes the keys that ended leases have left behind, some time after this
// process has begun, and after a lease has ended. Instances are looked for in each listing.
func (r *reconciler) tidyWhenDue(ctx context.Context) error {
	m := r.m
	now := m.now()
	if wait := r.tidyAt.Sub(now); r.tidyAt.IsZero() || r.failed > 0 || wait > 0 && wait <= sweepAgain {
		return nil
	}
	r.tidyAt = time.Time{}
	err := m.tidy(ctx)
	if err != nil {
		r.tidyAt = now.Add(sweepAgain)
		return fmt.Errorf("remove the keys of ended leases: %w", err)
	}
	return nil
}

func (m *Manager) tidy(ctx context.Context) error {
	if any, err := m.Store.List(ctx, 1); err != nil || len(any) == 0 {
		return err
	}
	ledger, err := m.Store.LedgerID(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, tidyTime)
	defer cancel()
	return errors.Join(m.sweepPrivate(ctx), m.sweepLoginKeys(ctx, ledger))
}
