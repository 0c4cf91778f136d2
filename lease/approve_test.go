package lease_test

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

func askAlways(k *kit) { k.policy.p.ApproveAbove = policy.AlwaysAsk }

func (k *kit) change(f func(*policy.Policy)) {
	k.policy.mu.Lock()
	defer k.policy.mu.Unlock()
	p := k.policy.p.Clone()
	f(p)
	k.policy.p = p
}

func TestApprovedRequestIsLaunchedAsItWasAsked(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, askAlways)
	r := lease.LaunchRequest{Type: testType, TTL: 30 * time.Minute, IdempotencyKey: "k"}
	l := k.launch(r)
	require.Equal(t, lease.AwaitingApproval, l.State)
	require.Zero(t, l.Reserved)
	require.Zero(t, k.usage().Leases)
	require.Equal(t, l.ID, k.launch(r).ID, "asked again, it is the same request")
	k.pass(20, time.Second)
	require.Equal(t, lease.AwaitingApproval, k.get(l.ID).State, "nobody has said yes")
	require.Zero(t, k.sim.LaunchCount())
	require.Empty(t, k.sim.Keys())

	got, err := k.m.Approve(t.Context(), l.ID, "ann")
	require.NoError(t, err)
	require.Equal(t, "ann", got.ApprovedBy)
	got = k.untilState(l.ID, lease.Ready)
	require.Equal(t, 1, k.sim.LaunchCount())
	require.Equal(t, 30*time.Minute, got.TTL)
	require.Positive(t, got.Reserved)
	require.True(t, got.Deadline.Equal(got.ReadyAt.Add(30*time.Minute)))
	_, err = k.m.Approve(t.Context(), l.ID, "ann")
	require.Equal(t, lease.CodeInvalidInput, lease.CodeOf(err), "there is nothing left to approve")
	_, err = k.m.Stop(t.Context(), l.ID)
	require.NoError(t, err)
	k.settled(k.untilState(l.ID, lease.Ended))
}

// A yes is to what was shown: not to what has become another, nor to what somebody has
// decided about meanwhile.
func TestAYesIsToWhatWasShown(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, askAlways)
	shown := k.launch(lease.LaunchRequest{TTL: 30 * time.Minute})
	for name, change := range map[string]func(*lease.Lease){
		"another type":      func(l *lease.Lease) { l.Type = "gpu_8x_h100" },
		"a longer time":     func(l *lease.Lease) { l.TTL = time.Hour },
		"another price":     func(l *lease.Lease) { l.Price++ },
		"another region":    func(l *lease.Lease) { l.AskedRegion = "elsewhere" },
		"another principal": func(l *lease.Lease) { l.Principal = "bob" },
		"another end":       func(l *lease.Lease) { l.DecideBy = l.DecideBy.Add(time.Second) },
	} {
		other := shown
		change(&other)
		_, err := k.m.ApproveShown(t.Context(), other, "elicitation")
		require.ErrorContains(t, err, "is not what was shown any more", name)
	}
	require.Equal(t, lease.AwaitingApproval, k.get(shown.ID).State)
	require.Zero(t, k.get(shown.ID).ApprovedAt)

	_, err := k.m.ApproveShown(lease.ActAs(t.Context(), "somebody-else"), shown, "elicitation")
	require.Equal(t, lease.CodeLeaseNotFound, lease.CodeOf(err), "it is another principal's")
	_, err = k.m.Approve(t.Context(), shown.ID, "ann")
	require.NoError(t, err)
	_, err = k.m.ApproveShown(t.Context(), shown, "elicitation")
	require.Error(t, err)
	require.Equal(t, "ann", k.get(shown.ID).ApprovedBy, "the first yes stands")

	denied := k.launch(lease.LaunchRequest{})
	_, err = k.m.Deny(t.Context(), denied.ID, "ann", "too dear")
	require.NoError(t, err)
	_, err = k.m.ApproveShown(t.Context(), denied, "elicitation")
	require.ErrorContains(t, err, "does not wait for approval: it is ended")

	late := k.launch(lease.LaunchRequest{})
	k.pass(1, late.DecideBy.Sub(late.CreatedAt)+time.Second)
	_, err = k.m.ApproveShown(t.Context(), late, "elicitation")
	require.ErrorContains(t, err, "does not wait for approval: it is ended")
	require.Equal(t, lease.Expired, k.get(late.ID).Reason)
}

