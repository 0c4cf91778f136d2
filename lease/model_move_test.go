package lease_test

import (
	"context"
	"fmt"
	"time"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
)

// run plays the script, then waits until all is quiet and looks at what is left.
func (w *world) run() {
	w.start(0)
	for _, m := range w.s.Moves {
		w.note("-- %s", m)
		w.mu.Lock()
		w.count("move " + m.Do)
		w.mu.Unlock()
		w.do(m)
		w.pass(m.Gap)
		if w.broken() {
			return
		}
	}
	w.quiet()
}

func (w *world) do(m move) {
	switch m.Do {
	case "pass":
		w.pass(m.D)
	case "start":
		w.start(m.Who)
	case "caps":
		w.policy.change(func(p *policy.Policy) { p.Caps.PerDay = policy.Money(m.N) * policy.Dollar })
	case "price":
		_ = w.sim.SetPrice("gpu_1x_a10", int64(m.N))
	case "fault":
		w.inject(m.X, m.Fault)
	case "instance":
		w.hurt(m)
	case "slow vanish":
		w.slowVanish(m)
	case "machine":
		w.upset(m)
	case "foreign":
		w.strange(m)
	case "ledger":
		w.breakLedger(m)
	case "kill all":
		for _, p := range w.slots {
			if p != nil {
				p.kill()
			}
		}
		w.later(m.D, func() { w.start(m.Who) })
	case "another key":
		p := w.start(3)
		w.later(m.D, p.kill)
	default:
		w.doWith(m)
	}
}

// doWith does what needs a process that lives.
func (w *world) doWith(m move) {
	p := w.someone(m.Who)
	if p == nil {
		return
	}
	switch m.Do {
	case "launch":
		w.launch(p, w.request(m))
	case "again":
		w.mu.Lock()
		n := len(w.requests)
		var r lease.LaunchRequest
		if n > 0 {
			r = w.requests[n-1-m.Which%n].LaunchRequest
		}
		w.mu.Unlock()
		if r.IdempotencyKey != "" {
			w.launch(p, r)
		}
	case "freeze":
		w.call(p, "freeze", func(ctx context.Context, lm *lease.Manager) error { return lm.Freeze(ctx, "ann", "a test") })
		w.later(m.D, w.thaw)
	case "kill":
		p.kill()
	case "kill at", "suspend at", "freeze at":
		p.mu.Lock()
		p.trap[m.X] = m
		p.mu.Unlock()
	case "suspend":
		p.suspend(m.D)
	case "clock":
		p.offset.Store(int64(m.D))
		w.ill()
		w.later(time.Duration(m.N)*time.Minute, func() { p.offset.Store(0); w.ill() })
		w.mu.Lock()
		w.wrongClocks = append(w.wrongClocks, &period{time.Now(), time.Now().Add(time.Duration(m.N) * time.Minute)})
		w.mu.Unlock()
	default:
		w.doWithLease(m, p)
	}
}

// doWithLease does what needs a lease.
func (w *world) doWithLease(m move, p *process) {
	wanted := func(l lease.Lease) bool { return l.State != lease.Ended }
	if m.Do == "approve" || m.Do == "deny" {
		wanted = func(l lease.Lease) bool { return l.State == lease.AwaitingApproval }
	}
	id := w.choose(m.Which, wanted)
	if id == "" {
		return
	}
	w.call(p, m.Do+" "+string(id), func(ctx context.Context, lm *lease.Manager) (err error) {
		switch m.Do {
		case "stop":
			_, err = lm.Stop(ctx, id)
		case "extend":
			_, err = lm.Extend(ctx, id, lease.Extension{More: time.Duration(m.N) * time.Minute, Call: m.X})
		case "approve":
			_, err = lm.Approve(ctx, id, "ben")
		case "deny":
			_, err = lm.Deny(ctx, id, "ben", "")
		default:
			err = fmt.Errorf("no move is called %q", m.Do)
		}
		return err
	})
}

// choose is the n-th newest lease of those that are wanted, or the newest of all.
func (w *world) choose(n int, wanted func(lease.Lease) bool) lease.ID {
	w.mu.Lock()
	defer w.mu.Unlock()
	var last lease.ID
	for i := len(w.order) - 1; i >= 0; i-- {
		id := w.order[i]
		if !wanted(w.rows[id]) {
			continue
		}
		if last == "" {
			last = id
		}
		if n--; n < 0 {
			return id
		}
	}
	return last
}

// thaw lifts a freeze, whatever has become of the process that began it.
func (w *world) thaw() { _ = w.checked.Freeze(context.Background(), lease.Freeze{}) }

