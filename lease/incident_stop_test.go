package lease_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
)

// The network went away during the deletion, and the machine was marked as deleted; a deletion
// that failed was reported as done because the listing failed, too; the answer could not be read.
func TestIncidentMarkedAsEndedWithoutHavingEnded(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]lambdatest.Fault{
		"no network":        {Op: "*", Cut: lambdatest.CutBefore, Until: 20 * time.Minute},
		"everything is 503": {Op: "*", Status: 503, Until: 20 * time.Minute},
		"403 page":          {Op: "*", Status: 403, Body: lambdatest.BodyHTML, Until: 20 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{})
			l := k.launch(lease.LaunchRequest{TTL: 2 * time.Hour})
			k.untilState(l.ID, lease.Ready)
			id := k.sim.Inject(fault)
			stopped, err := k.m.Stop(t.Context(), l.ID)
			require.NoError(t, err)
			require.Equal(t, lease.Stopping, stopped.State)
			k.until(l.ID, "says so", func(l lease.Lease) bool { return strings.Contains(l.Detail, "STOP NOT CONFIRMED, still billing") })
			k.pass(19, time.Minute)
			require.Len(t, k.sim.Running(), 1, "it runs on")
			require.Greater(t, k.sim.Hits(id), 2)
			got := k.get(l.ID)
			require.Equal(t, lease.Stopping, got.State)
			require.Contains(t, strings.Join(k.m.Status(t.Context(), got).Warnings, " "), "stop not confirmed")
			require.Contains(t, strings.Join(k.m.Notices(t.Context()), " "), "STOP NOT CONFIRMED for lease "+string(l.ID))
			got = k.over(l.ID)
			require.Less(t, got.EndedAt.Sub(stopped.StopAt), 30*time.Minute, "soon after the network came back")
			k.settled(got)
		})
	}
	t.Run("an answer that is not JSON", func(t *testing.T) {
		t.Parallel()
		var p proxy
		k := newKit(t, p.config(lambdatest.Config{}))
		l := k.launch(lease.LaunchRequest{})
		k.untilState(l.ID, lease.Ready)
		p.set(func(r *http.Request, status int, body string) (int, string) {
			if strings.HasSuffix(r.URL.Path, "/terminate") {
				return 200, "<html>signed in</html>"
			}
			return status, body
		})
		_, err := k.m.Stop(t.Context(), l.ID)
		require.NoError(t, err)
		require.Empty(t, k.sim.Running(), "it was ended, and we could not read that")
		require.Equal(t, 1, p.edited())
		k.settled(k.over(l.ID))
	})
}

// A stop of a machine that was gone failed for ever, and its usage went on being counted.
func TestIncidentStopOfWhatWasGoneFailedForEver(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{TerminateTime: -1, Linger: -1}) // a 404 from the first moment on
	l := k.launch(lease.LaunchRequest{TTL: 2 * time.Hour})
	l = k.untilState(l.ID, lease.Ready)
	require.NoError(t, k.sim.Terminate(l.InstanceID))
	for range 3 {
		_, err := k.m.Stop(t.Context(), l.ID)
		require.NoError(t, err)
	}
	got := k.over(l.ID)
	k.settled(got)
	k.sim.Advance(24 * time.Hour)
	again, err := k.m.Stop(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, got, again)
	require.Equal(t, got.Cost, k.usage().Lifetime, "nothing is counted any more")
}

// Whoever works on a machine that is gone hears so before its absence is believed.
func TestMachineThatIsNotListedIsSaidToBe(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{TerminateTime: -1, Linger: -1})
	l := k.launch(lease.LaunchRequest{TTL: 2 * time.Hour})
	l = k.untilState(l.ID, lease.Ready)
	const said = "the cloud has not listed this machine since "
	require.NotContains(t, strings.Join(k.m.Status(t.Context(), l).Warnings, "\n"), said)
	require.NoError(t, k.sim.Terminate(l.InstanceID))
	l = k.until(l.ID, "missed once", func(l lease.Lease) bool { return l.Missing > 0 })
	require.Equal(t, lease.Ready, l.State, "one listing may be behind")
	require.Contains(t, strings.Join(k.m.Status(t.Context(), l).Warnings, "\n"), said)
	k.machine.fetch = func(context.Context, []string, string) (remote.FetchSummary, error) {
		return remote.FetchSummary{}, remote.ErrUnreachable
	}
	_, _, err := k.m.Fetch(t.Context(), l.ID, []string{"out"}, t.TempDir(), remote.FetchOptions{})
	var e *lease.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, lease.CodeSSHUnreachable, e.Code)
	require.Contains(t, e.Message, said)
	require.Contains(t, e.Next, "get_lease")
	k.settled(k.over(l.ID))
}

// A machine in use that the cloud calls unhealthy is billed on. Whoever works on it hears so, and
// that it is well again; it is not ended, since what is on it may still be wanted.
func TestMachineInUseThatTheCloudCallsUnhealthyIsSaidToBe(t *testing.T) {
	t.Parallel()
	var p proxy
	k := newKit(t, p.config(lambdatest.Config{}))
	l := k.launch(lease.LaunchRequest{TTL: 2 * time.Hour})
	l = k.untilState(l.ID, lease.Ready)
	const said = "the cloud calls the machine unhealthy"
	before := l.Detail
	warnings := func() string { return strings.Join(k.m.Status(t.Context(), l).Warnings, "\n") }
	require.NotContains(t, warnings(), said)
	p.set(func(_ *http.Request, status int, body string) (int, string) {
		return status, strings.ReplaceAll(body, `"active"`, `"unhealthy"`)
	})
	l = k.until(l.ID, "called unhealthy", func(l lease.Lease) bool { return strings.HasSuffix(l.Detail, said) })
	require.Equal(t, lease.Ready, l.State)
	require.Contains(t, warnings(), said)
	p.set(nil)
	l = k.until(l.ID, "well again", func(l lease.Lease) bool { return l.Detail == before })
	require.NotContains(t, warnings(), said)
}

