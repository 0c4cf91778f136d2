package lease_test

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// How long things may take while a process is able to act and nothing fails.
const (
	// atOnce: a pass, a listing that may have hung, the take-over from a leader
	// that is suspended, and the longest wait between two terminate calls.
	atOnce = 8 * time.Minute
	// bySweep: what no living lease leads to is looked for once an hour.
	bySweep = time.Hour + atOnce
)

// allowed are the changes of state, written down a second time.
var allowed = map[lease.State][]lease.State{
	"":                     {lease.AwaitingApproval, lease.Launching, lease.Ready},
	lease.AwaitingApproval: {lease.Launching, lease.WaitingCapacity, lease.Ended},
	lease.WaitingCapacity:  {lease.Launching, lease.Ended},
	lease.Launching:        {lease.Booting, lease.Stopping, lease.Ended},
	lease.Booting:          {lease.Ready, lease.Stopping, lease.Ended},
	lease.Ready:            {lease.Stopping, lease.Ended},
	lease.Stopping:         {lease.Ended},
}

func (w *world) row(id lease.ID) lease.Lease {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rows[id]
}

// leaseOf is the lease of a name of ours, "" for any other name. It needs w.mu, as
// all that follow down to check.
func (w *world) leaseOf(name string) lease.ID {
	parts := strings.Split(name, "-")
	if len(parts) != 5 || parts[0] != "gl" || parts[1] != w.ledgerID {
		return ""
	}
	return lease.ID(parts[2])
}

// ours are all instances that were ever launched for a lease.
func (w *world) ours(id lease.ID) []lambdatest.Instance {
	return slices.DeleteFunc(w.sim.Instances(), func(i lambdatest.Instance) bool {
		return w.foreign[i.ID] != "" || w.leaseOf(i.Name) != id
	})
}

func runs(i lambdatest.Instance) bool {
	return i.Status == lambdatest.Booting || i.Status == lambdatest.Active || i.Status == lambdatest.Unhealthy
}

// wrote looks at a row that was just written.
func (w *world) wrote(was, is lease.Lease, note string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id, now := is.ID, time.Now()
	t := w.truth[id]
	if t == nil {
		t = &truth{born: now, since: now, quoted: is.Price, stranger: is.Purpose == "adopted"}
		w.truth[id] = t
		w.order = append(w.order, id)
	}
	w.rows[id] = is
	if was.State != is.State {
		w.tell("lease %s: %s -> %s (%s) %s", id, was.State, is.State, is.Reason, note)
		w.count("state " + string(is.State))
		t.since = now
		if !slices.Contains(allowed[was.State], is.State) {
			w.violate("lease %s goes from %q to %q", id, was.State, is.State)
		}
	} else {
		w.tell("lease %s: %s", id, note)
	}
	if was.ID != "" && was.Version+1 != is.Version {
		w.violate("lease %s goes from version %d to %d", id, was.Version, is.Version)
	}
	if !is.LaunchSentAt.Equal(was.LaunchSentAt) && !t.stranger {
		t.marked = now
		if !w.frozen.IsZero() {
			w.violate("lease %s is marked as sent, and launches are frozen since %s", id, w.frozen)
		}
	}
	if is.InstanceID != "" && w.foreign[is.InstanceID] != "" {
		w.violate("lease %s takes instance %s for its own, which is foreign (%s)", id, is.InstanceID, w.foreign[is.InstanceID])
	}
	if was.State == lease.AwaitingApproval && is.State == lease.Launching {
		t.quoted = is.Price
	}
	w.checkReservation(was, is, t)
	switch {
	case was.State == is.State:
	case is.State == lease.Ready && !t.stranger:
		w.checkReady(is)
	case is.State == lease.Stopping:
		w.checkReason(was, is)
	case is.State == lease.Ended:
		t.ill = !w.lastIll.Add(freshTime).Before(t.born) || w.well() <= 0
		w.checkEnd(is)
	}
}

// freshTime is how long a process believes in a time that the cloud has agreed to: for so long
// after a jump of its clock it may date a lease by the wrong one.
const freshTime = time.Minute

