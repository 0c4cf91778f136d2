package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gpulease/gpulease/remote"
)

// GPUUse is for how long a lease's GPUs have been watched, and for how much of
// that one of them worked. Zero where nobody has seen them.
type GPUUse struct{ Watched, Busy time.Duration }

// String is "GPU busy 38% of 42 min", or "" where nobody has seen them.
func (u GPUUse) String() string {
	if u.Watched <= 0 {
		return ""
	}
	percent := (u.Busy*100 + u.Watched/2) / u.Watched
	if u.Watched < 2*time.Minute {
		return fmt.Sprintf("GPU busy %d%% of %d s", percent, u.Watched/time.Second)
	}
	return fmt.Sprintf("GPU busy %d%% of %d min", percent, (u.Watched+time.Minute/2)/time.Minute)
}

const (
	// useEvery is how often the machine's own record of its GPUs is read.
	useEvery = time.Minute
	// useNews is how much more must have been seen for it to be written down before
	// the end: each write goes into the lease's history.
	useNews = 10 * time.Minute
	// lastLook bounds the reading before an end; the machine may be dark.
	lastLook = 2 * time.Second
)

// useOf sums up the machine's samples. A pause between two of them, such as a
// reboot, was not watched.
func useOf(s remote.Samples) GPUUse {
	if s.GPUKnown <= 0 || s.GPUBusyPercent < 0 {
		return GPUUse{}
	}
	const step, longest = 15 * time.Second, 25 * time.Second
	each := step
	if s.Count > 1 {
		each = min(max(s.Until.Sub(s.Since)/time.Duration(s.Count-1), 0), longest)
	}
	watched := each * time.Duration(s.GPUKnown)
	return GPUUse{Watched: watched.Round(time.Second), Busy: (watched * time.Duration(s.GPUBusyPercent) / 100).Round(time.Second)}
}

// readUse asks the machine how busy its GPUs have been, and remembers that for
// the lease's end.
func (m *Manager) readUse(ctx context.Context, l Lease, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t, err := m.target(l)
	if err != nil {
		return err
	}
	s, err := m.Machine.Samples(ctx, t, 0)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.uses[l.ID] = seenUse{at: m.now(), use: useOf(s)}
	return nil
}

// seenUse is what was read of a machine, and when.
type seenUse struct {
	at  time.Time
	use GPUUse
}

// withUse is the lease with what is known of its GPUs' use.
func (m *Manager) withUse(l Lease) Lease {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.uses[l.ID].use; u.Watched > l.GPUWatched {
		l.GPUWatched, l.GPUBusy = u.Watched, u.Busy
	}
	return l
}

// freshUse reads it if that has not been done lately and this process can: the
// receipt is to have it.
func (m *Manager) freshUse(ctx context.Context, l Lease, limit time.Duration) {
	if l.GPUs == 0 || l.Addr == "" || l.ReadyAt.IsZero() || l.Home != m.Home && l.Home != "" {
		return
	}
	now := m.now()
	m.mu.Lock()
	since := now.Sub(m.uses[l.ID].at)
	m.mu.Unlock()
	if since >= 0 && since < m.Timing.Sample {
		return
	}
	if err := m.readUse(ctx, l, limit); err != nil {
		m.log.Debug("how busy the GPUs have been is not known", "lease", l.ID, "err", err)
	}
}

// watchUse reads and writes down how busy the GPUs of a lease in use have been. What
// cannot be known is no error: the receipt has the less.
func (m *Manager) watchUse(ctx context.Context, l Lease) Lease {
	now := m.now()
	m.mu.Lock()
	since := now.Sub(m.uses[l.ID].at)
	m.mu.Unlock()
	if l.GPUs == 0 || since >= 0 && since < useEvery {
		return l
	}
	if err := m.readUse(ctx, l, probeCall); err != nil {
		m.log.Debug("how busy the GPUs have been is not known", "lease", l.ID, "err", err)
		return l
	}
	seen := m.withUse(l)
	if news := seen.GPUWatched - l.GPUWatched; news <= 0 || l.GPUWatched > 0 && news < useNews {
		return l
	}
	written, err := m.Store.Update(ctx, seen, seen.GPUUse().String())
	switch {
	case err == nil:
		return written
	case !errors.Is(err, ErrConflict):
		m.log.Warn("how busy the GPUs have been could not be written down", "lease", l.ID, "err", err)
	}
	if fresh, err := m.Store.Get(ctx, l.ID); err == nil {
		return fresh
	}
	return l
}

// Use is what a machine is doing, and what its GPUs have been doing.
type Use struct {
	Now    remote.Activity
	GPUUse GPUUse // since the first look
}

// Use looks at a lease's machine.
func (m *Manager) Use(ctx context.Context, id ID) (Use, error) {
	l, t, err := m.usable(ctx, id)
	if err != nil {
		return Use{}, err
	}
	var u Use
	var samples remote.Samples
	var tasks sync.WaitGroup
	var errs [2]error
	tasks.Go(func() { u.Now, errs[0] = m.Machine.Activity(ctx, t) })
	tasks.Go(func() { samples, errs[1] = m.Machine.Samples(ctx, t, 0) })
	tasks.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return Use{}, m.machineError("look at the machine", l, err)
	}
	u.GPUUse = useOf(samples)
	return u, nil
}
