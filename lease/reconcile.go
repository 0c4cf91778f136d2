package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gpulease/gpulease/lambda"
)

const (
	// beatEvery is how often a guard says that it lives; one that has been silent
	// for guardSilence counts as dead.
	beatEvery    = 5 * time.Second
	guardSilence = 30 * time.Second

	sweepEvery = time.Hour
	sweepFirst = 20 * time.Second
	sweepAgain = time.Minute // after a sweep that failed or has found an instance

	// listingCall bounds one listing; deadlines must not wait for it for ever.
	listingCall = 45 * time.Second
	// blindAfter is how many listings may fail before our own clock is trusted: a
	// lease must not outlive its deadline because the cloud does not answer.
	blindAfter = 5
	// leadPause is how long a leader that cannot list steps aside, so that another
	// process that may be able to can take the lead.
	leadPause = 5 * time.Second
)

// reconciler is a process's memory between two passes. Losing it loses nothing
// but a little time.
type reconciler struct {
	m        *Manager
	began    time.Time
	beat     time.Time
	lead     role      // does what concerns the account
	host     role      // does what concerns this home's machines
	listed   time.Time // last try to list
	failed   int       // listings in a row without an answer
	paused   time.Time // when we last stepped aside because of that
	doubts   int       // listings in a row that left the time in doubt while a lease seemed overdue
	swept    time.Time
	tidyAt   time.Time // when the keys of ended leases are looked for, zero for not at all
	untidy   bool      // the last look has found instances of ended leases, or has failed
	lived    bool      // leases may have ended since we last asked whether an instance may return
	known    []Lease   // live as of the last good look at the ledger
	others   []Lease   // those of them that were launched with another API key
	working  sync.WaitGroup
	ensuring atomic.Bool
	workCtx  context.Context
	sick     map[ID]time.Time // since when a booting instance is called unhealthy
	up       map[ID]bool      // was shown as something else than booting: a second boot is billed
	sights   sights
	samples  samples
}

// Run reconciles until ctx ends, then waits for the goroutines that it started.
// Only one process for each account and ledger acts; the others stand by, and
// take over when the leader dies or falls silent. Who cannot act does not lead
// and does not count as a guard.
func (m *Manager) Run(ctx context.Context) error {
	workCtx, cancel := context.WithCancel(ctx)
	r := &reconciler{m: m, workCtx: workCtx, began: m.now(), tidyAt: m.now().Add(sweepFirst), sick: map[ID]time.Time{}, up: map[ID]bool{}}
	defer r.working.Wait()
	defer cancel()
	tick := time.NewTicker(m.Timing.Tick)
	defer tick.Stop()
	for {
		if err := r.pass(ctx); err != nil && ctx.Err() == nil {
			m.log.Warn("reconcile", "err", err)
		}
		select {
		case <-ctx.Done():
			m.Yield()
			return nil
		case <-tick.C:
		case <-m.wake:
			r.listed = time.Time{} // something changed: look at once
		}
	}
}

func (r *reconciler) pass(ctx context.Context) error {
	m := r.m
	leases, err := m.Store.Live(ctx)
	if err != nil {
		r.stepDown()
		r.endUnwritten(ctx)
		return fmt.Errorf("read the live leases: %w", err)
	}
	r.noteEnds(leases)
	r.known = leases
	m.settleLate(ctx, leases)
	r.tryAgain(ctx, leases)
	r.tendForwards(ctx, leases)
	if len(leases) == 0 {
		return errors.Join(r.sweepWhenDue(ctx), r.tidyWhenDue(ctx))
	}
	r.lived = true
	account, err := m.Cloud.Account(ctx)
	if err != nil {
		r.stepDown()
		return fmt.Errorf("identify the account: %w", err)
	}
	// Under another key, neither a listing nor a 404 says anything.
	leases = slices.DeleteFunc(slices.Clone(leases), func(l Lease) bool { return l.Account != account })
	r.others = slices.DeleteFunc(slices.Clone(r.known), func(l Lease) bool { return l.Account == account })
	if len(leases) == 0 {
		r.stepDown()
		err = r.lookForOthers(ctx, account)
	} else {
		err = r.leadOn(ctx, account, leases)
	}
	err = errors.Join(err, r.expireOthers(ctx))
	// Whatever key a lease is bound to, only its home can reach the machine.
	r.host.name, r.host.lock = roleHost+" "+m.Home, m.Host
	host, hostErr := r.plays(ctx, &r.host)
	if host {
		r.work(account, append(leases, r.others...))
	}
	return errors.Join(err, hostErr)
}

