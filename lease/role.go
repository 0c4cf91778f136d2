package lease

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// The roles of which each has one holder among the processes that work on a
// store. Their heartbeats begin with these words and are no guards of their own.
const (
	roleLeader = "leader" // and the account: decides and ends
	roleHost   = "host"   // and the home: works on the machines whose keys are there
)

func isRole(g Guard) bool {
	return strings.HasPrefix(g.Name, roleLeader+" ") || strings.HasPrefix(g.Name, roleHost+" ")
}

// role is a part that one process plays at a time, by a lock that the system
// drops when the process dies.
type role struct {
	name string
	lock func() (bool, error)
	held bool
	beat time.Time // last heartbeat in it
}

// plays reports whether this process has the role now: it holds the lock, or
// whoever holds it has fallen silent.
func (r *reconciler) plays(ctx context.Context, p *role) (bool, error) {
	locked, err := p.lock()
	if err != nil {
		p.held = false
		return false, fmt.Errorf("find out who is %s: %w", p.name, err)
	}
	if !locked && !r.silent(ctx, p) {
		p.held = false
		return false, nil
	}
	if !p.held {
		p.held = true
		r.m.log.Info("acting", "as", p.name, "lock", locked)
	}
	if err := r.say(ctx, &p.beat, p.name); err != nil {
		return false, err
	}
	return true, nil
}

func (r *reconciler) stepDown() {
	if r.lead.held {
		r.m.log.Warn("no longer leading: this process cannot act")
	}
	r.lead.held = false
	r.m.Yield()
}

// say writes a heartbeat if it is time for one.
func (r *reconciler) say(ctx context.Context, last *time.Time, name string) error {
	now := r.m.now()
	if since := now.Sub(*last); since >= 0 && since < beatEvery {
		return nil
	}
	if err := r.m.Store.Beat(ctx, name, now); err != nil {
		return fmt.Errorf("write a heartbeat: %w", err)
	}
	*last = now
	if name == r.m.Guard && r.ensuring.CompareAndSwap(false, true) {
		r.working.Add(1)
		go func() {
			defer r.working.Done()
			defer r.ensuring.Store(false)
			if err := r.m.EnsureGuard(r.workCtx); err != nil && r.workCtx.Err() == nil { // one that died is replaced
				r.m.log.Error("no guard that outlives this process", "err", err)
			}
		}()
	}
	return nil
}

// silent reports whether the holder of a role has not been heard of for so long
// that somebody else has to act. A suspended process holds its lock and does
// nothing; compare-and-swap makes it safe that it may wake up beside us.
func (r *reconciler) silent(ctx context.Context, p *role) bool {
	guards, err := r.m.Store.Guards(ctx)
	if err != nil {
		return false
	}
	seen := r.began
	for _, g := range guards {
		if g.Name == p.name && g.Seen.After(seen) && !g.Seen.Equal(p.beat) { // our own does not count
			seen = g.Seen
		}
	}
	return r.m.now().Sub(seen) > guardSilence
}
