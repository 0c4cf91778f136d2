package lease_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// check compares the cloud as it is with what the ledger says, at this moment.
func (w *world) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now, well := time.Now(), w.well()
	bill := w.sim.Bill()
	bills := map[lease.ID]policy.Money{}
	running := map[lease.ID]int{}
	for n, i := range w.sim.Instances() {
		if w.foreign[i.ID] != "" {
			if !runs(i) {
				w.violate("the foreign instance %s (%s) is %s", i.ID, w.foreign[i.ID], i.Status)
			}
			continue
		}
		id := w.leaseOf(i.Name)
		bills[id] += policy.Money(bill.Lines[n].MicroDollars)
		if runs(i) {
			running[id]++
			w.checkLife(id, i, now, well)
		}
	}
	for id, n := range running {
		if n > 1 {
			w.violate("lease %s has %d instances", id, n)
		}
	}
	for id, amount := range bills {
		w.checkBill(id, amount, now, well)
	}
}

// checkLife: nothing lives on after its end has come, while somebody is able to act.
func (w *world) checkLife(id lease.ID, i lambdatest.Instance, now time.Time, well time.Duration) {
	l, t := w.rows[id], w.truth[id]
	seen := now.Sub(w.hidden[i.ID]) // for how long it can be seen
	late := func(end time.Time, bound time.Duration, what string) {
		if now.Sub(end) > bound && well > bound && seen > bound {
			w.violate("instance %s of lease %s (%s) still runs, %s after %s", i.ID, id, l.State, now.Sub(end), what)
		}
	}
	if t == nil {
		late(i.LaunchedAt, bySweep, "a launch that the ledger does not know")
		return
	}
	rescue := 5 * time.Minute
	switch l.State {
	case lease.Ended:
		late(t.since, bySweep, "the end of the lease")
	case lease.Stopping:
		late(t.since, rescue+atOnce, "the decision to end it")
	case lease.Ready:
		late(l.Deadline, rescue+atOnce, "its deadline")
	case lease.Launching, lease.Booting:
		late(t.born.Add(2*time.Hour), l.BootAllowance+atOnce, "its launch") // approval may have come after an hour
	}
	late(l.HardStop, atOnce, "its hard stop")
}

// checkBill: the cloud's bill is never above what is held and settled. While nobody
// could know of an instance or of its price, only its reservation stands for it.
func (w *world) checkBill(id lease.ID, bill policy.Money, now time.Time, well time.Duration) {
	l := w.rows[id]
	have := l.Cost + w.extra[id]
	if l.State != lease.Ended {
		have = l.Held(now)
	}
	if w.offClock(id) {
		have += l.Price.For(trustedSkew) // of each of two times
	}
	if bill <= have || w.misdated(id) {
		return
	}
	bound := time.Duration(0)
	for _, i := range w.ours(id) {
		switch {
		case w.unfindable(i), w.hidden[i.ID].Add(atOnce).After(now) && l.Price < policy.Cents(i.PriceCentsPerHour):
			return
		case l.State == lease.Ended && !runs(i) && endOf(i).Before(w.truth[id].since) && (l.InstanceID == "" || l.SeenAt.IsZero() && l.Price < policy.Cents(i.PriceCentsPerHour)):
			return // it came and went, and nobody ever saw it, or its price
		case l.State == lease.Ended && (i.ID != l.InstanceID || w.hidden[i.ID].After(w.truth[id].since)):
			bound = max(bound, bySweep) // it was given up before it showed
			if now.Sub(later(w.hidden[i.ID], w.truth[id].since)) <= bySweep {
				return
			}
			if !runs(i) && endOf(i).Sub(w.hidden[i.ID]) < bySweep {
				return // and went away before anybody looked
			}
		case l.InstanceID == "" || l.Price < policy.Cents(i.PriceCentsPerHour):
			bound = max(bound, atOnce)
		}
	}
	if l.State == lease.Ended && w.staleAt(l.GoneAt) {
		return // it was given up on false evidence, and may have gone away by itself before anybody looked again
	}
	if bound > 0 && well <= bound {
		return
	}
	w.violate("lease %s (%s) is billed %s, and the ledger has %s", id, l.State, bill, have)
}

// trustedSkew is what two readings of a clock may differ by in all, where each
// may be a minute from the cloud's time without being corrected.
const trustedSkew = 2 * time.Minute

// offClock reports whether a process had another time than the cloud in the life of a lease.
func (w *world) offClock(id lease.ID) bool { return w.within(id, w.wrongClocks) }

// futureDated reports whether a living lease is dated by a wrong date of the cloud.
func (w *world) futureDated() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, l := range w.rows {
		if l.State != lease.Ended && w.misdated(id) {
			return true
		}
	}
	return false
}

// misdated reports whether the cloud's own clock was wrong for long, as far as its
// answers go, in the life of a lease. Then nothing can tell what it has cost.
func (w *world) misdated(id lease.ID) bool { return w.within(id, w.wrongDates) }

