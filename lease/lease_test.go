package lease_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
)

func TestLeaseFromLaunchToReceipt(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: 30 * time.Minute, Purpose: "a test"})
	require.Equal(t, lease.Booting, l.State)
	require.Equal(t, policy.Cents(129), l.Price)
	require.Equal(t, l.Price.For(15*time.Minute+30*time.Minute+12*time.Minute), l.Reserved)
	require.Equal(t, l.Reserved, k.usage().Day, "the worst case counts against the caps")
	require.LessOrEqual(t, len(l.Name), 64)

	in := k.sim.Running()[0]
	require.Equal(t, l.Name, in.Name)
	require.Equal(t, []string{l.KeyName}, in.KeyNames)
	require.Contains(t, in.Tags, lambdatest.Tag{Key: "gpulease", Value: l.Name})
	require.Equal(t, "lambda-stack-24-04", in.Image)

	l = k.untilState(l.ID, lease.Ready)
	require.Equal(t, l.ReadyAt.Add(30*time.Minute), l.Deadline, "the whole TTL counts from ready")
	require.Less(t, l.Reserved, l.WorstCase(), "what is left of the boot allowance is given back")

	k.sim.Advance(10 * time.Minute)
	s := k.m.Status(t.Context(), k.get(l.ID))
	require.Equal(t, l.Price.For(11*time.Minute), s.Cost.For(time.Hour), "the cost so far is in whole minutes")
	require.Eventually(t, func() bool { return strings.Contains(k.m.Status(t.Context(), k.get(l.ID)).Guard, "server") }, 5*time.Second, time.Millisecond)

	_, err := k.m.Stop(t.Context(), l.ID)
	require.NoError(t, err)
	require.Contains(t, strings.Join(k.m.Status(t.Context(), k.get(l.ID)).Warnings, " "), "not confirmed")
	l = k.untilState(l.ID, lease.Ended)
	require.Equal(t, lease.Stopped, l.Reason)
	k.settled(l)
	require.LessOrEqual(t, l.Cost, policy.Money(k.sim.Bill().Total)+3*l.Price.For(time.Minute), "no more than the rounding and the confirmation")
	require.Equal(t, l.Cost, k.usage().Day)

	again, err := k.m.Stop(t.Context(), l.ID)
	require.NoError(t, err, "a stop may be repeated")
	require.Equal(t, l, again)
}

func TestRefusalsLaunchNothing(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		request lease.LaunchRequest
		change  func(*kit)
		code    lease.Code
		text    string
	}{
		{"unknown type", lease.LaunchRequest{Type: "gpu_1x_a11"}, nil, lease.CodeInvalidInput, "gpu_1x_a10"},
		{"no type", lease.LaunchRequest{}, nil, lease.CodeInvalidInput, "type"},
		{"negative TTL", lease.LaunchRequest{Type: testType, TTL: -time.Minute}, nil, lease.CodeInvalidInput, "TTL"},
		{"odd TTL", lease.LaunchRequest{Type: testType, TTL: 90 * time.Second}, nil, lease.CodeInvalidInput, "whole minutes"},
		{"TTL over the policy's", lease.LaunchRequest{Type: testType, TTL: 9 * time.Hour}, nil, lease.CodePolicyDenied, "max_ttl"},
		{"price over the policy's", lease.LaunchRequest{Type: "gpu_8x_a100"}, nil, lease.CodePolicyDenied, "max_price_per_hour"},
		{"region without capacity", lease.LaunchRequest{Type: testType, Region: "me-west-1"}, nil, lease.CodeNoCapacity, "me-west-1"},
		{"day cap", lease.LaunchRequest{Type: testType}, func(k *kit) { k.policy.p.Caps.PerDay = policy.Cents(100) }, lease.CodeBudgetExceeded, "per_day"},
		{"unreadable policy", lease.LaunchRequest{Type: testType}, func(k *kit) { k.policy.err = context.DeadlineExceeded }, lease.CodePolicyDenied, "policy file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{})
			if tt.change != nil {
				k.policy.mu.Lock()
				tt.change(k)
				k.policy.mu.Unlock()
			}
			_, err := k.m.Launch(t.Context(), tt.request)
			require.Error(t, err)
			require.Equal(t, tt.code, lease.CodeOf(err), "%v", err)
			require.Contains(t, err.Error(), tt.text)
			require.Zero(t, k.sim.LaunchCount())
			require.Empty(t, k.sim.Keys())
			live, err := k.db.Live(t.Context())
			require.NoError(t, err)
			require.Empty(t, live)
		})
	}
}

func TestIdempotencyKeyGivesTheSameLease(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	r := lease.LaunchRequest{Type: testType, TTL: time.Hour, IdempotencyKey: "call-1"}
	first := k.launch(r)
	second := k.launch(r)
	require.Equal(t, first.ID, second.ID)
	require.Equal(t, 1, k.sim.LaunchCount())

	r.TTL = 2 * time.Hour
	_, err := k.m.Launch(t.Context(), r)
	require.Equal(t, lease.CodeInvalidInput, lease.CodeOf(err), "another request under the same key is a mistake")
	require.Equal(t, 1, k.sim.LaunchCount())
}

func TestStopBeforeReady(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{BootTime: time.Hour})
	l := k.launch(lease.LaunchRequest{})
	_, err := k.m.Stop(t.Context(), l.ID)
	require.NoError(t, err)
	k.settled(k.untilState(l.ID, lease.Ended))
}

