package lease_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
)

// The agent ran out of quota while its job hung, and nobody ended the machine for two days. Then
// the machine shut itself down, and that did not end the bill.
func TestIncidentShutdownOfTheMachineDidNotEndTheBill(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: 2 * time.Hour})
	l = k.untilState(l.ID, lease.Ready)
	k.machine.does(func(m *machine) { m.activity.RunningJobs, m.blind = 1, true })
	k.pass(2, time.Second)
	require.NoError(t, k.sim.Become(l.InstanceID, lambdatest.Unhealthy)) // nobody at the SSH port any more
	k.pass(60, time.Minute)
	got := k.get(l.ID)
	require.Equal(t, lease.Ready, got.State)
	require.Len(t, k.sim.Running(), 1)
	require.Greater(t, k.bill(), l.Price.For(59*time.Minute), "the cloud bills on")
	require.GreaterOrEqual(t, got.CostAt(k.sim.Now()), k.bill(), "and so do we count")
	got = k.over(l.ID)
	require.Equal(t, lease.Deadline, got.Reason, "with nobody there")
	k.settled(got)
}

// The time to live was only a label; automatic stops were silently without effect, because the
// credentials had become invalid. Here the key is revoked and comes back after the deadline.
func TestIncidentGuardWithoutValidCredentials(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: time.Hour})
	k.untilState(l.ID, lease.Ready)
	k.pass(36, 5*time.Second)
	warnings := func() string { return strings.Join(k.m.Status(t.Context(), k.get(l.ID)).Warnings, "\n") }
	require.NotContains(t, warnings(), "not shown")
	id := k.sim.Inject(lambdatest.Fault{Op: "*", Code: lambdatest.CodeInvalidKey})
	k.pass(4*60, 5*time.Second)
	require.Positive(t, k.sim.Hits(id))
	require.Contains(t, k.m.Status(t.Context(), k.get(l.ID)).Guard, "server", "a guard is there")
	require.Regexp(t, regexp.MustCompile(`the cloud has not shown this machine for \d+ min`), warnings(), "and can do nothing, which has to be said before the deadline")

	k.pass(90, time.Minute)
	got := k.get(l.ID)
	require.Equal(t, lease.Stopping, got.State)
	require.Len(t, k.sim.Running(), 1)
	require.Contains(t, got.Detail, "STOP NOT CONFIRMED, still billing")
	require.Contains(t, warnings(), "stop not confirmed")
	require.GreaterOrEqual(t, k.usage().Lifetime, k.bill(), "the overrun counts")
	k.sim.Remove(id)
	k.settled(k.over(l.ID))
}

// Nobody said that the process that should end the machine was not there.
func TestIncidentNobodyNoticedThatTheGuardWasGone(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: 2 * time.Hour})
	k.untilState(l.ID, lease.Ready)
	k.halt()
	k.sim.Advance(time.Minute)
	m, err := lease.New(lease.Config{
		Store: k.db, Cloud: k.client(k.sim.APIKey()), Machine: k.machine, Keys: k.keys, Policy: k.policy, Now: k.sim.Now, Rand: strings.NewReader(""),
	})
	require.NoError(t, err)
	s := m.Status(t.Context(), k.get(l.ID))
	require.Equal(t, "none", s.Guard)
	require.Contains(t, strings.Join(s.Warnings, "\n"), "nobody enforces this lease's deadline")
}

// The cloud's proxy turns us away for twenty minutes around the deadline. The lease ends by our
// own clock, and its machine as soon as we are let in again.
func TestProxyTurnsUsAwayAroundTheDeadline(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: time.Hour})
	l = k.untilState(l.ID, lease.Ready)
	for k.sim.Now().Before(l.Deadline.Add(-10 * time.Minute)) {
		k.pass(1, 30*time.Second)
	}
	id := k.sim.Inject(lambdatest.Fault{Op: "*", Status: 403, Body: lambdatest.BodyHTML, Until: 20 * time.Minute})
	for k.sim.Now().Before(l.Deadline.Add(-30 * time.Second)) {
		k.pass(1, 20*time.Second)
		require.Equal(t, lease.Ready, k.get(l.ID).State, "a refusal is no end")
	}
	k.pass(9*3, 20*time.Second)
	require.Greater(t, k.sim.Hits(id), 10)
	require.Equal(t, lease.Stopping, k.get(l.ID).State)
	require.Len(t, k.sim.Running(), 1)
	l = k.over(l.ID)
	require.Equal(t, lease.Deadline, l.Reason)
	require.Less(t, l.EndedAt.Sub(l.Deadline), 20*time.Minute)
	k.settled(l)
}

