package lease_test

import (
	"sync"

	"github.com/gpulease/gpulease/policy"
)

// policies is the policy that can change, with all that it ever was.
type policies struct {
	mu  sync.Mutex
	now *policy.Policy
	all map[string]*policy.Policy
}

func (p *policies) Current() (*policy.Policy, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now, nil
}

func (p *policies) Origin() string { return "" }

func (p *policies) change(f func(*policy.Policy)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := policy.Default()
	if p.now != nil {
		next = p.now.Clone()
	}
	f(next)
	p.now, p.all[next.Hash()] = next, next
}

func (p *policies) of(hash string) *policy.Policy {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all[hash]
}