func TestDeadlineEndsTheLease(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: 10 * time.Minute})
	l = k.untilState(l.ID, lease.Ready)
	k.sim.Advance(9*time.Minute + 30*time.Second)
	require.Contains(t, strings.Join(k.m.Status(t.Context(), k.get(l.ID)).Warnings, " "), "deadline is in")
	require.Equal(t, lease.Ready, k.get(l.ID).State)
	l = k.untilState(l.ID, lease.Ended)
	require.Equal(t, lease.Deadline, l.Reason)
	require.WithinDuration(t, l.Deadline, l.EndedAt, 2*time.Minute)
	k.settled(l)
}

func TestDeadlineOfALeaseWhoseServerDied(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: 10 * time.Minute})
	k.untilState(l.ID, lease.Ready)
	k.halt()
	k.sim.Advance(3 * time.Hour)
	k.restart()
	l = k.untilState(l.ID, lease.Ended)
	require.Equal(t, lease.Deadline, l.Reason)
	k.settled(l)
}

func TestBootThatNeverEnds(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{BootTime: 100 * time.Hour})
	l := k.launch(lease.LaunchRequest{})
	l = k.untilBy(l.ID, "given up", 20*time.Second, func(l lease.Lease) bool { return l.State == lease.Ended })
	require.Equal(t, lease.NeverReady, l.Reason)
	k.settled(l)
}

func TestNotReadyUntilEveryGateIsPassed(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, func(k *kit) {
		k.machine.wrongKey = true
		k.machine.cloudInit = remote.CloudInitRunning
	})
	l := k.launch(lease.LaunchRequest{})
	k.until(l.ID, "the host key", func(l lease.Lease) bool { return strings.Contains(l.Detail, "host key") })
	k.machine.mu.Lock()
	k.machine.wrongKey = false
	k.machine.mu.Unlock()
	k.until(l.ID, "cloud-init", func(l lease.Lease) bool { return strings.Contains(l.Detail, "cloud-init to finish") })
	_, err := k.m.Start(t.Context(), l.ID, "", remote.Command{Shell: "true"})
	require.Equal(t, lease.CodeLeaseNotReady, lease.CodeOf(err))
	k.machine.mu.Lock()
	k.machine.cloudInit = remote.CloudInitDone
	k.machine.mu.Unlock()
	k.untilState(l.ID, lease.Ready)
}

func TestSickGPUsEndTheLease(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, func(k *kit) {
		k.machine.health = remote.Health{Healthy: false, Reason: "0 of 1 GPUs"}
	})
	l := k.launch(lease.LaunchRequest{})
	l = k.untilState(l.ID, lease.Ended)
	require.Equal(t, lease.GPUUnhealthy, l.Reason)
	k.settled(l)
}

func TestUnknownLeases(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	for _, id := range []lease.ID{"", "nonsense", "aaaaaaaaaaaa", "../../etc/pass"} {
		_, err := k.m.Stop(t.Context(), id)
		require.Equal(t, lease.CodeLeaseNotFound, lease.CodeOf(err), "%q", id)
		_, err = k.m.Start(t.Context(), id, "", remote.Command{Shell: "true"})
		require.Equal(t, lease.CodeLeaseNotFound, lease.CodeOf(err), "%q", id)
	}
	_, err := k.m.Job(t.Context(), "aaaaaaaaaaaa-bbbbbbbb-c", 0)
	require.Equal(t, lease.CodeJobNotFound, lease.CodeOf(err))
}

func TestCapHoldsForManyAtOnce(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	worst := policy.Cents(129).For(57 * time.Minute) // 15 to boot, 30, 12 to stop
	k.policy.p.MaxLeases = 0
	k.policy.p.Caps.PerDay = 3*worst + 1
	results := make(chan error, 12)
	for range cap(results) {
		go func() {
			_, err := k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType, TTL: 30 * time.Minute})
			results <- err
		}()
	}
	allowed := 0
	for range cap(results) {
		if err := <-results; err == nil {
			allowed++
		} else {
			require.Equal(t, lease.CodeBudgetExceeded, lease.CodeOf(err), "%v", err)
		}
	}
	require.Equal(t, 3, allowed, "all that fits is given, and nothing more")
	require.Equal(t, 3, k.sim.LaunchCount())
	require.LessOrEqual(t, k.usage().Day, k.policy.p.Caps.PerDay)
}

// A request that is refused for the number of leases says which of them could go, and an
// idempotency key that was used before says for what else.
func TestRefusalsThatNameWhatStandsInTheWay(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, func(k *kit) { k.policy.p.MaxLeases = 1 })
	l := k.launch(lease.LaunchRequest{TTL: time.Hour, IdempotencyKey: "once"})
	_, err := k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType, TTL: time.Hour})
	require.Equal(t, lease.CodePolicyDenied, lease.CodeOf(err))
	var refused *lease.Error
	require.ErrorAs(t, err, &refused)
	require.Contains(t, refused.Next, "stop_lease for one that is not needed any more: "+string(l.ID))
	_, err = k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType, TTL: 2 * time.Hour, IdempotencyKey: "once"})
	require.Equal(t, lease.CodeInvalidInput, lease.CodeOf(err))
	require.ErrorContains(t, err, `TTL was "1h0m0s" and is "2h0m0s"`)
}

// What needs approval says from when on.
func TestCapacitySaysFromWhenAPersonIsAsked(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, func(k *kit) { k.policy.p.ApproveAbove = 2 * policy.Dollar })
	c, err := k.m.Capacity(t.Context())
	require.NoError(t, err)
	for _, o := range c.Offers {
		if o.Type == testType {
			require.True(t, o.Allowed)
			// (2 $ / 1.29 $/h = 93 min) less 15 min to boot and 12 min to stop
			require.Contains(t, o.Rule, "over 66 min a person has to approve it (approve_above")
			return
		}
	}
	require.Fail(t, "the type is not listed")
}