// A heartbeat had to come within a minute, the cloud took almost two, and leases in use were
// killed. Here each listing takes longer than we wait for one, and the machine answers nothing.
func TestIncidentSlowCloudKilledLeasesInUse(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, enforceIdle)
	l := k.launch(lease.LaunchRequest{TTL: 4 * time.Hour})
	k.untilState(l.ID, lease.Ready)
	k.machine.does(func(m *machine) { m.blind = true })
	id := k.sim.Inject(lambdatest.Fault{Op: "*", Delay: 107 * time.Second})
	for range 3 * 60 {
		k.pass(1, time.Minute)
		require.Equal(t, lease.Ready, k.get(l.ID).State)
	}
	require.Greater(t, k.sim.Hits(id), 10)
	k.sim.Remove(id)
	k.machine.does(func(m *machine) {
		m.blind, m.activity = false, remote.Activity{SinceJobEnd: -1, RunningJobs: 1, GPUKnown: true, GPUs: idleNow().GPUs}
	})
	got := k.over(l.ID)
	require.Equal(t, lease.Deadline, got.Reason)
	k.settled(got)
}

// A person tidies up in the console: the machine gets another name, its tags and the SSH key go. The
// lease knows its machine by its id, and ends it.
func TestPersonTidiesUpInTheConsole(t *testing.T) {
	t.Parallel()
	for name, tags := range map[string]bool{"the tag is kept": true, "name and tag are gone": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p proxy
			k := newKit(t, p.config(lambdatest.Config{}))
			l := k.launch(lease.LaunchRequest{TTL: time.Hour})
			l = k.untilState(l.ID, lease.Ready)
			c := k.client(k.sim.APIKey())
			_, err := c.RenameInstance(t.Context(), l.InstanceID, "do not delete")
			require.NoError(t, err)
			if !tags {
				p.set(func(_ *http.Request, status int, body string) (int, string) {
					return status, strings.ReplaceAll(body, l.Name, "nothing")
				})
			}
			keys, err := c.SSHKeys(t.Context())
			require.NoError(t, err)
			require.Len(t, keys, 1)
			require.NoError(t, c.DeleteSSHKey(t.Context(), keys[0].ID))
			k.pass(10, time.Minute)
			require.Equal(t, lease.Ready, k.get(l.ID).State)
			require.Empty(t, k.m.Notices(t.Context()), "it is not taken for somebody else's")

			r, err := lease.Reaper{Cloud: c, Now: k.sim.Now, Poll: time.Millisecond}.Reap(t.Context())
			require.NoError(t, err)
			if tags {
				require.Len(t, r.Alive, 1, "the tag says it once more")
			} else {
				require.Equal(t, 1, r.Others, "without both, nothing proves that it is ours")
			}
			l = k.over(l.ID)
			require.Equal(t, lease.Deadline, l.Reason)
			k.settled(l)
		})
	}
}

// A person gives one lease's machine the name of another's. Both are in use, and stay so.
func TestMachineWithTheNameOfAnotherLease(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	a := k.launch(lease.LaunchRequest{TTL: time.Hour})
	b := k.launch(lease.LaunchRequest{TTL: time.Hour})
	a, b = k.untilState(a.ID, lease.Ready), k.untilState(b.ID, lease.Ready)
	_, err := k.client(k.sim.APIKey()).RenameInstance(t.Context(), b.InstanceID, a.Name)
	require.NoError(t, err)
	k.pass(20, time.Minute)
	require.Len(t, k.sim.Running(), 2)
	require.Equal(t, lease.Ready, k.get(a.ID).State)
	require.Equal(t, lease.Ready, k.get(b.ID).State)
	a, b = k.over(a.ID), k.over(b.ID)
	require.Empty(t, k.sim.Running())
	require.GreaterOrEqual(t, a.Cost+b.Cost, k.bill())
}