func TestRequestThatIsNotApproved(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, askAlways)
	denied := k.launch(lease.LaunchRequest{})
	got, err := k.m.Deny(t.Context(), denied.ID, "ann", "too dear")
	require.NoError(t, err)
	require.Equal(t, lease.Denied, got.Reason)
	require.Equal(t, "denied by ann: too dear", got.Detail)

	withdrawn := k.launch(lease.LaunchRequest{})
	got, err = k.m.Stop(t.Context(), withdrawn.ID)
	require.NoError(t, err)
	require.Equal(t, lease.Cancelled, got.Reason)

	forgotten := k.launch(lease.LaunchRequest{})
	got = k.untilBy(forgotten.ID, "expired", 5*time.Minute, func(l lease.Lease) bool { return l.State == lease.Ended })
	require.Equal(t, lease.Expired, got.Reason)
	_, err = k.m.Approve(t.Context(), forgotten.ID, "ann")
	require.Error(t, err, "too late")
	require.Zero(t, k.sim.LaunchCount())
	require.Zero(t, k.usage().Lifetime)
}

// A request does not wait for ever, also where nobody runs who would let it expire.
func TestApprovalAfterTheRequestHasExpired(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, askAlways)
	l := k.launch(lease.LaunchRequest{})
	k.halt()
	k.sim.Advance(2 * time.Hour)
	_, err := k.m.Approve(t.Context(), l.ID, "ann")
	require.Error(t, err)
	require.Equal(t, lease.Expired, k.get(l.ID).Reason)
}

func TestApprovalIsBoundToTheRequest(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*kit)
		said   string
	}{
		"the price rose":    {func(k *kit) { require.NoError(k.t, k.sim.SetPrice(testType, 229)) }, "it costs $2.29/h now"},
		"a cap was lowered": {func(k *kit) { k.change(func(p *policy.Policy) { p.Caps.PerDay = policy.Cents(10) }) }, "caps.per_day"},
		"the type is out":   {func(k *kit) { k.change(func(p *policy.Policy) { p.Types.Deny = []string{"*"} }) }, "types.deny"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{}, askAlways)
			l := k.launch(lease.LaunchRequest{})
			tt.change(k)
			_, err := k.m.Approve(t.Context(), l.ID, "ann")
			require.NoError(t, err)
			got := k.untilState(l.ID, lease.Ended)
			require.Equal(t, lease.Refused, got.Reason)
			require.Contains(t, got.Detail, tt.said)
			require.Zero(t, k.sim.LaunchCount())
			_, err = k.keys.Load(l.ID)
			require.Error(t, err, "no key stays behind")
		})
	}
}

func TestApprovedRequestWaitsForCapacityAndThenExpires(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, askAlways)
	l := k.launch(lease.LaunchRequest{Region: "us-east-1"})
	require.NoError(t, k.sim.SetCapacity(testType, "us-east-1", 0))
	_, err := k.m.Approve(t.Context(), l.ID, "ann")
	require.NoError(t, err)
	k.until(l.ID, "says why", func(l lease.Lease) bool {
		return l.Detail != "" && l.ApprovedBy != "" && k.sim.LaunchCount() == 0 && len(l.Detail) > 30
	})
	got := k.untilBy(l.ID, "over", 30*time.Second, func(l lease.Lease) bool { return l.State == lease.Ended })
	require.Equal(t, lease.Expired, got.Reason)
	require.Contains(t, got.Detail, "no gpu_1x_a10 is free")
	require.Zero(t, k.sim.LaunchCount())
}

