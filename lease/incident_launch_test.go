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

// The account's rate limit hit a launcher in the middle. It crashed, and nothing was left
// that would have ended the machine. Here it hits each step of a launch in turn.
func TestIncidentRateLimitCrashedTheLauncherAfterTheNodeExisted(t *testing.T) {
	t.Parallel()
	answers := map[string]lambdatest.Fault{
		"429":      {Status: 429},
		"429 page": {Status: 429, Body: lambdatest.BodyHTML},
		"503":      {Status: 503},
		"500 text": {Status: 500, Body: lambdatest.BodyText},
	}
	steps := map[string]lambdatest.Fault{
		"the prices":              {Op: lambdatest.OpListTypes, Count: 1},
		"the look at the account": {Op: lambdatest.OpListInstances, Count: 1},
		"its second listing":      {Op: lambdatest.OpListInstances, Count: 1, Skip: 1},
		"the key":                 {Op: lambdatest.OpAddKey, Count: 1},
		"the key that was added":  {Op: lambdatest.OpAddKey, Count: 1, AfterWork: true},
		"the launch":              {Op: lambdatest.OpLaunch, Count: 1},
		"the launch that worked":  {Op: lambdatest.OpLaunch, Count: 1, AfterWork: true},
		"the first polls":         {Op: lambdatest.OpListInstances, Count: 5, Skip: 2},
	}
	for answer, how := range answers {
		for step, where := range steps {
			t.Run(step+", "+answer, func(t *testing.T) {
				t.Parallel()
				k := newKit(t, lambdatest.Config{})
				f := where
				f.Status, f.Body = how.Status, how.Body
				id := k.sim.Inject(f)
				l, err := k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType, TTL: 10 * time.Minute})
				made := k.sim.LaunchCount()
				if l.ID == "" {
					require.Error(t, err)
					require.Contains(t, []lease.Code{lease.CodeRateLimited, lease.CodeCloudUnavailable}, lease.CodeOf(err), "%v", err)
					require.Zero(t, made, "no lease, no machine")
					require.Zero(t, k.usage().Lifetime)
					require.Equal(t, 1, k.sim.Hits(id))
					require.Empty(t, k.sim.Keys())
					return
				}
				if made > 0 {
					require.NoError(t, err)
					got := k.get(l.ID)
					require.False(t, got.Deadline.IsZero(), "its deadline is on disk before there is a machine")
					require.Positive(t, got.Reserved)
				}
				got := k.over(l.ID) // by its deadline, or because it is proven that nothing was launched
				require.Positive(t, k.sim.Hits(id))
				require.LessOrEqual(t, k.sim.LaunchCount(), 1)
				require.False(t, got.EndedAt.After(got.HardStop))
				k.settled(got)
			})
		}
	}
}

// Eight GPUs took 25 minutes to boot, and the tool gave up after ten, with the machine still
// booting.
func TestIncidentEightGPUsBootedFor25Minutes(t *testing.T) {
	t.Parallel()
	const eight = "gpu_8x_a100"
	k := newKit(t, lambdatest.Config{BootTime: 25 * time.Minute}, func(k *kit) {
		k.policy.p.MaxPricePerHour, k.policy.p.Caps.PerLease, k.policy.p.MaxGPUs = 50*policy.Dollar, 0, 0
	})
	c, err := k.m.Capacity(t.Context())
	require.NoError(t, err)
	for _, o := range c.Offers {
		if o.Type == eight && len(o.Regions) == 0 {
			require.NoError(t, k.sim.SetCapacity(eight, "us-midwest-1", 1))
		}
	}
	l := k.launch(lease.LaunchRequest{Type: eight, TTL: 30 * time.Minute})
	require.Equal(t, l.Price.For(30*time.Minute+30*time.Minute+12*time.Minute), l.Reserved, "the boot is reserved, too")
	k.pass(24*4, 15*time.Second)
	require.Equal(t, lambdatest.Booting, k.sim.Running()[0].Status)
	require.Equal(t, lease.Booting, k.get(l.ID).State)
	l = k.untilState(l.ID, lease.Ready)
	require.Equal(t, 30*time.Minute, l.Deadline.Sub(l.ReadyAt), "its time begins when it can be used")
	_, err = k.m.Stop(t.Context(), l.ID)
	require.NoError(t, err)
	k.settled(k.over(l.ID))
}

