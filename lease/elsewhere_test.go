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

// sickThere makes the machines in a region sick; "" is everywhere.
func (k *kit) sickThere(region string) {
	k.machine.does(func(m *machine) {
		m.sick = func(t remote.Target) bool {
			for _, i := range k.sim.Running() {
				if t.Addr == i.IP+":22" {
					return region == "" || i.Region == region
				}
			}
			return false
		}
	})
}

// second is the lease that was launched because the first one's machine was sick.
func (k *kit) second(first lease.ID) (lease.Lease, bool) {
	k.t.Helper()
	s := k.m.Status(k.t.Context(), k.get(first))
	if s.SecondTry == "" {
		return lease.Lease{}, false
	}
	return k.get(s.SecondTry), true
}

func (k *kit) awaitSecond(first lease.ID) lease.Lease {
	k.t.Helper()
	var second lease.Lease
	k.until(first, "the second try", func(lease.Lease) (ok bool) { second, ok = k.second(first); return ok })
	return second
}

// billedEnough checks that the ledger has no less than the cloud bills.
func (k *kit) billedEnough() {
	k.t.Helper()
	all, err := k.db.List(k.t.Context(), 0)
	require.NoError(k.t, err)
	var cost policy.Money
	for _, l := range all {
		cost += l.Cost
		require.Zero(k.t, l.Reserved)
	}
	require.GreaterOrEqual(k.t, cost, policy.Money(k.sim.Bill().Total))
	require.Empty(k.t, k.sim.Running())
}

func TestASickMachineIsLaunchedOnceMoreElsewhere(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	k.sickThere("us-east-1")
	first := k.launch(lease.LaunchRequest{Elsewhere: true, TTL: 20 * time.Minute, Purpose: "training", IdempotencyKey: "a"})
	require.Equal(t, "us-east-1", first.Region)
	k.until(first.ID, "found sick", func(l lease.Lease) bool { return l.State == lease.Stopping })
	require.Contains(t, k.m.Status(t.Context(), k.get(first.ID)).Warnings, "its machine is sick; when its end is confirmed it is launched again, once")
	require.Equal(t, 1, k.sim.LaunchCount(), "not before the first is gone")

	second := k.awaitSecond(first.ID)
	was := k.get(first.ID)
	require.Equal(t, lease.Ended, was.State)
	require.Equal(t, lease.GPUUnhealthy, was.Reason)
	require.False(t, second.CreatedAt.Before(was.EndedAt))
	require.Equal(t, "us-west-1", second.Region)
	require.Equal(t, first.Price, second.Price)
	require.Equal(t, 20*time.Minute, second.TTL)
	require.Equal(t, "training", second.Purpose)
	second = k.untilState(second.ID, lease.Ready)
	require.Equal(t, 2, k.sim.LaunchCount())
	require.Equal(t, first.ID, k.launch(lease.LaunchRequest{Elsewhere: true, TTL: 20 * time.Minute, Purpose: "training", IdempotencyKey: "a"}).ID, "the same call, the same lease")
	_, err := k.m.Stop(t.Context(), second.ID)
	require.NoError(t, err)
	k.untilState(second.ID, lease.Ended)
	k.billedEnough()
}

func TestThereIsNoThirdTry(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	k.sickThere("")
	first := k.launch(lease.LaunchRequest{Elsewhere: true})
	second := k.awaitSecond(first.ID)
	k.untilState(second.ID, lease.Ended)
	for range 5 {
		k.sim.Advance(time.Minute)
		k.breathe()
	}
	require.Equal(t, 2, k.sim.LaunchCount())
	_, ok := k.second(second.ID)
	require.False(t, ok)
	k.billedEnough()
}

func TestASickMachineIsNotLaunchedAgain(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		request lease.LaunchRequest
		before  func(*kit)
		warning string
	}{
		"WhereARegionWasAskedFor":  {lease.LaunchRequest{Elsewhere: true, Region: "us-east-1"}, nil, ""},
		"WhereTheRequestDoesNot":   {lease.LaunchRequest{}, nil, ""},
		"AtAHigherPrice":           {lease.LaunchRequest{Elsewhere: true}, func(k *kit) { require.NoError(k.t, k.sim.SetPrice(testType, 500)) }, "more than the $1.29/h of the first try"},
		"WhenLaunchesAreFrozen":    {lease.LaunchRequest{Elsewhere: true}, func(k *kit) { require.NoError(k.t, k.m.Freeze(k.t.Context(), "ann", "")) }, "frozen"},
		"WhenThePolicySaysNo":      {lease.LaunchRequest{Elsewhere: true}, func(k *kit) { k.change(func(p *policy.Policy) { p.Caps.PerLease = 1 }) }, "policy does not allow"},
		"WhenItsProcessIsNotThere": {lease.LaunchRequest{Elsewhere: true}, func(k *kit) { k.restart() }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{TerminateTime: 3 * time.Minute})
			k.sickThere("")
			first := k.launch(tt.request)
			k.until(first.ID, "found sick", func(l lease.Lease) bool { return l.State == lease.Stopping })
			if tt.before != nil {
				tt.before(k)
			}
			k.untilState(first.ID, lease.Ended)
			if tt.warning != "" {
				k.until(first.ID, "said why", func(l lease.Lease) bool {
					for _, w := range k.m.Status(t.Context(), l).Warnings {
						if strings.Contains(w, "could not be launched again") && strings.Contains(w, tt.warning) {
							return true
						}
					}
					return false
				})
			}
			for range 5 {
				k.sim.Advance(time.Minute)
				k.breathe()
			}
			require.Equal(t, 1, k.sim.LaunchCount())
			all, err := k.db.List(t.Context(), 0)
			require.NoError(t, err)
			require.Len(t, all, 1)
			k.billedEnough()
		})
	}
}