// leadOn does what concerns the account, if that is this process's part.
func (r *reconciler) leadOn(ctx context.Context, account string, leases []Lease) error {
	m := r.m
	if err := r.say(ctx, &r.beat, m.Guard); err != nil {
		r.stepDown()
		r.endUnwritten(ctx)
		return err
	}
	if since := m.now().Sub(r.paused); since >= 0 && since < leadPause {
		return nil
	}
	r.lead.name, r.lead.lock = roleLeader+" "+account, func() (bool, error) { return m.Lead(account) }
	lead, err := r.plays(ctx, &r.lead)
	if err != nil || !lead {
		return err
	}
	return errors.Join(r.once(ctx, leases), r.tidyWhenDue(ctx))
}

// once looks at every live lease of the account and does what is due.
func (r *reconciler) once(ctx context.Context, leases []Lease) error {
	m := r.m
	now := m.now()
	if r.anyOverdue(leases, now) && !m.timeIsSure() && !r.blind() {
		// A clock that jumped must not end a lease: ask the cloud what time it is.
		r.listed = now
		err := r.list(ctx, leases)
		if err == nil && !m.timeIsSure() {
			r.doubts++ // dates that go on contradicting each other must not keep a lease alive
			err = errors.New("a lease seems overdue, but the time is in doubt")
		}
		if err != nil && !r.blind() {
			return err
		}
		if leases, err = r.reload(ctx, leases); err != nil {
			return err
		}
		now = m.now()
	}
	busy := false
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

// blind reports whether the cloud has failed to tell the time for so long that
// our own clock has to do.
func (r *reconciler) blind() bool { return r.failed >= blindAfter || r.doubts >= blindAfter }

func (r *reconciler) reload(ctx context.Context, leases []Lease) ([]Lease, error) {
	fresh := make([]Lease, 0, len(leases))
	for _, l := range leases {
		l, err := r.m.Store.Get(ctx, l.ID)
		if err != nil {
			return nil, fmt.Errorf("read lease %s: %w", l.ID, err)
		}
		if l.State.Live() {
			fresh = append(fresh, l)
		}
	}
	return fresh, nil
}

func (r *reconciler) anyOverdue(leases []Lease, now time.Time) bool {
	return slices.ContainsFunc(leases, func(l Lease) bool {
		why, _ := r.overdue(l, now)
		return why != ""
	})
}

func (r *reconciler) sweepWhenDue(ctx context.Context) error {
	now := r.m.now()
	if r.swept.IsZero() {
		r.swept = now.Add(sweepFirst - sweepEvery) // an agent's first question goes first
	}
	if r.lived {
		again, err := r.m.MayReturn(ctx)
		if err != nil {
			return err
		}
		r.lived, r.untidy = false, r.untidy || again
	}
	every := sweepEvery
	if r.untidy {
		every = sweepAgain
	}
	if since := now.Sub(r.swept); since >= 0 && since < every {
		return nil
	}
	r.swept, r.lived = now, true // and see afterwards whether once more
	r.tidyAt = time.Time{}
	err := r.m.Sweep(ctx)
	r.untidy = err != nil
	if err != nil {
		return fmt.Errorf("sweep what ended leases left behind: %w", err)
	}
	return nil
}

// expire decides the end of a lease whose time is up. It needs no cloud.
func (r *reconciler) expire(ctx context.Context, l Lease, now time.Time) Lease {
	if l.State == Stopping && l.LaunchSentAt.IsZero() {
		// Whoever stopped it died before it could settle; its launcher cannot mark it any more.
		ended, err := r.m.settle(ctx, l, "no launch call was sent")
		if err != nil {
			r.m.log.Warn("a lease of which nothing was launched could not be settled", "lease", l.ID, "err", err)
		}
		return ended
	}
	why, _ := r.overdue(l, now)
	if why == "" {
		return l
	}
	// It may have been extended, say, since we looked.
	stopped, err := r.m.stopIf(ctx, l.ID, func(l Lease) (Reason, string) { return r.overdue(l, now) })
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
	case l.State == AwaitingApproval:
		return r.m.undecided(l, now)
	case l.State == Launching && l.LaunchSentAt.IsZero() && now.Sub(l.began()) > launchKeyTimeout+r.m.Timing.LaunchCall:
		return Cancelled, "the process that launched it died before the launch call"
	case l.State == Ready && !now.Before(l.Deadline):
		return Deadline, "its deadline has come"
	case !now.Before(l.HardStop):
		return Deadline, "its hard stop has come"
	case (l.State == Launching || l.State == Booting) && now.Sub(l.began()) >= l.BootAllowance:
		return NeverReady, fmt.Sprintf("it was not ready within its boot allowance of %s (last: %s)", l.BootAllowance, l.Detail)
	}
	return "", ""
}

