package lease_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// An agent in a loop launched machines through a night and cost thousands; an automatic top-up
// was no limit. Here one launches whatever it gets, and stops it again, for a day.
func TestIncidentAgentInALoopSpentThousandsOvernight(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	k.change(func(p *policy.Policy) {
		p.MaxLaunchesPerHour, p.Caps.PerDay, p.Caps.PerWeek = 4, 5*policy.Dollar, 8*policy.Dollar
	})
	codes := map[lease.Code]int{}
	perHour := map[int]int{}
	began := k.sim.Now()
	for hour := range 30 {
		for range 6 {
			l, err := k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType, TTL: time.Hour})
			if err != nil {
				codes[lease.CodeOf(err)]++
				k.pass(1, 10*time.Minute)
				continue
			}
			perHour[int(k.sim.Now().Sub(began)/time.Hour)]++
			k.untilBy(l.ID, "ready", 5*time.Second, func(l lease.Lease) bool { return l.State == lease.Ready })
			k.sim.Advance(8 * time.Minute)
			_, err = k.m.Stop(t.Context(), l.ID)
			require.NoError(t, err)
			k.over(l.ID)
		}
		require.GreaterOrEqual(t, k.usage().Lifetime, k.bill())
		require.LessOrEqual(t, k.bill(), 8*policy.Dollar, "hour %d", hour)
	}
	require.Greater(t, k.bill(), 2*policy.Dollar, "it was allowed something")
	require.Positive(t, codes[lease.CodePolicyDenied], "the rate of launches: %v", codes)
	require.Positive(t, codes[lease.CodeBudgetExceeded], "the money: %v", codes)
	for hour, n := range perHour {
		require.LessOrEqual(t, n, 5, "launches in hour %d", hour) // the hours of the loop are not those of the rule
	}
	require.NoError(t, k.m.Freeze(t.Context(), "ann", ""))
	_, err := k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType, TTL: time.Minute})
	require.Equal(t, lease.CodeFrozen, lease.CodeOf(err), "a person's word ends it at once")
}

// A setting of zero was silently dropped, and the machine billed on; "stopped" was a state that
// went on costing. Zero here is the policy's default, said in the answer, and a wrong one is refused.
func TestIncidentSettingWasSilentlyDropped(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: 0})
	require.Equal(t, k.policy.p.TTLFor("tester", 0), l.TTL, "the lease says what is in force")
	for _, ttl := range []time.Duration{-time.Minute, time.Second} {
		_, err := k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType, TTL: ttl})
		require.Equal(t, lease.CodeInvalidInput, lease.CodeOf(err))
	}
	require.Equal(t, 1, k.sim.LaunchCount())
	l = k.untilState(l.ID, lease.Ready)
	require.Equal(t, l.TTL, l.Deadline.Sub(l.ReadyAt))
	_, err := k.m.Stop(t.Context(), l.ID)
	require.NoError(t, err)
	l = k.over(l.ID)
	inst, _ := k.sim.Instance(l.InstanceID)
	require.False(t, inst.StopCalledAt.IsZero(), "a stop is a termination: there is no state that costs on")
	k.settled(l)
}

// A new client, whose state was lost, said that there were no clusters, while one was billed.
func TestIncidentFreshClientSawNothing(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: 4 * time.Hour})
	k.untilState(l.ID, lease.Ready)
	k.halt()
	m, _ := k.another()
	leases, err := m.List(t.Context(), true, 0)
	require.NoError(t, err)
	require.Empty(t, leases, "the new ledger knows of none")
	found, err := m.Adoptable(t.Context())
	require.NoError(t, err)
	require.Len(t, found, 1, "the account does")

	k.change(func(p *policy.Policy) { p.MaxLeases, p.Caps.BurnPerHour = 0, policy.Cents(129) })
	_, err = m.Launch(t.Context(), lease.LaunchRequest{Type: testType})
	require.Equal(t, lease.CodeBudgetExceeded, lease.CodeOf(err), "what runs already counts: %v", err)
	require.NotEmpty(t, m.Notices(t.Context()), "and is told from then on")
	require.Equal(t, 1, k.sim.LaunchCount())
	s, err := m.Spend(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, s.Strangers, 1)
	require.Equal(t, l.Name, s.Strangers[0].Name)
}
