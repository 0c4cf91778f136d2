package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
)

// What counts as a GPU in use. Memory counts too: a notebook that holds a model
// shows no utilisation, and is worth money to whoever loaded it.
const (
	busyUtil   = 5  // percent
	busyMemory = 10 // percent
	busyCPU    = 20 // percent of all cores, on a machine without GPUs
)

// samples remembers when machines were looked at.
type samples struct {
	mu   sync.Mutex
	last map[ID]time.Time // last try
	good map[ID]time.Time // last look that told whether the machine is used
}

// due reports whether a machine should be looked at now, and counts it as done.
func (s *samples) due(m *Manager, id ID) bool {
	now := m.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if since := now.Sub(s.last[id]); since >= 0 && since < m.Timing.Sample {
		return false
	}
	if s.last == nil {
		s.last, s.good = map[ID]time.Time{}, map[ID]time.Time{}
	}
	s.last[id] = now
	return true
}

// keep forgets leases that do not live any more.
func (s *samples) keep(leases []Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.last) == 0 {
		return
	}
	live := map[ID]bool{}
	for _, l := range leases {
		live[l.ID] = l.State == Ready
	}
	for id := range s.last {
		if !live[id] {
			delete(s.last, id)
			delete(s.good, id)
		}
	}
}

// told counts a look that told something, and reports whether the one before it
// is recent enough that nothing can have gone unseen in between.
func (s *samples) told(id ID, now time.Time, gap time.Duration) (unbroken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, ok := s.good[id]
	s.good[id] = now
	return ok && now.Sub(before) <= gap
}

// untold makes the next look begin anew.
func (s *samples) untold(id ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.good, id)
}

// idleNews is how much the beginning of an idle time has to move to be written down.
const idleNews = 5 * time.Minute

// sample looks at what a machine is doing, and ends its lease if it has been idle
// for too long. A machine that does not answer, or does not say what its GPUs do, is
// not idle: its time only begins with the first good look.
func (r *reconciler) sample(ctx context.Context, id ID) error {
	m := r.m
	l, err := m.Store.Get(ctx, id)
	if err != nil {
		return fmt.Errorf("read the lease: %w", err)
	}
	if l.State != Ready {
		return nil
	}
	l = m.watchUse(ctx, l)
	if l.State != Ready {
		return nil
	}
	p, err := m.Policy.Current()
	if err != nil {
		return nil // without a policy nobody knows what idle is; the deadline stands
	}
	timeout, mode := p.IdleFor(l.Principal)
	if timeout <= 0 {
		return nil
	}
	if err := m.askTime(ctx); err != nil {
		return nil // nothing is dated by a time that is in doubt
	}
	idle, since, err := m.idle(ctx, l)
	if err != nil {
		m.log.Debug("a machine could not be looked at", "lease", id, "err", err)
		return nil
	}
	if !m.timeIsSure() {
		return nil // a look that cannot be dated tells nothing
	}
	now := m.now()
	unbroken := r.samples.told(id, now, max(4*m.Timing.Sample, 2*time.Minute))
	switch {
	case !idle:
		since = time.Time{}
	case !unbroken || l.IdleSince.IsZero():
		since = now // what was before, nobody has seen
	}
	if !since.IsZero() && since.Before(l.ReadyAt) {
		since = l.ReadyAt
	}
	if since.IsZero() != l.IdleSince.IsZero() || since.Sub(l.IdleSince).Abs() >= idleNews {
		if err := m.writeIdle(ctx, l, since); err != nil {
			r.samples.untold(id) // what the lease says is not what was seen
			if errors.Is(err, ErrConflict) {
				return nil // the next look says it again
			}
			return err
		}
	}
	if mode != policy.IdleEnforce || since.IsZero() || now.Sub(since) < timeout {
		return nil
	}
	m.Crash("idle")
	_, err = m.stop(ctx, id, Idle, fmt.Sprintf("nothing used it for %s", now.Sub(since).Round(time.Second)))
	return err
}

func (m *Manager) writeIdle(ctx context.Context, l Lease, since time.Time) error {
	l.IdleSince = since
	note := "idle"
	if since.IsZero() {
		note = "in use"
	}
	if _, err := m.Store.Update(ctx, l, note); err != nil {
		return fmt.Errorf("write down whether it is used: %w", err)
	}
	return nil
}

// idle looks at a machine. since is the latest use that is known to have ended.
func (m *Manager) idle(ctx context.Context, l Lease) (idle bool, since time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeCall)
	defer cancel()
	t, err := m.target(l)
	if err != nil {
		return false, since, err
	}
	a, err := m.Machine.Activity(ctx, t)
	if err != nil {
		return false, since, err
	}
	if busy, err := inUse(l, a); err != nil || busy {
		return false, since, err
	}
	touched, err := m.Store.Touched(ctx, l.ID)
	if err != nil {
		return false, since, err
	}
	now := m.now()
	since = l.IdleSince
	if a.SinceJobEnd >= 0 && now.Add(-a.SinceJobEnd).After(since) {
		since = now.Add(-a.SinceJobEnd)
	}
	if touched.After(since) {
		since = touched
	}
	return true, since, nil
}

// inUse reports whether anything runs on a machine. An error means that it cannot be told.
func inUse(l Lease, a remote.Activity) (bool, error) {
	if a.RunningJobs > 0 || a.Logins > 0 {
		return true, nil
	}
	if l.GPUs == 0 {
		if a.CPUPercent < 0 {
			return false, errors.New("the machine does not say what its processors do")
		}
		return a.CPUPercent >= busyCPU, nil
	}
	if !a.GPUKnown || len(a.GPUs) < l.GPUs {
		return false, errors.New("the machine does not say what its GPUs do")
	}
	for _, g := range a.GPUs {
		if g.UtilPercent >= busyUtil || g.MemoryMiB > 0 && g.MemoryUsedMiB*100 >= g.MemoryMiB*busyMemory {
			return true, nil
		}
	}
	return false, nil
}

// touchEvery is how often a use is written down.
const touchEvery = 30 * time.Second

// touch records that somebody works with a lease: from here it cannot be seen
// by looking at the machine, while files are under way or a port is forwarded.
func (m *Manager) touch(ctx context.Context, id ID) {
	now := m.now()
	m.mu.Lock()
	since := now.Sub(m.used[id])
	due := since < 0 || since >= touchEvery
	if due {
		m.used[id] = now
	}
	m.mu.Unlock()
	if !due {
		return
	}
	if err := m.Store.Touch(ctx, id, now); err != nil {
		m.log.Warn("a use could not be written down", "lease", id, "err", err)
	}
}

// inUseWhile touches the lease until do returns.
func (m *Manager) inUseWhile(ctx context.Context, id ID, do func() error) error {
	m.touch(ctx, id)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(touchEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				m.touch(ctx, id)
			}
		}
	}()
	err := do()
	cancel()
	<-done
	return err
}
