package lease_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// calmSetup is a world in which nothing happens but what a script says.
var calmSetup = setup{
	Boot: time.Minute, End: 20 * time.Second, Linger: -1, Hour: 9 * time.Hour, Lag: 300 * time.Millisecond,
	PerDay: 200 * policy.Dollar, Leases: 6, Idle: policy.IdleOff, Seed: 1,
}

func askingSetup() setup {
	s := calmSetup
	s.Ask = policy.AlwaysAsk
	return s
}

// noResults and a10 are a launch of the model without anything special.
const noResults = 16

func a10(ttl, gap time.Duration) move {
	return move{Do: "launch", X: "gpu_1x_a10", D: ttl, N: noResults, Gap: gap}
}

// What the model has found in the manager, as short as it can be told.
func TestSequencesThatTheModelHasFound(t *testing.T) {
	t.Parallel()
	empty := lambdatest.Fault{Op: lambdatest.OpListInstances, Omit: "*", Count: 1}
	typesFail := lambdatest.Fault{Op: lambdatest.OpListTypes, Code: lambdatest.CodeInvalidKey, Until: 30 * time.Minute}
	unlisted := lambdatest.Fault{Op: lambdatest.OpLaunch, Count: 1, Cut: lambdatest.CutAfter, UnlistedFor: 5 * time.Minute}
	wrongDate := lambdatest.Fault{Op: lambdatest.OpListInstances, ClockSkew: -18 * time.Hour, Until: 25 * time.Minute}
	tests := map[string]script{
		// It was stopping for ever and held its reservation: nothing was sent, so nothing was looked for.
		"whoever stops an unsent launch dies before it settles": {calmSetup, []move{
			{Do: "kill at", X: "key-added"}, a10(time.Hour, 10*time.Second),
			{Do: "start", Who: 1}, {Do: "kill at", Who: 1, X: "stop-written", Gap: 10 * time.Minute},
		}},
		// The home's process tried without a pause to launch what only the leader can let expire.
		"the leader is suspended when an approved request expires": {askingSetup(), []move{
			a10(time.Hour, time.Minute), {Do: "fault", X: "types fail", Fault: typesFail}, {Do: "approve", Gap: 10 * time.Second},
			{Do: "start", Who: 2}, {Do: "kill", Gap: 10 * time.Second}, {Do: "start", Gap: 14*time.Minute + 30*time.Second},
			{Do: "suspend", Who: 2, D: 5 * time.Minute, Gap: 2 * time.Minute},
		}},
		// The newest answer's clock was taken once more, for now: the time that our clock had jumped to
		// was sure, and ended the lease.
		"the clock jumps before an extension": {calmSetup, []move{
			a10(90*time.Minute, 5*time.Minute), {Do: "clock", D: 8 * time.Hour, N: 10}, {Do: "extend", N: 4, Gap: 20 * time.Minute},
		}},
		// The launch seemed to be hours old, and its instance not to have come.
		"the clock jumps between a reservation and its launch": {calmSetup, []move{
			{Do: "start", Who: 1}, {Do: "fault", X: "launch unlisted", Fault: unlisted},
			{Do: "suspend at", X: "key-added", D: time.Minute}, a10(time.Hour, 20*time.Second), {Do: "clock", D: -9 * time.Hour, N: 60, Gap: 10 * time.Minute},
		}},
		// Private keys stayed on disk.
		"a lease is settled by another home": {calmSetup, []move{
			{Do: "start", Who: 2}, a10(10*time.Minute, 5*time.Minute), {Do: "kill", Gap: 30 * time.Minute},
		}},
		"whoever launches dies when the key is saved": {calmSetup, []move{{Do: "kill at", X: "key-saved"}, a10(time.Hour, time.Minute)}},
		"whoever settles dies before the key is gone": {calmSetup, []move{{Do: "kill at", X: "settled"}, a10(5*time.Minute, time.Hour)}},
		// An absence that was noted an hour before counted as the end: an hour was not settled.
		"one listing lacks an instance, and nobody looks for an hour": {calmSetup, []move{
			a10(100*time.Minute, 5*time.Minute), {Do: "kill at", X: "absence-noted"}, {Do: "fault", X: "list empty", Fault: empty, Gap: time.Hour},
			{Do: "instance", X: "vanish", Gap: 5 * time.Minute}, {Do: "start", Gap: time.Minute},
		}},
		// It was settled as gone, came back, and was found by the next hour's sweep.
		"the cloud denies a machine that it bills, and the time is wrong": {calmSetup, []move{
			{Do: "fault", X: "date long", Fault: wrongDate}, a10(90*time.Minute, 10*time.Minute),
			{Do: "fault", X: "stale", Fault: lambdatest.Fault{Op: lambdatest.OpListInstances, Omit: "*", Until: 3 * time.Minute}, Gap: 30 * time.Minute},
		}},
		// A stop that could not be written asked for the next look at once, and for ever.
		"a ledger that cannot be written, when only another key is there": {calmSetup, []move{
			{Do: "kill at", X: "key-added"}, a10(time.Hour, 20*time.Second), {Do: "ledger", X: "write", D: 9 * time.Minute},
			{Do: "another key", Which: 3, D: 30 * time.Minute, Gap: 15 * time.Minute},
		}},
	}
	g := newPlayground(t)
	for name, s := range tests {
		t.Run(name, func(t *testing.T) {
			out := g.play(t, s, plant{})
			require.Empty(t, out.violation, "%s\n%s", s, strings.Join(out.trace, "\n"))
			for _, m := range s.Moves {
				if m.Do == "kill at" {
					require.Contains(t, strings.Join(out.trace, "\n"), "kill at "+m.X+"\n", "it never came to that")
				}
			}
		})
	}
}

// The cloud's own clock goes wrong, in answer after answer, after a launch. When the
// lease ends before it has begun, as it seems, its reservation is what it has cost.
func TestEndBeforeTheBeginning(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: time.Hour})
	l = k.untilState(l.ID, lease.Ready)
	k.pass(10, time.Minute)
	k.sim.Inject(lambdatest.Fault{Op: "*", ClockSkew: -13 * time.Hour})
	k.pass(10, 10*time.Second)
	_, err := k.m.Stop(t.Context(), l.ID)
	require.NoError(t, err)
	l = k.untilBy(l.ID, "over", 5*time.Second, func(l lease.Lease) bool { return l.State == lease.Ended })
	require.True(t, l.GoneAt.Before(l.LaunchSentAt), "its times are in order")
	k.settled(l)
}
