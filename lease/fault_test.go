package lease_test

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// The launch call's answer is lost in every way that there is. Whatever was
// done is found again; nothing is launched twice.
func TestLostAnswerOfALaunchThatHappened(t *testing.T) {
	t.Parallel()
	tests := map[string]lambdatest.Fault{
		"connection cut":           {Cut: lambdatest.CutAfter},
		"half an answer":           {Cut: lambdatest.CutMid},
		"hang":                     {Hang: -1, AfterWork: true},
		"500":                      {Status: 500, AfterWork: true},
		"502 page":                 {Status: 502, Body: lambdatest.BodyHTML, AfterWork: true},
		"429":                      {Status: 429, AfterWork: true},
		"403 of the proxy":         {Status: 403, Body: lambdatest.BodyText, AfterWork: true},
		"cut and late to appear":   {Cut: lambdatest.CutAfter, LateBy: 3 * time.Minute},
		"cut, unlisted, tags lost": {Cut: lambdatest.CutAfter, UnlistedFor: 2 * time.Minute, DropTags: true},
	}
	for name, fault := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{})
			fault.Op, fault.Count = lambdatest.OpLaunch, 1
			k.sim.Inject(fault)
			l := k.launch(lease.LaunchRequest{IdempotencyKey: "once"})
			require.Contains(t, []lease.State{lease.Launching, lease.Booting}, l.State, "unknown, or found already")
			require.Equal(t, l.Reserved, k.usage().Day, "the reservation is held while the outcome is unknown")
			require.Equal(t, l.ID, k.launch(lease.LaunchRequest{IdempotencyKey: "once"}).ID)

			l = k.untilState(l.ID, lease.Ready)
			require.Equal(t, 1, k.sim.LaunchCount(), "never a second launch")
			require.Equal(t, k.sim.Running()[0].ID, l.InstanceID)
			_, err := k.m.Stop(t.Context(), l.ID)
			require.NoError(t, err)
			k.settled(k.untilState(l.ID, lease.Ended))
		})
	}
}

func TestLostAnswerOfALaunchThatDidNotHappen(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]lambdatest.Fault{
		"connection cut": {Cut: lambdatest.CutBefore},
		"500":            {Status: 500},
		"429":            {Status: 429},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{})
			fault.Op, fault.Count = lambdatest.OpLaunch, 1
			k.sim.Inject(fault)
			l := k.launch(lease.LaunchRequest{})
			require.Equal(t, lease.Launching, l.State)
			sent := k.get(l.ID).LaunchSentAt
			l = k.untilBy(l.ID, "proven absent", 5*time.Second, func(l lease.Lease) bool {
				require.True(t, l.State == lease.Ended || l.Reserved > 0, "the reservation is held until then")
				return l.State == lease.Ended
			})
			require.Equal(t, lease.Refused, l.Reason)
			require.GreaterOrEqual(t, l.EndedAt.Sub(sent), 10*time.Minute, "absence proves nothing before the settling time")
			require.Zero(t, l.Cost)
			k.settled(l)
		})
	}
}

// A stop that is asked for while nobody knows whether there is an instance ends
// the instance as soon as it shows.
func TestStopOfALostLaunch(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpLaunch, Count: 1, Cut: lambdatest.CutAfter, LateBy: 4 * time.Minute})
	l := k.launch(lease.LaunchRequest{})
	_, err := k.m.Stop(t.Context(), l.ID)
	require.NoError(t, err)
	k.sim.Advance(3 * time.Minute)
	require.Equal(t, lease.Stopping, k.get(l.ID).State)
	l = k.untilState(l.ID, lease.Ended)
	require.Equal(t, lease.Stopped, l.Reason)
	require.NotEmpty(t, l.InstanceID)
	k.settled(l)
}

func TestProvenRefusals(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		fault  lambdatest.Fault
		code   lease.Code
		reason lease.Reason
	}{
		{"capacity gone", lambdatest.Fault{NoCapacity: true}, lease.CodeNoCapacity, lease.NoCapacity},
		{"quota", lambdatest.Fault{Code: lambdatest.CodeQuotaExceeded}, lease.CodeQuotaExceeded, lease.Refused},
		{"account inactive", lambdatest.Fault{Code: lambdatest.CodeAccountInactive}, lease.CodeAccountBlocked, lease.Refused},
		{"bad key", lambdatest.Fault{Code: lambdatest.CodeInvalidKey}, lease.CodeBadAPIKey, lease.Refused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{})
			tt.fault.Op = lambdatest.OpLaunch
			k.sim.Inject(tt.fault)
			l, err := k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType})
			require.Equal(t, tt.code, lease.CodeOf(err), "%v", err)
			require.Equal(t, lease.Ended, l.State, "proven: the reservation is free at once")
			require.Equal(t, tt.reason, l.Reason)
			require.Zero(t, k.usage().Day)
			k.settled(l)
		})
	}
}