// A page of the listing repeats a machine of ours, once as it was and once as it is.
func TestListingThatContradictsItself(t *testing.T) {
	t.Parallel()
	var p proxy
	k := newKit(t, p.config(lambdatest.Config{}))
	l := k.launch(lease.LaunchRequest{TTL: time.Hour})
	k.untilState(l.ID, lease.Ready)
	p.set(func(r *http.Request, status int, body string) (int, string) {
		if !strings.HasSuffix(r.URL.Path, "/instances") || !strings.HasPrefix(body, `{"data":[{`) {
			return status, body
		}
		one := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(body), `{"data":[`), `]}`)
		return status, `{"data":[` + strings.Replace(one, `"status":"active"`, `"status":"terminated"`, 1) + "," + one + `]}`
	})
	k.pass(10, time.Minute)
	require.Positive(t, p.edited())
	require.Len(t, k.sim.Running(), 1)
	require.Equal(t, lease.Ready, k.get(l.ID).State, "what may be billed counts as that")
	p.set(nil)
	k.settled(k.over(l.ID))
}

// The price is missing from every listing, or nonsense. What was agreed counts.
func TestListingWithoutAPrice(t *testing.T) {
	t.Parallel()
	price := regexp.MustCompile(`"price_cents_per_hour":\d+`)
	for name, instead := range map[string]string{"missing": `"other":0`, "zero": `"price_cents_per_hour":0`, "negative": `"price_cents_per_hour":-5000`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p proxy
			k := newKit(t, p.config(lambdatest.Config{}))
			l := k.launch(lease.LaunchRequest{TTL: 20 * time.Minute})
			c, err := k.m.Capacity(t.Context())
			require.NoError(t, err)
			_, err = k.sim.Launch(lambdatest.Order{Type: testType, Region: c.Offers[0].Regions[0], Name: "somebody-elses"})
			require.NoError(t, err)
			p.set(func(r *http.Request, status int, body string) (int, string) {
				if !strings.Contains(r.URL.Path, "/instances") {
					return status, body
				}
				return status, price.ReplaceAllString(body, instead)
			})
			l = k.untilState(l.ID, lease.Ready)
			k.pass(5, time.Minute)
			require.Positive(t, p.edited())
			s, err := k.m.Spend(t.Context(), "")
			require.NoError(t, err)
			require.Len(t, s.Strangers, 1)
			require.Equal(t, policy.Cents(129), s.Strangers[0].Price, "by the catalogue")
			require.GreaterOrEqual(t, s.Usage.Untracked.Day, policy.Cents(129).For(5*time.Minute))
			l = k.over(l.ID)
			require.Equal(t, lease.Deadline, l.Reason)
			require.GreaterOrEqual(t, l.Cost, l.Price.For(20*time.Minute))
		})
	}
}

// A machine is started anew while it boots for us: it is billed since it was healthy first.
func TestMachineThatBootsASecondTime(t *testing.T) {
	t.Parallel()
	var p proxy
	k := newKit(t, p.config(lambdatest.Config{}))
	k.setWrongKey(true)
	l := k.launch(lease.LaunchRequest{})
	for len(k.sim.Running()) == 0 || k.sim.Running()[0].FirstHealthy.IsZero() {
		k.pass(1, 5*time.Second)
	}
	k.pass(12, 5*time.Second) // seen as active
	p.set(replacing("/instances", `"status":"active"`, `"status":"booting"`))
	k.pass(5*12, 5*time.Second)
	require.Positive(t, p.edited())
	p.set(nil)
	k.setWrongKey(false)
	l = k.untilState(l.ID, lease.Ready)
	_, err := k.m.Stop(t.Context(), l.ID)
	require.NoError(t, err)
	k.settled(k.over(l.ID))
}