// endUnwritten asks the cloud to end what is overdue, while the ledger can be neither
// read nor written. What came of it is found out when it can be again.
func (r *reconciler) endUnwritten(ctx context.Context) {
	m := r.m
	now := m.now()
	for _, l := range r.known {
		why, _ := r.overdue(l, now)
		if why == "" && l.State != Stopping {
			continue
		}
		if l.InstanceID == "" && l.LaunchSentAt.IsZero() && now.Before(l.Deadline) {
			continue // by what could be read last nothing was sent, and if it was since, it is early
		}
		if !m.mayTry(l.ID) {
			continue
		}
		err := m.endUnbound(ctx, l)
		if errors.Is(err, errNoneShown) {
			continue
		}
		m.log.Error("the ledger cannot be used; an overdue machine is ended all the same", "lease", l.ID, "instance", l.InstanceID, "err", err)
	}
}

// list asks the cloud once for all instances and goes through leases and
// instances with the answer. A failed listing is no evidence of anything.
func (r *reconciler) list(ctx context.Context, leases []Lease) error {
	m := r.m
	// Stops first: they save money, and a listing may hang.
	for i, l := range leases {
		if l.State == Stopping && l.InstanceID != "" && l.GoneAt.IsZero() && m.mayEnd(l) && m.mayTry(l.ID) {
			leases[i] = m.terminate(ctx, l)
		}
	}
	before := m.Now()
	callCtx, cancel := context.WithTimeout(ctx, listingCall)
	instances, err := m.Cloud.Instances(callCtx)
	cancel()
	if err != nil {
		if r.failed++; r.failed%blindAfter == 0 {
			r.paused = m.now() // it may be only us who cannot reach the cloud
			r.stepDown()
		}
		return fmt.Errorf("list instances: %w", err)
	}
	r.failed = 0
	m.observe()
	look := m.lookSince(before)
	if look.sure {
		r.doubts = 0
	}
	for _, l := range leases {
		if l.State == Ended {
			continue
		}
		var err error
		if inst := findInstance(l, instances); inst != nil {
			err = r.present(ctx, l, *inst, look)
		} else {
			err = r.absent(ctx, l, look)
		}
		if err != nil && !errors.Is(err, ErrConflict) && ctx.Err() == nil {
			m.log.Warn("reconcile a lease", "lease", l.ID, "err", err)
		}
	}
	strays, err := m.endStrays(ctx, instances)
	r.untidy = strays > 0 || err != nil
	err = errors.Join(err, r.sights.note(ctx, m, instances))
	if account, accountErr := m.Cloud.Account(ctx); accountErr == nil && len(r.others) > 0 {
		err = errors.Join(err, r.rebind(ctx, account, instances))
	}
	return err
}

func findInstance(l Lease, instances []lambda.Instance) *lambda.Instance {
	i := slices.IndexFunc(instances, func(inst lambda.Instance) bool {
		if l.InstanceID != "" {
			return inst.ID == l.InstanceID
		}
		return !l.LaunchSentAt.IsZero() && l.owns(inst)
	})
	if i < 0 {
		return nil
	}
	return &instances[i]
}
