package lease

import "context"

// Due lists the live leases whose end has been decided and is not confirmed, or
// should have been decided by now. It goes by the cloud's clock where ours is
// wrong, and fails where the time is in doubt.
func (m *Manager) Due(ctx context.Context) ([]Lease, error) {
	if err := m.askTime(ctx); err != nil {
		return nil, err
	}
	live, err := m.List(ctx, true, 0)
	if err != nil {
		return nil, err
	}
	now := m.now()
	r := &reconciler{m: m}
	var due []Lease
	for _, l := range live {
		if why, _ := r.overdue(l, now); why != "" || l.State == Stopping {
			due = append(due, l)
		}
	}
	return due, nil
}
