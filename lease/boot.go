package lease

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gpulease/gpulease/remote"
)

// probeCall bounds one look at a booting machine.
const probeCall = 30 * time.Second

// sickTries is how often a machine's GPUs are looked at before it is given up:
// a driver may come up a moment after cloud-init has finished.
const sickTries = 5

// awaitReady looks at the machine until it is ready. The boot allowance is not
// its business: the reconciler stops the lease, and the loop sees that.
func (m *Manager) awaitReady(ctx context.Context, id ID) error {
	sick, unrotated, computes := 0, 0, ""
	for {
		l, err := m.Store.Get(ctx, id)
		if err != nil {
			return fmt.Errorf("read the lease: %w", err)
		}
		if l.State != Booting {
			return nil
		}
		var phase string
		var health remote.Health
		if l.InTailnet() && l.host() == "" {
			phase, err = m.join(ctx, &l)
		}
		if err == nil {
			phase, health, err = m.look(ctx, l)
		}
		if err == nil && health.Healthy && computes == "" {
			computes, health = m.compute(ctx, l, health)
		}
		switch {
		case err != nil:
			m.log.Debug("not ready", "lease", id, "phase", phase, "err", err)
		case !health.Healthy:
			sick++
			phase = "the GPUs are not right: " + health.Reason
			if sick >= sickTries {
				_, err := m.stop(ctx, id, GPUUnhealthy, phase)
				return err
			}
		default:
			phase, err = m.finishBoot(ctx, &l, health, computes, &unrotated)
			switch {
			case err == nil:
				return nil
			case errors.Is(err, ErrConflict):
				continue // somebody wrote the row meanwhile; look again
			case phase == "":
				return err
			}
		}
		if l.Detail != phase {
			l.Detail = phase
			if _, err := m.Store.Update(ctx, l, phase); err != nil && !errors.Is(err, ErrConflict) {
				return fmt.Errorf("write down the phase of the boot: %w", err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(m.Timing.SSHRetry):
		}
	}
}

// finishBoot makes a lease ready whose machine is. Where it is to be tried again, it
// names the phase; l is the row as it is then.
func (m *Manager) finishBoot(ctx context.Context, l *Lease, h remote.Health, computes string, unrotated *int) (phase string, err error) {
	own := *l
	if *unrotated < rotateTries {
		if own, err = m.ownHostKey(ctx, l); err != nil && !errors.Is(err, ErrConflict) {
			*unrotated++
			m.log.Warn("the host key could not be replaced", "lease", l.ID, "try", *unrotated, "err", err)
			return "replacing the host key", err
		}
	} else {
		own.HostKeyFrom = HostKeyGiven // it is used as it is
	}
	if err == nil {
		err = m.becomeReady(ctx, own, h, computes)
	}
	if errors.Is(err, errUnsure) {
		phase = cmp.Or(l.Detail, "asking what time it is")
	}
	return phase, err
}

// look tries each step of readiness in order and says at which one the machine
// is. With a nil error the machine has booted and health says how its GPUs are.
func (m *Manager) look(ctx context.Context, l Lease) (phase string, h remote.Health, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeCall)
	defer cancel()
	t, err := m.target(l)
	if err != nil {
		return "its key is missing here", h, err
	}
	if err := m.Machine.Check(ctx, t); err != nil {
		if errors.Is(err, remote.ErrHostKey) {
			// Until cloud-init has put our host key in place, the image's own shows.
			return "waiting for cloud-init to install the host key", h, err
		}
		return "waiting for SSH", h, err
	}
	ci, err := m.Machine.CloudInit(ctx, t)
	if err != nil {
		return "waiting for cloud-init", h, err
	}
	if ci.State == remote.CloudInitRunning {
		return "waiting for cloud-init to finish", h, errors.New("cloud-init is running")
	}
	m.Crash("booted")
	h, err = m.Machine.Health(ctx, t, l.GPUs)
	if err != nil {
		return "looking at the GPUs", h, err
	}
	return "", h, nil
}

// compute lets the GPUs compute something, where the machine has what that takes.
// Only what CUDA itself says against a GPU makes it sick: a probe that fails for
// a reason of its own, or takes too long, proves nothing.
func (m *Manager) compute(ctx context.Context, l Lease, h remote.Health) (found string, _ remote.Health) {
	if h.Simulated || l.GPUs == 0 {
		return "not asked", h
	}
	ctx, cancel := context.WithTimeout(ctx, probeCall)
	defer cancel()
	t, err := m.target(l)
	if err != nil {
		return "not asked", h
	}
	c, err := m.Machine.ProbeCUDA(ctx, t, l.GPUs)
	switch {
	case err != nil:
		m.log.Info("the CUDA probe did not work", "lease", l.ID, "err", err)
		return "not asked", h
	case c.Verdict == remote.CUDAFails:
		h.Healthy, h.Reason = false, fmt.Sprintf("CUDA (%s): %s", c.By, c.Detail)
		return "", h
	case c.Verdict == remote.CUDAComputes:
		return fmt.Sprintf("%d computing, by %s", c.GPUs, c.By), h
	}
	m.log.Info("whether the GPUs compute is not known", "lease", l.ID, "why", c.Detail)
	return "not asked", h
}

// errUnsure says that the time is not certain enough to date something by it.
var errUnsure = errors.New("the time is in doubt")

// becomeReady starts the lease's time. It never gives more time than is
// reserved: a machine that comes up after its boot allowance is ended.
func (m *Manager) becomeReady(ctx context.Context, l Lease, h remote.Health, computes string) error {
	if err := m.askTime(ctx); err != nil {
		return errUnsure
	}
	now := m.now()
	if waited := now.Sub(l.began()); waited >= l.BootAllowance {
		_, err := m.stop(ctx, l.ID, NeverReady, fmt.Sprintf("it came up after its boot allowance of %s", l.BootAllowance))
		return err
	}
	l.State, l.ReadyAt, l.Deadline = Ready, now, now.Add(l.TTL)
	l.Detail = "ready"
	if strings.Contains(computes, "computing") {
		l.Detail = "ready (GPUs " + computes + ")"
	}
	if h.Simulated {
		l.Detail = "ready (a simulated machine: its nvidia-smi is emulated)"
	}
	// What is left of the boot allowance will not be needed.
	if booted := now.Sub(l.LaunchSentAt); booted > 0 {
		l.Reserved = min(l.Reserved, l.Price.For(booted+l.TTL+l.StopAllowance))
	}
	m.Crash("readying")
	if _, err := m.Store.Update(ctx, l, "ready"); err != nil {
		return err
	}
	m.Crash("ready")
	m.log.Info("ready", "lease", l.ID, "deadline", l.Deadline)
	return nil
}
