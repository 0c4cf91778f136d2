package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gpulease/gpulease/lambda"
)

// beatEvery is how often a guard says that it lives; a guard that has been
// silent for guardSilence counts as dead.
const (
	beatEvery    = 5 * time.Second
	guardSilence = 30 * time.Second
	sweepEvery   = time.Hour
	sweepFirst   = 20 * time.Second
)

// reconciler is the leader's memory between two passes. Losing it loses nothing
// but a little time.
type reconciler struct {
	m        *Manager
	beat     time.Time
	listed   time.Time // last try to list
	checked  time.Time // last good listing, whose Date corrected our clock
	failed   int       // listings in a row without an answer
	swept    time.Time
	leading  bool
	probing  sync.WaitGroup
	probeCtx context.Context
	sick     map[ID]time.Time // since when a booting instance is called unhealthy
}

// Run reconciles until ctx ends, then waits for the goroutines that it started.
// Only the process for which Config.Lead says so acts; the others look again
// at each tick, so that one takes over when the leader dies.
func (m *Manager) Run(ctx context.Context) error {
	probeCtx, cancel := context.WithCancel(ctx)
	r := &reconciler{m: m, probeCtx: probeCtx, sick: map[ID]time.Time{}}
	defer r.probing.Wait()
	defer cancel()
	tick := time.NewTicker(m.Timing.Tick)
	defer tick.Stop()
	for {
		r.pass(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-m.wake:
			r.listed = time.Time{} // something changed: look at once
		}
	}
}

func (r *reconciler) pass(ctx context.Context) {
	lead, err := r.m.Lead()
	if err != nil {
		r.m.log.Error("cannot tell who leads", "err", err)
		return
	}
	if lead != r.leading {
		r.leading = lead
		r.m.log.Info("leadership", "leading", lead)
	}
	leases, err := r.m.Store.Live(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.m.log.Error("the live leases cannot be read", "err", err)
		}
		return
	}
	if len(leases) > 0 {
		r.say(ctx)
	}
	if !lead {
		return
	}
	if err := r.once(ctx, leases); err != nil && ctx.Err() == nil {
		r.m.log.Warn("reconcile", "err", err)
	}
}

// say writes down that this process guards the live leases: as the leader, or
// as one that takes over at the next tick after the leader has died.
func (r *reconciler) say(ctx context.Context) {
	now := r.m.now()
	if since := now.Sub(r.beat); since >= 0 && since < beatEvery {
		return
	}
	if err := r.m.Store.Beat(ctx, r.m.Guard, now); err != nil {
		r.m.log.Error("the guard's heartbeat could not be written", "err", err)
		return
	}
	r.beat = now
}

// once looks at every live lease and does what is due.
func (r *reconciler) once(ctx context.Context, leases []Lease) (err error) {
	m := r.m
	now := m.now()
	if len(leases) == 0 {
		return r.sweepWhenDue(ctx, now)
	}
	busy := false
	for _, l := range leases {
		busy = busy || l.State != Ready
	}
	if r.due(leases, now) && !r.clockIsGood(now) {
		// A clock that jumped must not end a lease: ask the cloud what time it is.
		r.listed = now
		if err := r.list(ctx, leases); err != nil {
			return err
		}
		if leases, err = m.Store.Live(ctx); err != nil {
			return fmt.Errorf("read the live leases: %w", err)
		}
		now = m.now()
	}
	for i, l := range leases {
		leases[i] = r.expire(ctx, l, now)
		busy = busy || leases[i].State != Ready
	}
	every := m.Timing.IdlePoll
	if busy {
		every = m.Timing.Poll
	}
	if since := now.Sub(r.listed); since >= 0 && since < every {
		return nil
	}
	r.listed = now
	return r.list(ctx, leases)
}

// listingCall bounds one listing; deadlines must not wait for it for ever.
const listingCall = 45 * time.Second

// blindAfter is how many listings may fail before our own clock is trusted: a
// lease must not outlive its deadline because the cloud does not answer.
const blindAfter = 5

// clockIsGood reports whether a good listing has just told the cloud's time.
func (r *reconciler) clockIsGood(now time.Time) bool {
	since := now.Sub(r.checked)
	return r.failed >= blindAfter || !r.checked.IsZero() && since >= 0 && since <= 2*r.m.Timing.IdlePoll
}

// due reports whether the time of one of the leases is up.
func (r *reconciler) due(leases []Lease, now time.Time) bool {
	for _, l := range leases {
		if why, _ := r.overdue(l, now); why != "" {
			return true
		}
	}
	return false
}