func (w *world) request(m move) lease.LaunchRequest {
	r := lease.LaunchRequest{Type: m.X, TTL: m.D, Principal: []string{"", "bob"}[m.N&1], Purpose: "a test"}
	if m.N>>1&3 != 0 {
		r.IdempotencyKey = fmt.Sprintf("key %d", m.N>>1&7)
	}
	if m.N>>4&3 == 0 {
		r.Results, r.ResultsDir = []string{"out"}, w.dir
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests = append(w.requests, asking{r})
	return r
}

func (w *world) launch(p *process, r lease.LaunchRequest) {
	w.call(p, "launch "+r.Type, func(ctx context.Context, m *lease.Manager) error {
		l, err := m.Launch(ctx, r)
		if err != nil {
			return err
		}
		w.note("%s: launch: lease %s is %s", p.name, l.ID, l.State)
		w.mu.Lock()
		defer w.mu.Unlock()
		if r.IdempotencyKey == "" {
			return nil
		}
		who := r.Principal + "\x00" + r.IdempotencyKey
		if old, ok := w.handed[who]; ok && old != l.ID {
			w.violate("the idempotency key %q gave lease %s, and now %s", r.IdempotencyKey, old, l.ID)
		}
		w.handed[who] = l.ID
		return nil
	})
}

// inject makes the cloud fail.
func (w *world) inject(name string, f lambdatest.Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	add := func(f lambdatest.Fault) {
		id := w.sim.Inject(f)
		w.faults = append(w.faults, &fault{Fault: f, id: id, from: time.Now()})
		w.faultNames[id] = name
		w.lateAtMost += f.LateBy + f.UnlistedFor
	}
	add(f)
	w.count("fault " + name)
	if name == "stale" {
		add(lambdatest.Fault{Op: lambdatest.OpGetInstance, Code: lambdatest.CodeDoesNotExist, Until: f.Until})
	}
	if name == "stale" {
		w.stales = append(w.stales, &period{time.Now(), time.Now().Add(f.Until)})
	}
	if f.ClockSkew != 0 && f.Until > 0 {
		w.wrongDates = append(w.wrongDates, &period{time.Now(), time.Now().Add(f.Until)})
	}
	w.lastIll, w.lastFault = time.Now(), time.Now()
}

// hurt lets something happen to an instance of ours.
func (w *world) hurt(m move) {
	running := w.oursRunning()
	if len(running) == 0 {
		return
	}
	w.ill()
	id := running[len(running)-1-m.Which%len(running)].ID
	var err error
	switch m.X {
	case "vanish":
		err = w.sim.Terminate(id)
	case "preempted":
		err = w.sim.Become(id, lambdatest.Preempted)
	case "terminated":
		err = w.sim.Become(id, lambdatest.Terminated)
	case "unhealthy":
		err = w.sim.Become(id, lambdatest.Unhealthy)
	}
	w.note("instance %s: %s: %v", id, m.X, err)
}

// slowVanish lets an instance end in the middle of a slow listing.
func (w *world) slowVanish(m move) {
	w.inject("list slow", lambdatest.Fault{Op: lambdatest.OpListInstances, Delay: 44 * time.Second, Count: 2})
	id := w.sim.Inject(lambdatest.Fault{Op: lambdatest.OpListInstances, Count: 1}) // tells when it is under way
	for range 90 {
		w.pass(time.Second)
		if w.sim.Hits(id) > 0 {
			break
		}
	}
	w.pass(m.D)
	w.hurt(move{Which: m.Which, X: "terminated"})
}

// upset changes what the machines do for a while.
func (w *world) upset(m move) {
	w.machine.does(func(x *machine) {
		switch m.X {
		case "wrong key":
			x.wrongKey = true
		case "sick":
			x.health = remote.Health{Reason: "a GPU is missing"}
		case "blind":
			x.blind = true
		case "busy":
			x.activity.RunningJobs = 1
			x.jobs = []remote.Job{{ID: "job", State: remote.Running}}
		case "slow fetch":
			x.fetch = func(ctx context.Context, _ []string, _ string) (remote.FetchSummary, error) {
				return remote.FetchSummary{}, pause(ctx, m.D)
			}
		}
	})
	w.ill()
	w.later(m.D, w.calm)
}

func (w *world) calm() {
	w.machine.does(func(x *machine) {
		x.wrongKey, x.blind, x.activity, x.jobs = false, false, idleNow(), nil
		x.health = remote.Health{Healthy: true, Simulated: true}
		x.fetch = func(context.Context, []string, string) (remote.FetchSummary, error) {
			return remote.FetchSummary{}, nil
		}
	})
}

// strange puts an instance into the account that is not ours, however it looks.
func (w *world) strange(m move) {
	o := lambdatest.Order{Type: "gpu_1x_rtx6000", Region: "us-south-1", Name: "colleague"}
	stop := time.Now().Add(time.Hour)
	switch m.X {
	case "forged":
		o.Name = "gl-" + w.ledgerID + "-aaaaaaaaaaaa-zzzzz-aaaaaaaaaaaaaaaa"
	case "ledger due":
		stop = time.Now().Add(-time.Hour)
		fallthrough
	case "ledger":
		n := lease.Name{Ledger: "zzzz", Lease: "bbbbbbbbbbbb", HardStop: stop.Truncate(time.Second)}
		signed, err := n.Signed(context.Background(), cloud{(&process{w: w}).client(w.sim)})
		if err != nil {
			panic(err)
		}
		o.Name, o.Tags = signed, []lambdatest.Tag{{Key: "gpulease", Value: signed}}
	case "our key":
		id := w.choose(m.Which, func(l lease.Lease) bool { return l.State != lease.Ended })
		w.mu.Lock()
		o.Key = w.rows[id].KeyName
		w.mu.Unlock()
		o.Name = "colleague-with-our-key"
		if id == "" || w.keyMissing(o.Key) {
			return
		}
	}
	id, err := w.sim.Launch(o)
	if err != nil {
		w.note("foreign: %v", err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.foreign[id] = m.X
	w.tell("foreign instance %s: %s", id, o.Name)
}

func (w *world) keyMissing(name string) bool {
	for _, k := range w.sim.Keys() {
		if k.Name == name {
			return false
		}
	}
	return true
}

func (w *world) breakLedger(m move) {
	w.mu.Lock()
	defer w.mu.Unlock()
	until := time.Now().Add(m.D)
	w.ledgerIll = later(w.ledgerIll, until)
	if m.X == "all" {
		w.readIll = later(w.readIll, until)
	}
	w.lastIll = time.Now()
}

// ledgerFails reports whether the ledger is out of order now.
func (w *world) ledgerFails(write bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	return write && now.Before(w.ledgerIll) || now.Before(w.readIll)
}