// A launch was interrupted from the keyboard before the machine had an address, and the
// command that takes it down stumbled over that.
func TestIncidentInterruptedLaunchHadNoAddress(t *testing.T) {
	t.Parallel()
	t.Run("and is stopped", func(t *testing.T) {
		t.Parallel()
		k := newKit(t, lambdatest.Config{BootTime: time.Hour})
		k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpLaunch, Count: 1, Delay: 10 * time.Second})
		ctx, interrupt := context.WithCancel(t.Context())
		done := make(chan lease.Lease, 1)
		go func() {
			l, _ := k.m.Launch(ctx, lease.LaunchRequest{Type: testType})
			done <- l
		}()
		require.Eventually(t, func() bool {
			all, err := k.db.List(t.Context(), 0)
			return err == nil && len(all) == 1 && !all[0].LaunchSentAt.IsZero()
		}, 10*time.Second, time.Millisecond)
		interrupt()
		l := <-done
		require.NotEmpty(t, l.ID, "even then the caller knows which lease it is")
		k.sim.Advance(10 * time.Second)
		got := k.until(l.ID, "launched", func(l lease.Lease) bool { return l.InstanceID != "" })
		require.Empty(t, got.Addr)
		inst, err := k.client(k.sim.APIKey()).Instance(t.Context(), got.InstanceID)
		require.NoError(t, err)
		require.Empty(t, inst.IP)
		_, err = k.m.Stop(t.Context(), l.ID)
		require.NoError(t, err)
		k.settled(k.over(l.ID))
	})
	t.Run("and never gets one", func(t *testing.T) {
		t.Parallel()
		var p proxy
		k := newKit(t, p.config(lambdatest.Config{}))
		p.set(func(r *http.Request, status int, body string) (int, string) {
			return status, strings.ReplaceAll(body, `"ip":`, `"no_ip":`)
		})
		l := k.launch(lease.LaunchRequest{})
		got := k.over(l.ID)
		require.Equal(t, lease.NeverReady, got.Reason)
		require.Positive(t, k.bill(), "it was billed, with or without an address")
		k.settled(got)
	})
}

// A status that the program did not know made it fail, or take the machine for gone. Here the
// cloud invents one for each phase of a life.
func TestIncidentStatusThatNobodyKnew(t *testing.T) {
	t.Parallel()
	for name, words := range map[string][]string{
		"while it boots": {"booting", "provisioning"},
		"while it runs":  {"active", "running"},
		"while it ends":  {"terminating", "deleting"},
		"none at all":    {"active", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p proxy
			k := newKit(t, p.config(lambdatest.Config{BootTime: 5 * time.Minute, TerminateTime: 5 * time.Minute}))
			p.set(func(_ *http.Request, status int, body string) (int, string) {
				return status, strings.ReplaceAll(body, `"status":"`+words[0]+`"`, `"status":"`+words[1]+`"`)
			})
			l := k.launch(lease.LaunchRequest{TTL: 20 * time.Minute})
			l = k.untilState(l.ID, lease.Ready)
			for k.sim.Now().Add(30 * time.Second).Before(l.Deadline) {
				k.pass(1, 20*time.Second)
				require.Equal(t, lease.Ready, k.get(l.ID).State)
			}
			l = k.over(l.ID)
			require.Positive(t, p.edited())
			require.Equal(t, lease.Deadline, l.Reason)
			k.settled(l)
		})
	}
}