func TestApprovedByTwoProcessesIsLaunchedOnce(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, askAlways)
	l := k.launch(lease.LaunchRequest{})
	first := k.halt
	k.start(k.client(k.sim.APIKey())) // a second process, which believes that it may act too
	t.Cleanup(first)
	_, err := k.m.Approve(t.Context(), l.ID, "ann")
	require.NoError(t, err)
	k.untilState(l.ID, lease.Ready)
	require.Equal(t, 1, k.sim.LaunchCount())
	require.Len(t, k.sim.Running(), 1)
	_, err = k.keys.Load(l.ID)
	require.NoError(t, err, "the loser has not taken the winner's key away")
}

func TestManyRequestsDoNotFloodAPerson(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, askAlways)
	for range 10 {
		k.launch(lease.LaunchRequest{})
	}
	_, err := k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType})
	require.Equal(t, lease.CodePolicyDenied, lease.CodeOf(err))
	require.ErrorContains(t, err, "10 requests wait for approval already")
}

func TestFreezeStopsLaunchesAtOnce(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	running := k.launch(lease.LaunchRequest{})
	k.untilState(running.ID, lease.Ready)
	require.NoError(t, k.m.Freeze(t.Context(), "ann", "look at the bill first"))
	_, err := k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType})
	require.Equal(t, lease.CodeFrozen, lease.CodeOf(err))
	require.ErrorContains(t, err, "look at the bill first")
	_, err = k.m.Quote(t.Context(), lease.LaunchRequest{Type: testType})
	require.Equal(t, lease.CodeFrozen, lease.CodeOf(err), "a quote says so, too")
	_, err = k.m.Extend(t.Context(), running.ID, lease.Extension{More: time.Hour})
	require.Equal(t, lease.CodeFrozen, lease.CodeOf(err))
	require.Equal(t, 1, k.sim.LaunchCount())
	_, err = k.m.Stop(t.Context(), running.ID)
	require.NoError(t, err, "ends go on")
	k.settled(k.untilState(running.ID, lease.Ended))
	require.NoError(t, k.m.Freeze(t.Context(), "bob", ""))
	f, err := k.m.Frozen(t.Context())
	require.NoError(t, err)
	require.Equal(t, "ann", f.By, "frozen twice, the first reason stands")
	require.Equal(t, "launches and extensions are frozen by ann: look at the bill first", k.m.Notices(t.Context())[0])
	require.NoError(t, k.m.Unfreeze(t.Context(), "ann"))
	k.launch(lease.LaunchRequest{})
}

// A launch that was reserved before the freeze and is not sent yet is not sent any more.
func TestFreezeBetweenReservationAndLaunchCall(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	k.halt()
	k.crash = func(point string) {
		if point == "key-added" {
			require.NoError(k.t, k.m.Freeze(k.t.Context(), "ann", ""))
		}
	}
	k.start(k.client(k.sim.APIKey()))
	_, err := k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType})
	require.Equal(t, lease.CodeFrozen, lease.CodeOf(err), "%v", err)
	require.Zero(t, k.sim.LaunchCount())
	all, err := k.db.List(t.Context(), 0)
	require.NoError(t, err)
	k.settled(all[0])
}