// The answer to the second launch call is lost, after the work and before it.
func TestALostAnswerOfTheSecondTry(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault    lambdatest.Fault
		launches int
		state    lease.State
	}{
		"Happened":  {lambdatest.Fault{Cut: lambdatest.CutAfter, LateBy: time.Minute}, 2, lease.Ready},
		"DidNot":    {lambdatest.Fault{Cut: lambdatest.CutBefore}, 1, lease.Ended},
		"NoMachine": {lambdatest.Fault{NoCapacity: true}, 1, lease.Ended},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{})
			k.sickThere("us-east-1")
			first := k.launch(lease.LaunchRequest{Elsewhere: true})
			tt.fault.Op = lambdatest.OpLaunch
			k.sim.Inject(tt.fault)
			second := k.awaitSecond(first.ID)
			second = k.untilBy(second.ID, "known", 5*time.Second, func(l lease.Lease) bool { return l.State == tt.state })
			require.Equal(t, tt.launches, k.sim.LaunchCount())
			k.sim.Remove("")
			_, err := k.m.Stop(t.Context(), second.ID)
			require.NoError(t, err)
			k.untilState(second.ID, lease.Ended)
			for range 5 {
				k.sim.Advance(time.Minute)
				k.breathe()
			}
			require.Equal(t, tt.launches, k.sim.LaunchCount(), "and there is no third")
			k.billedEnough()
		})
	}
}

// The process dies at each step of the second try. Whoever goes on finds at most one
// more instance, which is in the ledger, and launches nothing itself.
func TestDeathAtEveryPointOfTheSecondTry(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"settled", "sighted", "intended", "reserved", "key-added", "launch-marked", "launch-sent", "bound"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{}, func(k *kit) { k.timing.LaunchCall = 300 * time.Millisecond })
			k.sickThere("us-east-1")
			_, died, _ := k.doomed(func(p string) bool {
				all, _ := k.db.List(context.Background(), 0)
				return p == point && len(all) > 0 && all[len(all)-1].State == lease.Ended
			})
			first := k.launch(lease.LaunchRequest{Elsewhere: true})
			limit := time.Now().Add(2 * time.Minute)
			for len(died) == 0 {
				require.True(t, time.Now().Before(limit), "the point was never reached")
				k.sim.Advance(time.Second)
				k.breathe()
			}
			launched := k.sim.LaunchCount()

			k.crash = nil
			k.start(k.client(k.sim.APIKey()))
			require.Equal(t, lease.GPUUnhealthy, k.get(first.ID).Reason)
			if second, ok := k.second(first.ID); ok {
				k.untilBy(second.ID, "settled, or up", 10*time.Second, func(l lease.Lease) bool { return l.State == lease.Ready || l.State == lease.Ended })
				_, err := k.m.Stop(t.Context(), second.ID)
				require.NoError(t, err)
				k.untilState(second.ID, lease.Ended)
			} else {
				require.Equal(t, 1, launched, "nothing was launched that is not in the ledger")
			}
			for range 10 {
				k.sim.Advance(time.Minute)
				k.breathe()
			}
			require.Equal(t, launched, k.sim.LaunchCount(), "whoever goes on launches nothing")
			k.billedEnough()
		})
	}
}

func TestGPUsThatDoNotComputeEndTheLease(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, func(k *kit) {
		k.machine.health.Simulated = false
		k.machine.cuda = remote.CUDA{Verdict: remote.CUDAFails, By: "torch", Detail: "GPU 0: uncorrectable ECC error encountered"}
	})
	l := k.untilState(k.launch(lease.LaunchRequest{}).ID, lease.Ended)
	require.Equal(t, lease.GPUUnhealthy, l.Reason)
	require.True(t, l.ReadyAt.IsZero())
	k.settled(l)
	history, err := k.db.History(t.Context(), l.ID)
	require.NoError(t, err)
	said := ""
	for _, e := range history {
		said += e.Note + "\n"
	}
	require.Contains(t, said, "the GPUs are not right: CUDA (torch): GPU 0: uncorrectable ECC error encountered")
}

func TestAProbeThatTellsNothingIsNoFailure(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		cuda remote.CUDA
		want string
	}{
		"Computes":    {remote.CUDA{Verdict: remote.CUDAComputes, By: "torch", GPUs: 1}, "ready (GPUs 1 computing, by torch)"},
		"NoTool":      {remote.CUDA{Verdict: remote.CUDAUnknown, Detail: "neither PyTorch nor nvcc on the machine"}, "ready"},
		"NoneAnswers": {remote.CUDA{}, "ready"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{}, func(k *kit) { k.machine.health.Simulated, k.machine.cuda = false, tt.cuda })
			l := k.untilState(k.launch(lease.LaunchRequest{}).ID, lease.Ready)
			require.Equal(t, tt.want, l.Detail)
			k.machine.does(func(m *machine) { require.Equal(t, 1, m.probed) })
		})
	}
}