func TestNextRegionWhenTheFirstHasNoneLeft(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	c, err := k.m.Capacity(t.Context())
	require.NoError(t, err)
	typ := ""
	for _, o := range c.Offers {
		if o.Allowed && len(o.Regions) > 1 {
			typ = o.Type
			break
		}
	}
	require.NotEmpty(t, typ, "the catalogue has a type that is free in two regions")
	k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpLaunch, Count: 1, NoCapacity: true})
	l := k.launch(lease.LaunchRequest{Type: typ})
	require.Equal(t, lease.Booting, l.State)
	require.Len(t, k.sim.Running(), 1)
	require.Equal(t, k.sim.Running()[0].Region, l.Region)
}

// The answer to the registration of the key is lost; the key is there.
func TestLostAnswerOfTheKey(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpAddKey, Count: 1, Cut: lambdatest.CutAfter})
	l := k.launch(lease.LaunchRequest{})
	require.Equal(t, lease.Booting, l.State)
	require.Len(t, k.sim.Keys(), 1)
}

func TestKeyThatCannotBeRegistered(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpAddKey, Count: 1, Cut: lambdatest.CutBefore})
	l, err := k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType})
	require.Equal(t, lease.CodeCloudUnavailable, lease.CodeOf(err), "%v", err)
	require.ErrorContains(t, err, "the cloud could not be reached, or did not answer")
	require.Zero(t, k.sim.LaunchCount())
	k.settled(l)
}

// A process dies at a named point; the next one finds everything in the ledger
// and in the account.
func TestDeathAtEveryPointOfALease(t *testing.T) {
	t.Parallel()
	launchPoints := []string{"reserved", "key-added", "launch-marked", "launch-sent", "bound", "ready"}
	stopPoints := []string{"stopping", "stop-written", "terminating", "terminate-sent", "gone", "settling", "settled"}
	for _, point := range append(launchPoints, stopPoints...) {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{}, func(k *kit) { k.timing.LaunchCall = 300 * time.Millisecond })
			doomed, died, _ := k.doomed(func(p string) bool { return p == point })
			go func() {
				l, err := doomed.Launch(t.Context(), lease.LaunchRequest{Type: testType, TTL: 20 * time.Minute})
				if err == nil {
					for {
						got, err := doomed.Wait(t.Context(), l.ID, time.Second, func(l lease.Lease) bool { return l.State == lease.Ready })
						if err != nil || got.State == lease.Ready {
							break
						}
					}
					_, _ = doomed.Stop(t.Context(), l.ID)
				}
			}()
			stop := make(chan struct{})
			moved := make(chan struct{})
			go func() { // time passes while it lives
				defer close(moved)
				for {
					select {
					case <-stop:
						return
					default:
						k.sim.Advance(time.Second)
						k.breathe()
					}
				}
			}()
			select {
			case <-died:
			case <-time.After(2 * time.Minute):
				all, _ := k.db.List(t.Context(), 0)
				require.Failf(t, "the point was never reached", "%+v", all)
			}
			close(stop)
			<-moved

			k.crash = nil
			k.start(k.client(k.sim.APIKey()))
			all, err := k.db.List(t.Context(), 0)
			require.NoError(t, err)
			require.Len(t, all, 1)
			l := k.untilBy(all[0].ID, "over", 10*time.Second, func(l lease.Lease) bool { return l.State == lease.Ended })
			require.LessOrEqual(t, k.sim.LaunchCount(), 1, "never a second launch")
			require.False(t, l.EndedAt.After(l.HardStop), "it ended by its hard stop")
			require.Zero(t, l.Reserved)
			require.Empty(t, k.sim.Running())
			require.GreaterOrEqual(t, l.Cost, policy.Money(k.sim.Bill().Total))
			// The key is swept even if the process died between the end and its removal.
			require.Eventually(t, func() bool { k.sim.Advance(time.Second); return len(k.sim.Keys()) == 0 }, 10*time.Second, 5*time.Millisecond)
		})
	}
}