// checkReservation: until its end a lease holds what its terms can cost.
func (w *world) checkReservation(was, is lease.Lease, t *truth) {
	if !is.Counts() {
		if is.Reserved != 0 {
			w.violate("lease %s is %s and still holds %s", is.ID, is.State, is.Reserved)
		}
		return
	}
	if t.stranger {
		return
	}
	boot := is.BootAllowance
	if !is.ReadyAt.IsZero() {
		boot = min(boot, max(0, is.ReadyAt.Sub(is.LaunchSentAt)))
	}
	if need := t.quoted.For(boot + is.TTL + is.StopAllowance); is.Reserved < need {
		w.violate("lease %s holds %s, and can cost %s", is.ID, is.Reserved, need)
	}
	if is.Reserved < was.Reserved && was.State != lease.Booting {
		w.violate("lease %s gives back a part of its %s while it is %s", is.ID, was.Reserved, was.State)
	}
}

// checkReason: a lease is not ended before its time, however our clocks jump. While the
// cloud does not answer, our own clock is trusted after a while, right or wrong.
func (w *world) checkReason(was, is lease.Lease) {
	if is.Reason != lease.Deadline || w.misdated(is.ID) || time.Since(w.lastFault) < 5*time.Minute {
		return
	}
	if early := time.Until(earlier(was.Deadline, was.HardStop)); early > trustedSkew {
		w.violate("lease %s is ended %s before its deadline: %s", is.ID, early, is.Detail)
	}
}

// checkReady: what is handed out as ready is alive.
func (w *world) checkReady(l lease.Lease) {
	for _, i := range w.ours(l.ID) {
		if i.ID != l.InstanceID {
			continue
		}
		died := endOf(i)
		if runs(i) && !i.FirstHealthy.IsZero() {
			return
		}
		since := time.Since(died)
		slow := slices.ContainsFunc(w.all, func(p *process) bool { return p.stalledWithin(since + time.Minute) })
		if !died.IsZero() && (since < 90*time.Second || slow) {
			return // nobody can have known, or whoever looked was suspended since
		}
		w.violate("lease %s is handed out as ready, and its instance is %s since %s", l.ID, i.Status, died)
		return
	}
	w.violate("lease %s is handed out as ready, and has no instance", l.ID)
}

// checkEnd: a lease has ended only when the cloud shows its instance as gone.
func (w *world) checkEnd(l lease.Lease) {
	for _, i := range w.ours(l.ID) {
		if !runs(i) && i.Status != lambdatest.Terminating || w.unfindable(i) || w.staleAt(l.GoneAt) || w.misdated(l.ID) {
			continue
		}
		w.violate("lease %s has ended (%s: %s), and its instance %s is %s", l.ID, l.Reason, l.Detail, i.ID, i.Status)
	}
}

// settling is how long a launch is looked for; see lease.Timing.
const settling = 10 * time.Minute

// unfindable reports whether an instance stays hidden for longer than anybody looks for it, or
// did until the listings that have just been made, and its page may still be denied.
func (w *world) unfindable(i lambdatest.Instance) bool {
	until := w.hidden[i.ID]
	return time.Now().Before(until.Add(time.Minute)) && until.Sub(i.LaunchedAt) >= settling
}

// staleAt reports whether the cloud's answers denied what exists, at or shortly before a time.
func (w *world) staleAt(t time.Time) bool {
	return slices.ContainsFunc(w.stales, func(p *period) bool {
		return !t.Before(p.from) && t.Before(p.to.Add(3*time.Minute))
	})
}

// checkLaunch: intent and reservation are on disk before the call.
func (w *world) checkLaunch(id lease.ID) {
	l, t := w.rows[id], w.truth[id]
	switch {
	case t == nil:
		w.violate("a launch call is sent for lease %q, which is not in the ledger", id)
	case l.State == lease.Ended || l.State == lease.AwaitingApproval || l.LaunchSentAt.IsZero():
		w.violate("a launch call is sent for lease %s, which is %s and was marked at %s", id, l.State, l.LaunchSentAt)
	case !w.frozen.IsZero() && !t.marked.Before(w.frozen):
		w.violate("a launch call is sent for lease %s while launches are frozen", id)
	}
}

