package lease

import (
	"context"
	"slices"
)

type actorKey struct{}

// ActAs gives ctx to a principal among others on one server. Whatever is asked with
// it sees and changes that principal's leases only, and those that the policy lets it
// (leases_of): those of others are not found, as if they did not exist. Without it (a person's command, the reconciler, the agent of
// a stdio server, which has the ledger and the key at hand anyway) all are seen.
func ActAs(ctx context.Context, principal string) context.Context {
	return context.WithValue(ctx, actorKey{}, principal)
}

// actor is the principal that ctx was given to by [ActAs], "" for none.
func actor(ctx context.Context) string {
	name, _ := ctx.Value(actorKey{}).(string)
	return name
}

// asker is the principal that ctx asks for.
func (m *Manager) asker(ctx context.Context) string {
	if name := actor(ctx); name != "" {
		return name
	}
	return m.Principal
}

// mayKnow reports whether ctx may know of a principal's leases. While the policy cannot
// be read, each knows its own alone.
func (m *Manager) mayKnow(ctx context.Context, principal string) bool {
	name := actor(ctx)
	if name == "" || name == principal {
		return true
	}
	p, err := m.Policy.Current()
	return err == nil && p.Sees(name, principal)
}

// known leaves the leases that ctx may know of.
func (m *Manager) known(ctx context.Context, all []Lease) []Lease {
	if actor(ctx) == "" {
		return all
	}
	may := map[string]bool{}
	return slices.DeleteFunc(all, func(l Lease) bool {
		if _, asked := may[l.Principal]; !asked {
			may[l.Principal] = m.mayKnow(ctx, l.Principal)
		}
		return !may[l.Principal]
	})
}