// doomed is a manager that reconciles and dies at a point: whichever of its goroutines come there do nothing any more, until
// they are woken or the test is over.
func (k *kit) doomed(at func(point string) bool) (m *lease.Manager, died <-chan struct{}, wake func()) {
	k.halt()
	dead, arrived := make(chan struct{}), make(chan struct{}, 100)
	die := sync.OnceFunc(func() { k.unwatch(nil) })
	k.crash = func(p string) {
		if at(p) {
			die()
			arrived <- struct{}{}
			<-dead
		}
	}
	k.start(k.client(k.sim.APIKey()))
	wake = sync.OnceFunc(func() { close(dead) })
	bury := k.halt
	k.halt = func() {}
	k.t.Cleanup(func() { // before the manager is closed, which waits for them
		wake()
		bury()
	})
	return k.m, arrived, wake
}

func TestStopIsRetriedUntilConfirmed(t *testing.T) {
	t.Parallel()
	tests := map[string][]lambdatest.Fault{
		"terminate fails":          {{Op: lambdatest.OpTerminate, Count: 3, Status: 500}},
		"terminate is ignored":     {{Op: lambdatest.OpTerminate, Count: 2, Ignore: true}},
		"terminate cut after work": {{Op: lambdatest.OpTerminate, Count: 1, Cut: lambdatest.CutAfter}},
		"stuck in terminating":     {{Op: lambdatest.OpTerminate, Stuck: 5 * time.Minute}},
		"listing fails":            {{Op: lambdatest.OpListInstances, Count: 5, Status: 500}},
	}
	for name, faults := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{})
			l := k.launch(lease.LaunchRequest{})
			k.untilState(l.ID, lease.Ready)
			for _, f := range faults {
				k.sim.Inject(f)
			}
			_, err := k.m.Stop(t.Context(), l.ID)
			require.NoError(t, err)
			require.Equal(t, lease.Stopping, k.get(l.ID).State, "accepted is not confirmed")
			l = k.until(l.ID, "confirmed", func(l lease.Lease) bool {
				if l.State != lease.Ended {
					require.Positive(t, l.Reserved)
					require.Contains(t, strings.Join(k.m.Status(t.Context(), l).Warnings, " "), "not confirmed")
				}
				return l.State == lease.Ended
			})
			k.settled(l)
		})
	}
}

// One bad answer is no evidence: a lease in use is never ended by it.
func TestBadListingsDoNotEndALease(t *testing.T) {
	t.Parallel()
	faults := map[string]lambdatest.Fault{
		"empty list":  {Op: lambdatest.OpListInstances, Count: 4, Omit: "*"},
		"500":         {Op: lambdatest.OpListInstances, Count: 4, Status: 500},
		"403 page":    {Op: lambdatest.OpListInstances, Count: 4, Status: 403, Body: lambdatest.BodyHTML},
		"bad key":     {Op: lambdatest.OpListInstances, Count: 4, Code: lambdatest.CodeInvalidKey},
		"hang":        {Op: lambdatest.OpListInstances, Count: 1, Hang: 300 * time.Millisecond},
		"all answers": {Op: "*", Count: 6, Status: 503},
	}
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{})
			l := k.launch(lease.LaunchRequest{TTL: 2 * time.Hour})
			k.untilState(l.ID, lease.Ready)
			id := k.sim.Inject(f)
			k.untilBy(l.ID, "the fault has hit", 10*time.Second, func(lease.Lease) bool { return k.sim.Hits(id) >= f.Count })
			seen := k.sim.Now()
			l = k.untilBy(l.ID, "seen again", 10*time.Second, func(l lease.Lease) bool { return l.SeenAt.After(seen) })
			require.Equal(t, lease.Ready, l.State)
			require.Zero(t, l.Missing)
		})
	}
}

func TestInstanceThatGoesAwayByItself(t *testing.T) {
	t.Parallel()
	atOnce := lambdatest.Config{TerminateTime: -1, Linger: -1} // a 404 from the first moment on
	for name, tt := range map[string]struct {
		cfg lambdatest.Config
		end func(*kit, string) error
	}{
		"terminated by somebody": {lambdatest.Config{}, func(k *kit, id string) error { return k.sim.Terminate(id) }},
		"vanished":               {atOnce, func(k *kit, id string) error { return k.sim.Terminate(id) }},
		"preempted":              {lambdatest.Config{}, func(k *kit, id string) error { return k.sim.Become(id, lambdatest.Preempted) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, tt.cfg)
			l := k.launch(lease.LaunchRequest{TTL: 2 * time.Hour})
			l = k.untilState(l.ID, lease.Ready)
			require.NoError(t, tt.end(k, l.InstanceID))
			l = k.untilBy(l.ID, "gone", 5*time.Second, func(l lease.Lease) bool { return l.State == lease.Ended })
			require.Equal(t, lease.Gone, l.Reason)
			k.settled(l)
		})
	}
}

