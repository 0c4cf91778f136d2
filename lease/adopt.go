package lease

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/policy"
)

// auditor is a cloud that keeps a log of what was launched when.
type auditor interface {
	AuditEvents(ctx context.Context, q lambda.AuditQuery) iter.Seq2[lambda.AuditEvent, error]
}

// Adoptable are the instances of ours in the account that the store does not
// know, by the name of the ledger that launched them. Their own ledger may be in
// use on another computer.
func (m *Manager) Adoptable(ctx context.Context) (map[string][]Reaped, error) {
	found := map[string][]Reaped{}
	err := m.unknown(ctx, func(n Name, inst lambda.Instance) error {
		found[n.Ledger] = append(found[n.Ledger], Reaped{
			Name: n, Instance: inst.ID, Type: inst.InstanceType.Name, Region: inst.Region.Name, Price: policy.Cents(int64(inst.InstanceType.PriceCentsPerHour)),
		})
		return nil
	})
	return found, err
}

// Adopt writes a lease for each instance of ours that the named ledgers have
// launched and that the store does not know: after the loss of all local state,
// this rebuilds it from the account. What is adopted counts against the caps, is
// ended at its hard stop, and cannot be used, for its keys are lost.
func (m *Manager) Adopt(ctx context.Context, ledgers ...string) ([]Lease, error) {
	if err := m.askTime(ctx); err != nil {
		return nil, err
	}
	var out []Lease
	err := m.unknown(ctx, func(n Name, inst lambda.Instance) error {
		if !slices.Contains(ledgers, n.Ledger) {
			return nil
		}
		l, err := m.adopt(ctx, n, inst)
		if err == nil {
			out = append(out, l)
		}
		return err
	})
	m.nudge()
	return out, err
}

// unknown calls do for each instance of ours that runs and that the store does
// not know.
func (m *Manager) unknown(ctx context.Context, do func(Name, lambda.Instance) error) error {
	instances, err := m.Cloud.Instances(ctx)
	if err != nil {
		return cloudError("list instances", "", err)
	}
	m.observe()
	var errs []error
	for _, inst := range instances {
		if inst.Status == lambda.StatusTerminated || inst.Status == lambda.StatusTerminating {
			continue
		}
		n, ours, err := signedName(ctx, m.Cloud, inst)
		if err != nil {
			return cloudError("check the name of instance "+inst.ID, "", err)
		}
		if !ours {
			continue
		}
		switch _, err := m.Store.Get(ctx, n.Lease); {
		case errors.Is(err, ErrNotFound):
			errs = append(errs, do(n, inst))
		case err != nil:
			return ledgerError("look for lease "+string(n.Lease), err)
		}
	}
	return errors.Join(errs...)
}

// adopt writes the lease of one instance.
func (m *Manager) adopt(ctx context.Context, n Name, inst lambda.Instance) (Lease, error) {
	account, err := m.Cloud.Account(ctx)
	if err != nil {
		return Lease{}, cloudError("identify the account", n.Lease, err)
	}
	name, err := n.Signed(ctx, m.Cloud)
	if err != nil {
		return Lease{}, cloudError("sign the instance name", n.Lease, err)
	}
	now := m.now()
	since, how, err := m.billedSince(ctx, n, inst, now)
	if err != nil {
		return Lease{}, ledgerError("look since when instance "+inst.ID+" is there", err)
	}
	price := m.priceOf(ctx, inst)
	l := Lease{
		ID: n.Lease, State: Ready, Detail: "adopted from the account; its keys are lost, so it can only be ended. Its cost is counted from " + how,
		Principal: m.Principal, Purpose: "adopted", Account: account, Home: m.Home,
		Type: inst.InstanceType.Name, Region: inst.Region.Name, GPUs: inst.InstanceType.Specs.GPUs, Price: price,
		StopAllowance: m.Timing.StopAllowance, Name: name, KeyName: n.KeyName(), InstanceID: inst.ID, Addr: inst.IP,
		CreatedAt: since, ReservedAt: since, LaunchSentAt: since, BillingFrom: since, ReadyAt: since, SeenAt: now, HardStop: n.HardStop,
	}
	l.Deadline = n.HardStop.Add(-l.StopAllowance)
	l.TTL = max(0, l.Deadline.Sub(l.ReadyAt))
	l.Reserved = l.WorstCase()
	m.Crash("adopting")
	got, err := m.Store.Adopt(ctx, l, now, "adopted instance "+inst.ID+"; launched "+how)
	if err != nil {
		return l, ledgerError("adopt instance "+inst.ID, err)
	}
	m.Crash("adopted")
	m.log.Warn("adopted an instance of ours that the ledger did not know", "lease", l.ID, "instance", inst.ID, "hard_stop", n.HardStop)
	return got, nil
}

// billedSince is launchedAt, or earlier where the store has counted it since then: by its
// adoption nothing that was spent is forgotten.
func (m *Manager) billedSince(ctx context.Context, n Name, inst lambda.Instance, now time.Time) (at time.Time, how string, err error) {
	seen, err := m.Store.Sighted(ctx)
	if err != nil {
		return at, "", err
	}
	at, how = m.launchedAt(ctx, n, inst, now)
	for _, s := range seen {
		if s.Instance == inst.ID && s.Since.Before(at) {
			at, how = s.Since, "when it was first seen, at "+s.Since.Format(time.RFC3339)
		}
	}
	return at, how, nil
}

// launchedAt is when an instance was launched, or the earliest time at which it
// can have been: what it has cost is never counted too low.
func (m *Manager) launchedAt(ctx context.Context, n Name, inst lambda.Instance, now time.Time) (at time.Time, how string) {
	if a, ok := m.Cloud.(auditor); ok {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		for e, err := range a.AuditEvents(ctx, lambda.AuditQuery{ResourceType: "cloud.instance"}) {
			if err != nil {
				m.log.Debug("the audit log does not say when it was launched", "instance", inst.ID, "err", err)
				break
			}
			about := slices.ContainsFunc(e.ResourceLRNs, func(lrn string) bool { return strings.HasSuffix(lrn, ":"+inst.ID) })
			if about && !e.EventTime.IsZero() && !e.EventTime.After(now) && (at.IsZero() || e.EventTime.Before(at)) {
				at = e.EventTime
			}
		}
		if !at.IsZero() {
			return at.UTC().Truncate(time.Millisecond), "its launch at " + at.UTC().Format(time.RFC3339) + ", by the audit log"
		}
	}
	if inst.FirstHealthy != nil && !inst.FirstHealthy.After(now) {
		return inst.FirstHealthy.UTC().Truncate(time.Millisecond), "when it became healthy, at " + inst.FirstHealthy.UTC().Format(time.RFC3339)
	}
	longest := policy.Default().MaxTTL
	if p, err := m.Policy.Current(); err == nil {
		longest = p.MaxTTLFor(m.Principal)
	}
	at = n.HardStop.Add(-m.Timing.boot(inst.InstanceType.Specs.GPUs) - longest - m.Timing.StopAllowance)
	if at.After(now) {
		at = now
	}
	return at, fmt.Sprintf("the earliest launch that fits its hard stop, %s (an estimate)", at.Format(time.RFC3339))
}
