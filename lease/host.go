package lease

import (
	"context"
	"time"
)

// work does what is due on the machines of this home's leases, each in a
// goroutine of its own: a machine that does not answer must not hold up the others.
func (r *reconciler) work(account string, leases []Lease) {
	m := r.m
	r.samples.keep(leases)
	for _, l := range leases {
		if l.Home != m.Home && l.Home != "" {
			continue
		}
		switch {
		case l.State == AwaitingApproval && !l.ApprovedAt.IsZero() && l.Account == account && !m.NoLaunch:
			r.task("launch", l.ID, m.launchApproved)
		case l.State == Booting && l.Addr != "":
			r.task("boot", l.ID, m.awaitReady)
		case l.State == Ready && r.samples.due(m, l.ID):
			r.task("sample", l.ID, r.sample)
		case l.State == Stopping && l.wantsRescue():
			r.task("rescue", l.ID, m.rescue)
		}
	}
}

// task runs do for a lease unless it runs already, or did a moment ago, and nudges
// the reconciler when it is done.
func (r *reconciler) task(kind string, id ID, do func(context.Context, ID) error) {
	m := r.m
	name := kind + " " + string(id)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tasks[name] {
		return
	}
	m.tasks[name] = true
	r.working.Add(1)
	go func() {
		defer r.working.Done()
		err := do(r.workCtx, id)
		if kind != "sample" && kind != "forwards" { // these change no lease
			m.nudge()
		}
		select { // whatever came of it, the same is not tried again at once
		case <-r.workCtx.Done():
		case <-time.After(m.Timing.SSHRetry):
		}
		m.mu.Lock()
		delete(m.tasks, name)
		m.mu.Unlock()
		if err != nil && r.workCtx.Err() == nil {
			m.log.Warn(kind, "lease", id, "err", err)
		}
	}()
}