// within reports whether a lease lived in one of the periods, or soon after it.
func (w *world) within(id lease.ID, periods []*period) bool {
	t := w.truth[id]
	if t == nil {
		return false
	}
	end := time.Now()
	if w.rows[id].State == lease.Ended {
		end = t.since
	}
	for _, d := range periods {
		if d.from.Before(end) && d.to.Add(5*time.Minute).After(t.born) {
			return true
		}
	}
	return false
}

// endOf is when an instance that does not run any more has ended.
func endOf(i lambdatest.Instance) time.Time {
	if !i.StopCalledAt.IsZero() {
		return i.StopCalledAt
	}
	return i.TerminatedAt
}

// quiet lifts all faults and waits until everything must be over.
func (w *world) quiet() {
	w.note("-- quiet")
	w.mu.Lock()
	w.sim.Remove()
	for _, d := range append(append(w.wrongDates, w.wrongClocks...), w.stales...) {
		d.to = earlier(d.to, time.Now())
	}
	w.faults, w.due, w.lastIll = nil, nil, time.Now()
	if w.ledgerIll.After(w.lastIll) {
		w.ledgerIll, w.readIll = w.lastIll, w.lastIll
	}
	w.mu.Unlock()
	w.calm()
	w.thaw()
	for _, p := range w.all {
		p.offset.Store(0)
		p.mu.Lock()
		p.trap = map[string]move{}
		p.mu.Unlock()
		p.resume()
	}
	w.start(0)
	w.start(2)
	w.pass(10 * time.Minute) // what was just asked for has begun
	for hours := 5; hours > 0 && !w.allEnded(); hours-- {
		w.pass(time.Hour)
		if hours == 1 && w.futureDated() {
			hours += 27 // as wrong as a date of the cloud can be
		}
	}
	w.pass(bySweep)
	if !w.broken() {
		w.checkQuiet()
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (w *world) allEnded() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.rows {
		if l.State != lease.Ended {
			return false
		}
	}
	return true
}

// checkQuiet: nothing is left of anything.
func (w *world) checkQuiet() {
	ctx := context.Background()
	all, err := w.checked.DB.List(ctx, 0)
	verified := w.checked.DB.Verify(ctx)
	keys := w.sim.Keys()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil || verified != nil {
		w.violate("the ledger: %v, %v", err, verified)
	}
	if len(all) != len(w.rows) {
		w.violate("the ledger has %d leases, and %d were written", len(all), len(w.rows))
	}
	for _, l := range all {
		if l != w.rows[l.ID] {
			w.violate("lease %s is not what was written last", l.ID)
		}
		if l.State != lease.Ended || l.Reserved != 0 {
			w.violate("lease %s is still %s and holds %s: %s", l.ID, l.State, l.Reserved, l.Detail)
		}
		w.checkHistory(ctx, l)
		w.checkCost(l)
	}
	for _, k := range keys {
		if strings.HasPrefix(k.Name, "gl-"+w.ledgerID) {
			w.violate("the SSH key %s stays in the account", k.Name)
		}
	}
	for _, home := range []string{"a", "b"} {
		files, _ := os.ReadDir(filepath.Join(w.dir, "keys-"+home))
		for _, f := range files {
			w.violate("the private key %s stays in home %s", f.Name(), home)
		}
	}
}

// checkCost: where nothing went wrong, no more is settled than the bill, with what
// ending takes and what looks at the cloud add: the last one before the boot is over, and
// three for the end.
func (w *world) checkCost(l lease.Lease) {
	t, bill := w.truth[l.ID], w.sim.Bill()
	if w.s.Setup.Dawdle > 0 || l.InstanceID == "" || t.ill || t.stranger || l.Price != t.quoted {
		return
	}
	line, _ := bill.Of(l.InstanceID)
	i, _ := w.sim.Instance(l.InstanceID)
	if i.StopCalledAt.IsZero() || w.hidden[i.ID].After(i.LaunchedAt) {
		return
	}
	billed := time.Duration(0)
	if !line.From.IsZero() {
		billed = line.To.Sub(line.From)
	}
	looks := 4 * (w.timing.Poll + w.timing.Tick + 2*w.s.Setup.Lag)
	if most := l.Price.For(billed + max(0, w.s.Setup.End) + looks); l.Cost > most {
		w.violate("lease %s is settled at %s, and was billed %s: at most %s would do", l.ID, l.Cost, policy.Money(line.MicroDollars), most)
	}
	w.count("costs compared")
}

// checkHistory: the events of a lease are a chain of allowed changes.
func (w *world) checkHistory(ctx context.Context, l lease.Lease) {
	events, err := w.checked.DB.History(ctx, l.ID)
	if err != nil || len(events) == 0 {
		w.violate("lease %s has no history: %v", l.ID, err)
		return
	}
	state := lease.State("")
	for _, e := range events {
		if e.From != state {
			w.violate("the history of lease %s jumps from %q to %q", l.ID, state, e.From)
		}
		state = e.To
	}
	if state != lease.Ended {
		w.violate("the history of lease %s ends with %q", l.ID, state)
	}
}
