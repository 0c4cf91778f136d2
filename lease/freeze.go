package lease

import (
	"context"
)

// Freeze stops launches and extensions at once, over all processes that share
// the store: what was reserved before and not sent yet is not sent any more.
// Running leases go on, and are ended as ever.
//
// A freeze that is in force keeps its time and its reason where no new one is given.
func (m *Manager) Freeze(ctx context.Context, by, why string) error {
	if f, err := m.Frozen(ctx); err != nil || f.On() && why == "" {
		return err
	}
	if err := m.Store.Freeze(ctx, Freeze{At: m.now(), By: by, Why: why}); err != nil {
		return ledgerError("freeze", err)
	}
	m.log.Warn("frozen", "by", by, "why", why)
	return nil
}

// Unfreeze lets launches go on.
func (m *Manager) Unfreeze(ctx context.Context, by string) error {
	if err := m.Store.Freeze(ctx, Freeze{}); err != nil {
		return ledgerError("unfreeze", err)
	}
	m.log.Warn("unfrozen", "by", by)
	return nil
}

// Frozen is the freeze in force, or the zero Freeze.
func (m *Manager) Frozen(ctx context.Context) (Freeze, error) {
	f, err := m.Store.Frozen(ctx)
	if err != nil {
		return Freeze{}, ledgerError("look whether launches are frozen", err)
	}
	return f, nil
}
