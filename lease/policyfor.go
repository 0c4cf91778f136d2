package lease

import (
	"context"

	"github.com/gpulease/gpulease/policy"
)

// PolicyFor is the policy in force. Who acts as one of several principals (see [ActAs])
// gets the rules for all and its own, not those of others whose leases it does not see.
func (m *Manager) PolicyFor(ctx context.Context) (*policy.Policy, error) {
	p, err := m.policyNow()
	if err != nil || actor(ctx) == "" {
		return p, err
	}
	p = p.Clone()
	for name := range p.Principals {
		if !m.mayKnow(ctx, name) {
			delete(p.Principals, name)
		}
	}
	return p, nil
}