func TestExtension(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: time.Hour})
	was := k.untilState(l.ID, lease.Ready)
	got, err := k.m.Extend(t.Context(), l.ID, lease.Extension{More: 30 * time.Minute, Call: "c1"})
	require.NoError(t, err)
	require.Equal(t, was.Deadline.Add(30*time.Minute), got.Deadline)
	require.Equal(t, was.HardStop, got.HardStop, "it is in the name")
	require.Equal(t, policy.Cents(129).For(30*time.Minute), got.Reserved-was.Reserved)
	again, err := k.m.Extend(t.Context(), l.ID, lease.Extension{More: 30 * time.Minute, Call: "c1"})
	require.NoError(t, err)
	require.Equal(t, got.Deadline, again.Deadline, "the same call again changes nothing")

	_, err = k.m.Extend(t.Context(), l.ID, lease.Extension{More: 90 * time.Second})
	require.Equal(t, lease.CodeInvalidInput, lease.CodeOf(err))
	_, err = k.m.Extend(t.Context(), l.ID, lease.Extension{More: 8 * time.Hour})
	require.Equal(t, lease.CodePolicyDenied, lease.CodeOf(err))
	var e *lease.Error
	require.True(t, errors.As(err, &e))
	require.Contains(t, e.Next, "extend_lease by ")

	k.change(func(p *policy.Policy) { p.Caps.PerLease = got.Reserved + policy.Cents(129).For(10*time.Minute) })
	_, err = k.m.Extend(t.Context(), l.ID, lease.Extension{More: time.Hour})
	require.Equal(t, lease.CodeBudgetExceeded, lease.CodeOf(err))
	require.True(t, errors.As(err, &e))
	require.Contains(t, e.Next, "10 minutes would pass")
	require.Equal(t, got.Deadline, k.get(l.ID).Deadline)
	_, err = k.m.Extend(t.Context(), l.ID, lease.Extension{More: 10 * time.Minute})
	require.NoError(t, err, "what the refusal has named passes")

	k.change(func(p *policy.Policy) { p.Caps.PerLease, p.ApproveAbove = 0, policy.AlwaysAsk })
	_, err = k.m.Extend(t.Context(), l.ID, lease.Extension{More: time.Minute})
	require.Equal(t, lease.CodeApprovalRequired, lease.CodeOf(err))
	_, err = k.m.Extend(t.Context(), l.ID, lease.Extension{More: time.Minute, By: "ann"})
	require.NoError(t, err, "a person may")

	over := k.untilBy(l.ID, "over", 30*time.Second, func(l lease.Lease) bool { return l.State == lease.Ended })
	require.Equal(t, lease.Deadline, over.Reason)
	require.False(t, over.StopAt.Before(was.Deadline.Add(41*time.Minute)))
	k.settled(over)
	_, err = k.m.Extend(t.Context(), l.ID, lease.Extension{More: time.Minute})
	require.Equal(t, lease.CodeLeaseEnded, lease.CodeOf(err))
}

// Whatever a refusal names passes: the policy's limits, the hard stop and the
// approval threshold all count.
func TestWhatARefusedExtensionNamesPasses(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, func(k *kit) { k.policy.p.MaxTTL = 4 * time.Hour })
	l := k.launch(lease.LaunchRequest{TTL: 30 * time.Minute})
	k.untilState(l.ID, lease.Ready)
	k.change(func(p *policy.Policy) { p.ApproveAbove = 3 * policy.Dollar })
	_, err := k.m.Extend(t.Context(), l.ID, lease.Extension{More: 10 * time.Hour})
	var e *lease.Error
	require.ErrorAs(t, err, &e)
	require.Contains(t, e.Why, "max_ttl")
	require.Contains(t, e.Why, "hard_stop")
	refused := e.Next
	k.change(func(p *policy.Policy) { p.ApproveAbove = policy.Cents(50) })
	_, err = k.m.Extend(t.Context(), l.ID, lease.Extension{More: 10 * time.Minute})
	require.ErrorAs(t, err, &e)
	require.Contains(t, e.Why, "approval needed")
	require.NotContains(t, e.Why, "without approval", "what needs none is less than it has")
	require.Equal(t, fmt.Sprintf("ask a person to run gpulease extend %s --minutes 10", l.ID), e.Next)
	k.change(func(p *policy.Policy) { p.ApproveAbove = 3 * policy.Dollar })
	named := regexp.MustCompile(`extend_lease by (\d+) minutes would pass$`).FindStringSubmatch(refused)
	require.NotNil(t, named, refused)
	minutes, err := strconv.Atoi(named[1])
	require.NoError(t, err)
	_, err = k.m.Extend(t.Context(), l.ID, lease.Extension{More: time.Duration(minutes) * time.Minute})
	require.NoError(t, err, e.Next)
	_, err = k.m.Extend(t.Context(), l.ID, lease.Extension{More: time.Minute})
	require.Equal(t, lease.CodeApprovalRequired, lease.CodeOf(err), "and nothing longer does")
}