func (r *reconciler) sweepWhenDue(ctx context.Context, now time.Time) error {
	if r.swept.IsZero() {
		r.swept = now.Add(sweepFirst - sweepEvery) // an agent's first question goes first
	}
	if since := now.Sub(r.swept); since >= 0 && since < sweepEvery {
		return nil
	}
	r.swept = now
	if err := r.m.Sweep(ctx); err != nil {
		return fmt.Errorf("sweep old SSH keys: %w", err)
	}
	return nil
}

// expire decides the end of a lease whose time is up. It needs no cloud.
func (r *reconciler) expire(ctx context.Context, l Lease, now time.Time) Lease {
	why, detail := r.overdue(l, now)
	if why == "" {
		return l
	}
	stopped, err := r.m.stop(ctx, l.ID, why, detail)
	if err != nil {
		r.m.log.Error("a lease whose time is up could not be stopped", "lease", l.ID, "err", err)
		return l
	}
	return stopped
}

// overdue says why a lease has to end now, or "".
func (r *reconciler) overdue(l Lease, now time.Time) (why Reason, detail string) {
	switch {
	case l.State == Stopping || l.State == Ended:
		return "", ""
	case l.State == Launching && l.LaunchSentAt.IsZero() && now.Sub(l.CreatedAt) > launchKeyTimeout+r.m.Timing.LaunchCall:
		return Cancelled, "the process that launched it died before the launch call"
	case l.State == Ready && !now.Before(l.Deadline):
		return Deadline, "its deadline has come"
	case !now.Before(l.HardStop):
		return Deadline, "its hard stop has come"
	case (l.State == Launching || l.State == Booting) && now.Sub(l.CreatedAt) >= l.BootAllowance:
		return NeverReady, fmt.Sprintf("it was not ready within its boot allowance of %s (last: %s)", l.BootAllowance, l.Detail)
	}
	return "", ""
}

// list asks the cloud once for all instances and goes through the leases with
// the answer. A failed listing is no evidence of anything.
func (r *reconciler) list(ctx context.Context, leases []Lease) error {
	m := r.m
	account, err := m.Cloud.Account(ctx)
	if err != nil {
		return fmt.Errorf("identify the account: %w", err)
	}
	// Stops first: they save money, and a listing may hang.
	for i, l := range leases {
		if l.State == Stopping && l.InstanceID != "" && l.Account == account && l.GoneAt.IsZero() && m.mayTry(l.ID) {
			leases[i] = m.terminate(ctx, l)
		}
	}
	at := m.now() // before the call: what it shows was true then or later
	callCtx, cancel := context.WithTimeout(ctx, listingCall)
	instances, err := m.Cloud.Instances(callCtx)
	cancel()
	if err != nil {
		r.failed++
		return fmt.Errorf("list instances: %w", err)
	}
	r.failed, r.checked = 0, m.now()
	for _, l := range leases {
		if l.Account != account || l.State == Ended {
			continue // under another key, neither a listing nor a 404 says anything
		}
		var err error
		if inst := findInstance(l, instances); inst != nil {
			err = r.present(ctx, l, *inst, at)
		} else {
			err = r.absent(ctx, l, at)
		}
		if err != nil && !errors.Is(err, ErrConflict) && ctx.Err() == nil {
			m.log.Warn("reconcile a lease", "lease", l.ID, "err", err)
		}
	}
	return nil
}

func findInstance(l Lease, instances []lambda.Instance) *lambda.Instance {
	for i, inst := range instances {
		if l.InstanceID != "" {
			if inst.ID == l.InstanceID {
				return &instances[i]
			}
			continue
		}
		if l.LaunchSentAt.IsZero() {
			continue
		}
		tags := make([]string, 0, len(inst.Tags))
		for _, t := range inst.Tags {
			tags = append(tags, t.Value)
		}
		if l.owns(inst.Name, inst.SSHKeyNames, tags) {
			return &instances[i]
		}
	}
	return nil
}