// A refusal of the key was shown as "nothing is free".
func TestIncidentForbiddenWasShownAsNoOffers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault lambdatest.Fault
		code  lease.Code
	}{
		"bad key":   {lambdatest.Fault{Code: lambdatest.CodeInvalidKey}, lease.CodeBadAPIKey},
		"blocked":   {lambdatest.Fault{Code: lambdatest.CodeAccountInactive}, lease.CodeAccountBlocked},
		"forbidden": {lambdatest.Fault{Status: 403}, lease.CodeAccountBlocked},
		"a page":    {lambdatest.Fault{Status: 403, Body: lambdatest.BodyHTML}, lease.CodeCloudUnavailable},
		"a line":    {lambdatest.Fault{Status: 403, Body: lambdatest.BodyText}, lease.CodeCloudUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{})
			tt.fault.Op = lambdatest.OpListTypes
			k.sim.Inject(tt.fault)
			c, err := k.m.Capacity(t.Context())
			require.Equal(t, tt.code, lease.CodeOf(err), "%v", err)
			require.Empty(t, c.Offers)
			_, err = k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType})
			require.Equal(t, tt.code, lease.CodeOf(err), "%v", err)
		})
	}
	t.Run("an empty catalogue", func(t *testing.T) {
		t.Parallel()
		var p proxy
		k := newKit(t, p.config(lambdatest.Config{}))
		p.set(func(r *http.Request, status int, body string) (int, string) {
			if strings.HasSuffix(r.URL.Path, "/instance-types") {
				return 200, `{"data":{}}`
			}
			return status, body
		})
		_, err := k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType})
		require.Equal(t, lease.CodeCloudUnavailable, lease.CodeOf(err), "it is not the agent's mistake: %v", err)
	})
}

// The listing became empty, so a controller launched, again and again, what ran already.
func TestIncidentEmptyListLedToManyLaunches(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	r := lease.LaunchRequest{TTL: 4 * time.Hour, IdempotencyKey: "the one machine that is wanted"}
	l := k.launch(r)
	k.untilState(l.ID, lease.Ready)
	id := k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpListInstances, Omit: "*", Until: 3 * time.Hour})
	for range 3 * 12 {
		k.pass(5, time.Minute)
		require.Equal(t, l.ID, k.launch(r).ID)
		require.Equal(t, lease.Ready, k.get(l.ID).State, "asking by its id shows that it runs")
	}
	require.Greater(t, k.sim.Hits(id), 20)
	require.Equal(t, 1, k.sim.LaunchCount())
	k.settled(k.over(l.ID))
}

// fullAfterLaunch is a ledger whose disk is full from the moment of the launch call on.
type fullAfterLaunch struct{ fullStore }

func (s *fullAfterLaunch) Update(ctx context.Context, l lease.Lease, note string) (lease.Lease, error) {
	l, err := s.fullStore.Update(ctx, l, note)
	if strings.HasPrefix(note, "launch call") {
		s.full.Store(true)
	}
	return l, err
}

// The machine was made, something after that failed, and the error had forgotten the machine.
func TestIncidentErrorAfterTheLaunchLostTheMachine(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	s := &fullAfterLaunch{fullStore{DB: k.db}}
	k.with(s, k.sim.Now)
	l, err := k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType, TTL: 10 * time.Minute})
	require.ErrorIs(t, err, errFull)
	require.Len(t, k.sim.Running(), 1, "the machine was made")
	require.NotEmpty(t, l.ID)
	var e *lease.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, l.ID, e.LeaseID, "the error names the lease")
	s.full.Store(false)
	l = k.untilState(l.ID, lease.Ready)
	require.Equal(t, k.sim.Running()[0].ID, l.InstanceID, "found by its name")
	k.settled(k.over(l.ID))
}

// One 503 to a question about a booting machine was taken for the end of the boot, and the
// machine was deleted.
func TestIncidentOne503EndedABootingMachine(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{BootTime: 8 * time.Minute})
	l := k.launch(lease.LaunchRequest{})
	id := k.sim.Inject(lambdatest.Fault{Op: "*", Status: 503, Until: 6 * time.Minute})
	k.setWrongKey(true) // and its SSH server, of another image, answers wrongly
	k.pass(6*12, 5*time.Second)
	require.Greater(t, k.sim.Hits(id), 5)
	require.Equal(t, lease.Booting, k.get(l.ID).State)
	k.setWrongKey(false)
	l = k.untilState(l.ID, lease.Ready)
	require.Len(t, k.sim.Running(), 1)
	_, err := k.m.Stop(t.Context(), l.ID)
	require.NoError(t, err)
	k.settled(k.over(l.ID))
}

// The GPUs answer late: a driver comes up after cloud-init. And a machine on which nothing is
// right is not kept.
func TestIncidentHealthCheckThatRaised(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, func(k *kit) { k.machine.health = remote.Health{Reason: "no driver"} })
	l := k.launch(lease.LaunchRequest{})
	l = k.over(l.ID)
	require.Equal(t, lease.GPUUnhealthy, l.Reason)
	k.settled(l)
}