// checkTerminate: only what is ours, and only what somebody has decided to end.
func (w *world) checkTerminate(instance string) {
	if what := w.foreign[instance]; what != "" {
		w.violate("a terminate call is sent for instance %s, which is not ours (%s)", instance, what)
		return
	}
	i, ok := w.sim.Instance(instance)
	if !ok {
		w.violate("a terminate call is sent for instance %s, which never was", instance)
		return
	}
	l := w.rows[w.leaseOf(i.Name)]
	if l.State != lease.Stopping && l.State != lease.Ended && time.Since(w.ledgerIll) > 5*time.Minute {
		w.violate("a terminate call is sent for lease %s, which is %s: nobody has decided its end", l.ID, l.State)
	}
}

func (w *world) corrected(id lease.ID, amount policy.Money) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.extra[id] += amount
	w.tell("lease %s: corrected by %s", id, amount)
	w.count("corrections")
}

func (w *world) froze(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frozen = time.Time{}
	if on {
		w.frozen = time.Now()
	}
	w.tell("frozen: %t", on)
}

// reserved: what is held and spent is within every cap, at the moment of each
// reservation.
func (w *world) reserved(ctx context.Context, l lease.Lease, at time.Time, periods lease.Periods) {
	if !l.Counts() {
		return
	}
	p := w.policy.of(l.PolicyHash)
	u, err := w.checked.DB.Usage(ctx, l.Principal, at, periods)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil || p == nil {
		w.violate("lease %s is reserved under a policy that never was, or the usage cannot be read: %v", l.ID, err)
		return
	}
	if !w.frozen.IsZero() {
		w.violate("lease %s is reserved while launches are frozen", l.ID)
	}
	w.count("reservations")
	var day, ever policy.Money
	n := 0
	for id, row := range w.rows {
		amount := row.Cost + w.extra[id]
		if row.Counts() {
			amount = row.Held(at)
			n++
		}
		ever += amount
		if row.Counts() || row.State == lease.Ended && !row.EndedAt.Before(periods.Day) {
			day += amount
		}
	}
	if p.CountUntracked {
		day, ever = day+u.Untracked.Day, ever+u.Untracked.Lifetime
	}
	over := func(what string, sum, limit policy.Money) {
		if limit > 0 && sum > limit {
			w.violate("with lease %s, %s is held and spent of the %s that caps.%s allows", l.ID, sum, limit, what)
		}
	}
	over("per_lease", l.WorstCase(), p.Caps.PerLease)
	over("per_day", day, p.Caps.PerDay)
	over("lifetime", ever, p.Caps.Lifetime)
	if n > p.MaxLeases {
		w.violate("with lease %s there are %d of %d leases", l.ID, n, p.MaxLeases)
	}
}

func (w *world) oursRunning() []lambdatest.Instance {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(w.sim.Running(), func(i lambdatest.Instance) bool {
		return w.foreign[i.ID] != "" || w.leaseOf(i.Name) == ""
	})
}

// active reports whether a fault can still do something.
func (w *world) active(f *fault) bool {
	if f.Until > 0 && time.Since(f.from) >= f.Until {
		return false
	}
	return f.Count == 0 || w.sim.Hits(f.id) < f.Count
}

// well is for how long somebody has been able to act and nothing has failed.
func (w *world) well() time.Duration {
	now := time.Now()
	able := false
	for _, p := range w.slots[:3] {
		if p != nil {
			alive, suspended := p.state()
			able = able || alive && !suspended
		}
	}
	sick := !able || now.Before(w.ledgerIll)
	for _, f := range w.faults {
		if f.Op != lambdatest.OpLaunch && f.Op != lambdatest.OpAddKey && f.Op != lambdatest.OpListTypes && w.active(f) {
			sick, w.lastFault = true, now
		}
	}
	if sick {
		w.lastIll = now
	}
	return now.Sub(w.lastIll)
}

// spins says that a process works without a pause, and gets nowhere.
func (w *world) spins(p *process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violate("process %s works without a pause", p.name)
}