// present takes in that the listing shows the lease's instance.
func (r *reconciler) present(ctx context.Context, l Lease, inst lambda.Instance, at time.Time) error {
	m := r.m
	was := l
	if l.InstanceID == "" {
		l.InstanceID, l.BillingFrom = inst.ID, l.LaunchSentAt
		l.Detail = "found in the account after its launch call's answer was lost"
		if l.State == Launching {
			l.State = Booting
		}
	}
	l.Missing, l.MissingSince = 0, time.Time{}
	if l.SeenAt.IsZero() || at.Sub(l.SeenAt) >= beatEvery {
		l.SeenAt = at
	}
	if inst.IP != "" {
		l.Addr = inst.IP
	}
	switch {
	case inst.FirstHealthy != nil && !inst.FirstHealthy.IsZero():
		l.BillingFrom = inst.FirstHealthy.UTC().Truncate(time.Millisecond)
	case inst.Status == lambda.StatusBooting && l.ReadyAt.IsZero() && at.After(l.BillingFrom):
		l.BillingFrom = at // not billed up to here
	}
	if inst.Status == lambda.StatusTerminated {
		l.GoneAt = at
		return r.gone(ctx, l, "the cloud shows it as terminated")
	}
	if l != was {
		fresh, err := m.Store.Update(ctx, l, changeNote(was, l))
		if err != nil {
			return fmt.Errorf("write down what the listing shows: %w", err)
		}
		l = fresh
	}
	if l.State == Stopping {
		if m.mayTry(l.ID) {
			m.terminate(ctx, l)
		}
		return nil
	}
	price := int64(inst.InstanceType.PriceCentsPerHour) * 10_000
	var why Reason
	var detail string
	switch {
	case int64(l.Price) < price:
		why, detail = OverBudget, fmt.Sprintf("the cloud charges more than the %s/h that were agreed", l.Price)
	case inst.Status == lambda.StatusTerminating || inst.Status == lambda.StatusPreempted:
		why, detail = Gone, fmt.Sprintf("the cloud shows it as %s, and we did not ask for that", inst.Status)
	case inst.Status == lambda.StatusUnhealthy && l.State == Booting && r.sickFor(l.ID, at) >= m.Timing.Unhealthy:
		why, detail = GPUUnhealthy, "the cloud calls the machine unhealthy"
	}
	if inst.Status != lambda.StatusUnhealthy {
		delete(r.sick, l.ID)
	}
	if why != "" {
		_, err := m.stop(ctx, l.ID, why, detail)
		return err
	}
	if l.State == Booting && l.Addr != "" {
		r.probe(l)
	}
	return nil
}

// sickFor is how long the instance has been called unhealthy without a break.
func (r *reconciler) sickFor(id ID, at time.Time) time.Duration {
	since, ok := r.sick[id]
	if !ok {
		r.sick[id] = at
		return 0
	}
	return at.Sub(since)
}

func changeNote(was, is Lease) string {
	switch {
	case was.InstanceID != is.InstanceID:
		return "found as " + is.InstanceID
	case was.Addr != is.Addr:
		return "address " + is.Addr
	case was.Missing != is.Missing:
		return "listed again"
	}
	return "seen"
}

// absent takes in that a good listing does not show the lease's instance.
func (r *reconciler) absent(ctx context.Context, l Lease, at time.Time) error {
	m := r.m
	if l.LaunchSentAt.IsZero() {
		return nil // nothing was sent yet; expire watches over it
	}
	if l.InstanceID == "" && at.Sub(l.LaunchSentAt) < m.Timing.LaunchCall {
		return nil // the call may still be on its way
	}
	if l.Missing == 0 {
		l.MissingSince = at
	}
	l.Missing++
	// An instance of which the cloud has never shown any knowledge may appear late.
	// One that it knew and does not list twice in a row is asked for by its id.
	known := !l.SeenAt.IsZero() || !l.TerminateAt.IsZero() || at.Sub(l.LaunchSentAt) >= m.Timing.Settle
	if l.Missing >= 2 && known {
		gone := true
		if l.InstanceID != "" {
			inst, err := m.Cloud.Instance(ctx, l.InstanceID)
			switch {
			case err == nil && inst.Status != lambda.StatusTerminated:
				return r.present(ctx, l, inst, at)
			case err != nil && !lambda.IsNotFound(err):
				gone = false
			}
		}
		if gone {
			if l.GoneAt.IsZero() {
				l.GoneAt = l.MissingSince
			}
			return r.gone(ctx, l, "the cloud does not list it any more")
		}
	}
	if _, err := m.Store.Update(ctx, l, fmt.Sprintf("not listed (%d in a row)", l.Missing)); err != nil {
		return fmt.Errorf("write down that it is not listed: %w", err)
	}
	return nil
}

// gone ends a lease whose instance is proven to be gone.
func (r *reconciler) gone(ctx context.Context, l Lease, detail string) error {
	if l.State != Stopping {
		l.Reason = Gone
		if l.InstanceID == "" {
			l.Reason, detail = Refused, "no instance appeared after the launch call; it was not launched"
		}
		l.StopAt = l.GoneAt
	}
	l.Detail = detail
	r.m.Crash("gone")
	if _, err := r.m.settle(ctx, l, detail); err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	r.m.nudge()
	return nil
}
