package lease_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
)

func enforceIdle(k *kit) {
	k.policy.p.IdleMode, k.policy.p.IdleTimeout, k.policy.p.MaxTTL = policy.IdleEnforce, 30*time.Minute, 8*time.Hour
}

// idleKit has a ready lease of eight hours.
func idleKit(t *testing.T, change ...func(*kit)) (*kit, lease.Lease) {
	k := newKit(t, lambdatest.Config{}, append([]func(*kit){enforceIdle}, change...)...)
	l := k.launch(lease.LaunchRequest{TTL: 8 * time.Hour})
	return k, k.untilState(l.ID, lease.Ready)
}

// sampled lets so much time pass that the machine is looked at once more, and
// waits for that look: on a busy computer virtual time would run away from it.
func (k *kit) sampled(id lease.ID) lease.Lease {
	k.t.Helper()
	looks := func() (n int) {
		k.machine.does(func(m *machine) { n = m.looks })
		return n
	}
	before := looks()
	k.sim.Advance(35 * time.Second)
	if k.get(id).State == lease.Ready && k.policy.p.IdleMode != policy.IdleOff {
		// Where the cloud does not answer, nobody looks.
		patience := 400 * time.Millisecond
		if raceEnabled {
			patience *= 4
		}
		for limit := time.Now().Add(patience); looks() == before && k.get(id).State == lease.Ready && time.Now().Before(limit); {
			time.Sleep(time.Millisecond)
		}
	}
	k.breathe()
	return k.get(id)
}

// alive lets time pass in small steps and checks that the lease lives on.
func (k *kit) alive(id lease.ID, d time.Duration) {
	k.t.Helper()
	for range int(d / (35 * time.Second)) {
		l := k.sampled(id)
		require.Equal(k.t, lease.Ready, l.State, "%s: %s", l.Reason, l.Detail)
	}
}

// untilIdle lets time pass until the lease is not ready any more.
func (k *kit) untilIdle(id lease.ID) lease.Lease {
	k.t.Helper()
	for range 80 {
		if l := k.sampled(id); l.State != lease.Ready {
			return l
		}
	}
	require.FailNow(k.t, "it is not ended for being idle")
	return lease.Lease{}
}

func TestIdleLeaseIsEnded(t *testing.T) {
	t.Parallel()
	k, l := idleKit(t)
	k.alive(l.ID, 28*time.Minute)
	s := k.m.Status(t.Context(), k.get(l.ID))
	require.Contains(t, strings.Join(s.Warnings, "\n"), "idle_timeout")
	k.untilIdle(l.ID)
	got := k.untilState(l.ID, lease.Ended)
	require.Equal(t, lease.Idle, got.Reason)
	require.GreaterOrEqual(t, got.StopAt.Sub(l.ReadyAt), 30*time.Minute)
	require.Less(t, got.StopAt.Sub(l.ReadyAt), 35*time.Minute)
	k.settled(got)
}

func TestWhatIsInUseIsNotIdle(t *testing.T) {
	t.Parallel()
	busy := map[string]func(*remote.Activity){
		"a job":                 func(a *remote.Activity) { a.RunningJobs = 1 },
		"a person at a shell":   func(a *remote.Activity) { a.Logins = 1 },
		"a GPU at work":         func(a *remote.Activity) { a.GPUs[0].UtilPercent = 6 },
		"memory held":           func(a *remote.Activity) { a.GPUs[0].MemoryUsedMiB = 22_000 },
		"GPUs that say nothing": func(a *remote.Activity) { a.GPUKnown = false },
		"a GPU that is missing": func(a *remote.Activity) { a.GPUs = nil },
	}
	for name, change := range busy {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, l := idleKit(t, func(k *kit) { change(&k.machine.activity) })
			k.alive(l.ID, 45*time.Minute)
			require.True(t, k.get(l.ID).IdleSince.IsZero())
		})
	}
}

// The window begins with the end of the last job, or with the first look that told something.
func TestIdleTimeBeginsWhenTheLastJobEnds(t *testing.T) {
	t.Parallel()
	k, l := idleKit(t, func(k *kit) { k.machine.activity.RunningJobs = 1 })
	k.alive(l.ID, 45*time.Minute)
	k.machine.does(func(m *machine) { m.activity = idleNow() })
	k.alive(l.ID, 28*time.Minute)
	k.machine.does(func(m *machine) { m.activity.SinceJobEnd = time.Second }) // a short job in between, which no look has seen running
	was := k.get(l.ID).IdleSince
	k.untilBy(l.ID, "it was seen", 5*time.Second, func(l lease.Lease) bool { return l.IdleSince.After(was) })
	k.machine.does(func(m *machine) { m.activity.SinceJobEnd = -1 }) // it has forgotten; the beginning must not move back
	k.alive(l.ID, 9*time.Minute)
	got := k.untilIdle(l.ID)
	require.Equal(t, lease.Idle, got.Reason)
}

// A machine that cannot be looked at is not idle, and what nobody has seen does
// not count: after an outage the window begins anew.
func TestOutageOfTheMetricsIsNotIdleness(t *testing.T) {
	t.Parallel()
	k, l := idleKit(t)
	k.alive(l.ID, 20*time.Minute)
	k.machine.does(func(m *machine) { m.blind = true })
	k.alive(l.ID, 60*time.Minute)
	k.machine.does(func(m *machine) { m.blind = false })
	k.alive(l.ID, 28*time.Minute)
	k.untilIdle(l.ID)
}

func TestUseThatTheMachineCannotShow(t *testing.T) {
	t.Parallel()
	k, l := idleKit(t)
	for range 4 { // files are sent, a port is forwarded
		k.alive(l.ID, 20*time.Minute)
		require.NoError(t, k.db.Touch(t.Context(), l.ID, k.sim.Now()))
	}
	k.alive(l.ID, 28*time.Minute)
	k.untilIdle(l.ID)
}

func TestIdleModesThatDoNotEnd(t *testing.T) {
	t.Parallel()
	k, l := idleKit(t, func(k *kit) { k.policy.p.IdleMode = policy.IdleWarn })
	k.alive(l.ID, 45*time.Minute)
	s := k.m.Status(t.Context(), k.get(l.ID))
	require.Contains(t, strings.Join(s.Warnings, "\n"), "nothing has used the machine for")

	k, l = idleKit(t, func(k *kit) { k.policy.p.IdleMode = policy.IdleOff })
	k.alive(l.ID, 45*time.Minute)
	require.True(t, k.get(l.ID).IdleSince.IsZero(), "nobody looks")
}

// The process that watched is gone; the next one knows only what it sees.
func TestIdlenessOverARestart(t *testing.T) {
	t.Parallel()
	k, l := idleKit(t)
	k.alive(l.ID, 28*time.Minute)
	k.halt()
	k.sim.Advance(2 * time.Hour) // a laptop that slept must not take its sleep for idleness
	k.start(k.client(k.sim.APIKey()))
	k.alive(l.ID, 28*time.Minute)
	k.untilIdle(l.ID)
}
