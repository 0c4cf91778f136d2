package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lambda"
)

// sightEvery is how often it is written down what else runs in the account, where
// nothing has changed.
const sightEvery = time.Minute

// sights remembers what was written down last.
type sights struct {
	noted time.Time
	seen  string
}

// note writes down what else runs in the account, if it is news.
func (s *sights) note(ctx context.Context, m *Manager, instances []lambda.Instance) error {
	strangers, err := m.strangers(ctx, instances)
	if err != nil {
		return err
	}
	ids := make([]string, 0, len(strangers))
	for _, x := range strangers {
		ids = append(ids, x.Instance)
	}
	slices.Sort(ids)
	now, seen := m.now(), strings.Join(ids, " ")
	if since := now.Sub(s.noted); !s.noted.IsZero() && seen == s.seen && since >= 0 && (since < sightEvery || seen == "") {
		return nil
	}
	if err := m.writeSight(ctx, strangers); err != nil {
		return err
	}
	s.noted, s.seen = now, seen
	return nil
}

// sight looks what else runs in the account before money is reserved: it counts
// against the caps.
func (m *Manager) sight(ctx context.Context) error {
	instances, err := m.Cloud.Instances(ctx)
	if err != nil {
		return cloudError("look what else runs in the account", "", err)
	}
	m.observe()
	strangers, err := m.strangers(ctx, instances)
	if err != nil {
		return ledgerError("look what else runs in the account", err)
	}
	if err := m.writeSight(ctx, strangers); err != nil {
		return ledgerError("write down what else runs in the account", err)
	}
	m.Crash("sighted")
	return nil
}

func (m *Manager) writeSight(ctx context.Context, strangers []Stranger) error {
	account, err := m.Cloud.Account(ctx)
	if err != nil {
		return fmt.Errorf("identify the account: %w", err)
	}
	return m.Store.Sight(ctx, account, m.now(), strangers)
}

// strangers are the instances that this store accounts for in no way. One that
// carries its signed name is a lease's, or is ended as a stray and counted there,
// unless its lease has another machine: what a second one costs is nobody's.
func (m *Manager) strangers(ctx context.Context, instances []lambda.Instance) ([]Stranger, error) {
	live, err := m.Store.Live(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the live leases: %w", err)
	}
	ledger, err := m.Store.LedgerID(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the ledger's name: %w", err)
	}
	var out []Stranger
	for _, inst := range instances {
		if inst.Status == lambda.StatusTerminated || inst.Status == lambda.StatusTerminating {
			continue // not billed any more
		}
		if slices.ContainsFunc(live, func(l Lease) bool { return l.InstanceID == inst.ID }) {
			continue
		}
		if n, ours, err := signedName(ctx, m.Cloud, inst); err != nil {
			return nil, err
		} else if ours && n.Ledger == ledger {
			switch l, err := m.Store.Get(ctx, n.Lease); {
			case err != nil && !errors.Is(err, ErrNotFound):
				return nil, fmt.Errorf("read lease %s: %w", n.Lease, err)
			case err != nil || !l.hasAnother(inst.ID):
				continue
			}
		}
		s := Stranger{
			Instance: inst.ID, Name: inst.Name, Type: inst.InstanceType.Name, Region: inst.Region.Name,
			Price: m.priceOf(ctx, inst),
		}
		if inst.FirstHealthy != nil {
			s.Since = *inst.FirstHealthy
		}
		out = append(out, s)
	}
	return out, nil
}