// A machine that was ending already could not be ended: the call was an error, and the
// program took that for a failure of its own.
func TestIncidentMachineThatWasTerminatingCouldNotBeTerminated(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*proxy) func(*http.Request, int, string) (int, string){
		"an error of no known kind": nil,
		"404": func(*proxy) func(*http.Request, int, string) (int, string) {
			return func(r *http.Request, status int, body string) (int, string) {
				if strings.HasSuffix(r.URL.Path, "/terminate") {
					return 404, `{"error":{"code":"global/object-does-not-exist","message":"Specified instance does not exist."}}`
				}
				return status, body
			}
		},
	}
	for name, edit := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p proxy
			k := newKit(t, p.config(lambdatest.Config{TerminateOnce: true, TerminateTime: 10 * time.Minute}))
			l := k.launch(lease.LaunchRequest{TTL: 2 * time.Hour})
			l = k.untilState(l.ID, lease.Ready)
			require.NoError(t, k.sim.Terminate(l.InstanceID))
			if edit != nil {
				p.set(edit(&p))
			}
			_, err := k.m.Stop(t.Context(), l.ID)
			require.NoError(t, err)
			k.pass(9, time.Minute)
			require.Equal(t, lease.Stopping, k.get(l.ID).State, "the cloud still shows it")
			k.settled(k.over(l.ID))
		})
	}
}

// Listings that are behind lack the machine, and asking for it by its id fails. It is
// billed until we end it, whatever was missing before.
func TestEndIsNotDatedBeforeItHappened(t *testing.T) {
	t.Parallel()
	type end struct {
		name   string
		asking lambdatest.Fault // what asking for it by its id gives
		end    func(*kit, lease.Lease)
	}
	for _, tt := range []end{
		{"by us", lambdatest.Fault{Op: lambdatest.OpGetInstance, Status: 500}, func(k *kit, l lease.Lease) {
			_, err := k.m.Stop(k.t.Context(), l.ID)
			require.NoError(k.t, err)
		}},
		{"by somebody else", lambdatest.Fault{Op: lambdatest.OpGetInstance, Status: 500}, func(k *kit, l lease.Lease) {
			require.NoError(k.t, k.sim.Terminate(l.InstanceID))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{TerminateTime: -1, Linger: -1})
			l := k.launch(lease.LaunchRequest{TTL: 4 * time.Hour})
			l = k.untilState(l.ID, lease.Ready)
			k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpListInstances, Omit: "*"})
			id := k.sim.Inject(tt.asking)
			k.pass(30, time.Minute)
			require.Len(t, k.sim.Running(), 1)
			require.Positive(t, k.get(l.ID).Missing, "it is missing from the listings")
			require.Positive(t, k.sim.Hits(id))
			tt.end(k, l)
			require.Empty(t, k.sim.Running())
			k.sim.Remove(id)
			got := k.over(l.ID)
			require.GreaterOrEqual(t, got.Cost, k.bill(), "settled below the bill")
		})
	}
}

// The lease has ended, by all that the cloud said, and its machine runs again. Nobody has
// another lease, and the first try to end it fails.
func TestIncidentMachineCameBackToLife(t *testing.T) {
	t.Parallel()
	var p proxy
	k := newKit(t, p.config(lambdatest.Config{}))
	l := k.launch(lease.LaunchRequest{TTL: 4 * time.Hour})
	l = k.untilState(l.ID, lease.Ready)
	p.set(replacing("/instances", `"status":"active"`, `"status":"terminated"`))
	l = k.over(l.ID)
	p.set(nil)
	require.Len(t, k.sim.Running(), 1, "it runs")
	failing := k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpTerminate, Count: 1, Status: 500})
	for end := k.sim.Now().Add(61 * time.Minute); k.sim.Now().Before(end) && k.sim.Hits(failing) == 0; {
		k.pass(1, 20*time.Second)
	}
	require.Equal(t, 1, k.sim.Hits(failing), "it was found")
	k.pass(15, 20*time.Second)
	require.Empty(t, k.sim.Running(), "one failure must not leave it alone for an hour")
	require.GreaterOrEqual(t, k.usage().Lifetime, k.bill(), "the ledger has less than the cloud's bill")
}

// The hard stop passes while results are brought home and while ending fails. From then on
// nothing waits for the results any more.
func TestHardStopPassesWhileStopping(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, func(k *kit) { k.timing.Rescue = 3 * time.Hour })
	k.change(func(p *policy.Policy) { p.MaxTTL = time.Hour })
	k.machine.does(func(m *machine) { m.blind = true })
	l := k.launch(lease.LaunchRequest{TTL: time.Hour, Results: []string{"model.pt"}, ResultsDir: t.TempDir()})
	l = k.untilState(l.ID, lease.Ready)
	l.Home = "another computer" // which is off: nobody brings the results
	_, err := k.db.Update(t.Context(), l, "moved for the test")
	require.NoError(t, err)
	_, err = k.m.Stop(t.Context(), l.ID)
	require.NoError(t, err)
	for k.sim.Now().Add(30 * time.Second).Before(l.HardStop) {
		k.pass(1, 20*time.Second)
		require.Len(t, k.sim.Running(), 1)
	}
	k.pass(6, 20*time.Second)
	require.Empty(t, k.sim.Running())
	k.settled(k.over(l.ID))
}