func TestDoubtsAboutARequestAreNamedBeforeItIsApproved(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, askAlways)
	l := k.launch(lease.LaunchRequest{})
	require.Empty(t, k.m.Doubts(t.Context(), l))
	k.change(func(p *policy.Policy) { p.Caps.PerDay = policy.Cents(10) })
	require.Contains(t, k.m.Doubts(t.Context(), l), "caps.per_day")
}

// Two processes extend at once: both extensions are reserved, or one is refused,
// but none is given for free.
func TestExtensionsAtOnce(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: time.Hour})
	was := k.untilState(l.ID, lease.Ready)
	errs := make(chan error, 4)
	for range 4 {
		go func() {
			_, err := k.m.Extend(t.Context(), l.ID, lease.Extension{More: 10 * time.Minute})
			errs <- err
		}()
	}
	for range 4 {
		require.NoError(t, <-errs)
	}
	got := k.get(l.ID)
	require.Equal(t, was.Deadline.Add(40*time.Minute), got.Deadline)
	require.Equal(t, policy.Cents(129).For(40*time.Minute), got.Reserved-was.Reserved)
}

// Whoever launches what was approved may have another policy: the caps that the request was
// made under bind all the same.
func TestApprovedLaunchIsDecidedByThePolicyItWasAskedUnder(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	strict := &policy.Source{Sets: []policy.Set{
		{Rule: "approve_above", Value: "0", Source: "env GPULEASE_POLICY_SET"}, {Rule: "caps.per_day", Value: "3", Source: "env GPULEASE_POLICY_SET"},
	}}
	p, err := strict.Current()
	require.NoError(t, err)
	loose := k.policy.p
	under := func(p *policy.Policy, origin string) {
		k.policy.mu.Lock()
		defer k.policy.mu.Unlock()
		k.policy.p, k.policy.origin = p, origin
	}
	under(p, strict.Origin())
	first, second := k.launch(lease.LaunchRequest{Type: testType, TTL: time.Hour}), k.launch(lease.LaunchRequest{Type: testType, TTL: time.Hour})
	require.Equal(t, lease.AwaitingApproval, second.State)
	under(loose, "")
	require.Empty(t, k.m.Doubts(t.Context(), second))
	_, err = k.m.Approve(t.Context(), first.ID, "ann")
	require.NoError(t, err)
	k.untilState(first.ID, lease.Ready)
	require.Contains(t, k.m.Doubts(t.Context(), second), "caps.per_day")
	_, err = k.m.Approve(t.Context(), second.ID, "ann")
	require.NoError(t, err)
	got := k.untilState(second.ID, lease.Ended)
	require.Equal(t, lease.Refused, got.Reason)
	require.Contains(t, got.Detail, "caps.per_day")
	require.Equal(t, 1, k.sim.LaunchCount())
}

// A command that is about to end, and starts no keeper, leaves an approved launch to others.
func TestCommandThatStartsNoGuardLaunchesNothing(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, askAlways)
	l := k.launch(lease.LaunchRequest{})
	k.halt()
	k.noLaunch = true
	k.start(k.client(k.sim.APIKey()))
	_, err := k.m.Approve(t.Context(), l.ID, "ann")
	require.NoError(t, err)
	k.pass(20, time.Second)
	require.Equal(t, lease.AwaitingApproval, k.get(l.ID).State)
	require.Zero(t, k.sim.LaunchCount())
	k.noLaunch = false
	k.restart()
	k.untilState(l.ID, lease.Ready)
}