// A status that Lambda has never documented may be billed, so it counts as that.
func TestUnknownStatusCountsAsBilling(t *testing.T) {
	t.Parallel()
	var resting atomic.Bool
	k := newKit(t, lambdatest.Config{Wrap: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			body := rec.Body.String()
			if resting.Load() {
				body = strings.ReplaceAll(body, `"active"`, `"resting"`)
			}
			maps.Copy(w.Header(), rec.Header())
			w.Header().Del("Content-Length")
			w.WriteHeader(rec.Code)
			_, _ = io.WriteString(w, body)
		})
	}})
	l := k.launch(lease.LaunchRequest{TTL: 2 * time.Hour})
	l = k.untilState(l.ID, lease.Ready)
	resting.Store(true)
	seen := k.sim.Now().Add(5 * time.Minute)
	l = k.untilBy(l.ID, "looked at", 10*time.Second, func(l lease.Lease) bool { return l.SeenAt.After(seen) })
	require.Equal(t, lease.Ready, l.State)
	require.Positive(t, k.m.Status(t.Context(), l).Cost)
	_, err := k.m.Stop(t.Context(), l.ID)
	require.NoError(t, err)
	k.settled(k.untilState(l.ID, lease.Ended))
}

func TestPriceThatRoseAtTheLaunch(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpLaunch, PriceCents: 999})
	l := k.launch(lease.LaunchRequest{})
	l = k.untilState(l.ID, lease.Ended)
	require.Equal(t, lease.OverBudget, l.Reason)
	require.Empty(t, k.sim.Running())
}

// Under another API key neither a 404 nor an empty list says anything.
func TestAnotherKeyProvesNothing(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: 10 * time.Minute})
	l = k.untilState(l.ID, lease.Ready)
	k.halt()
	other := lambdatest.Start(t, lambdatest.Config{Virtual: true})
	mine := k.sim
	k.sim = other
	foreign := k.client(other.APIKey())
	k.sim = mine
	k.start(foreign)
	_, err := k.m.Stop(t.Context(), l.ID)
	require.NoError(t, err)
	for range 50 {
		k.sim.Advance(30 * time.Second)
		time.Sleep(2 * time.Millisecond)
	}
	l = k.get(l.ID)
	require.Equal(t, lease.Stopping, l.State, "not ended: the machine runs on in the other account")
	require.Contains(t, strings.Join(k.m.Status(t.Context(), l).Warnings, " "), "another API key")
	require.Len(t, k.sim.Running(), 1)

	k.restart()
	k.settled(k.untilState(l.ID, lease.Ended))
}

// A wrong clock of ours is corrected by the cloud's; the lease is not ended
// early.
func TestOurClockIsWrong(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: 30 * time.Minute})
	k.untilState(l.ID, lease.Ready)
	k.sim.Inject(lambdatest.Fault{Op: "*", ClockSkew: -2 * time.Hour}) // seen from the cloud, we are two hours ahead
	k.sim.Advance(31 * time.Minute)
	time.Sleep(50 * time.Millisecond)
	require.NotEqual(t, lease.Ended, k.get(l.ID).State)
}

func TestForeignInstancesAreNeverTouched(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	c, err := k.m.Capacity(t.Context())
	require.NoError(t, err)
	region := c.Offers[0].Regions[0]
	_, err = k.sim.Launch(lambdatest.Order{Type: testType, Region: region, Name: "somebody-elses"})
	require.NoError(t, err)
	_, err = k.sim.Launch(lambdatest.Order{Type: testType, Region: region, Name: "gl-aaaa-bbbbbbbbbbbb-t4x8k0-cccccccccccccccc"})
	require.NoError(t, err)
	l := k.launch(lease.LaunchRequest{TTL: 5 * time.Minute})
	k.untilState(l.ID, lease.Ended)
	k.sim.Advance(24 * time.Hour)
	time.Sleep(50 * time.Millisecond)
	require.Len(t, k.sim.Running(), 2)
}

// Nobody enforced the deadline for a day. What the machine has cost by then
// counts against the caps in full, not only what was reserved for it.
func TestOverrunCountsAgainstTheCaps(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: 10 * time.Minute})
	l = k.untilState(l.ID, lease.Ready)
	k.halt()
	k.sim.Advance(24 * time.Hour)
	require.GreaterOrEqual(t, k.usage().Lifetime, l.CostAt(k.sim.Now()))
	require.Greater(t, k.usage().Lifetime, l.Reserved)
}
