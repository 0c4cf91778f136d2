package lease_test

import (
	"fmt"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/policy"
)

// script is one sequence of the model: the world that it is played in, and what
// happens there. It is drawn as a whole before it is played, so it can be printed,
// played again and made smaller.
type script struct {
	Setup setup
	Moves []move
}

// setup is what stays the same over a sequence.
type setup struct {
	Boot, End, Linger time.Duration // of instances in the simulated cloud
	Newer, Once       bool          // see lambdatest.Config
	Hour              time.Duration // time of the day at which it begins
	Lag               time.Duration // longest way of a request, and of its answer
	Dawdle            int           // every so many points a process takes up to 40 s for nothing; 0: never
	Coarse            bool          // a tick of 10 s instead of the default
	PerDay, Lifetime  policy.Money
	Ask               policy.Money // approve above
	Leases            int
	Idle              policy.IdleMode
	Untracked         bool // foreign instances count as spending
	Seed              uint64
}

// move is one thing that happens, and how much time passes after it.
type move struct {
	Do    string
	Who   int           // which process
	Which int           // which lease, instance or earlier request, counted from the newest
	D     time.Duration // what Do needs
	N     int           // what Do needs
	X     string        // what Do needs
	Fault lambdatest.Fault
	Gap   time.Duration // until the next move
}

func (m move) String() string {
	s := fmt.Sprintf("%-14s who=%d which=%d", m.Do, m.Who, m.Which)
	if m.X != "" {
		s += " x=" + m.X
	}
	if m.D != 0 || m.N != 0 {
		s += fmt.Sprintf(" d=%s n=%d", m.D, m.N)
	}
	if m.Do == "fault" {
		s += fmt.Sprintf(" %+v", m.Fault)
	}
	return s + fmt.Sprintf(" gap=%s", m.Gap)
}

func (s script) String() string {
	lines := []string{fmt.Sprintf("setup %+v", s.Setup)}
	for _, m := range s.Moves {
		lines = append(lines, m.String())
	}
	return strings.Join(lines, "\n")
}

// uniform draws an index below n. What rapid draws by itself is mostly small.
func uniform(r *rapid.T, n int) int {
	const bits = 16
	v := 0
	for range bits {
		v <<= 1
		if rapid.Bool().Draw(r, "bit") {
			v++
		}
	}
	return v % n
}

func pick[T any](r *rapid.T, of ...T) T { return of[uniform(r, len(of))] }

// span draws a duration between two, in whole seconds.
func span(r *rapid.T, from, to time.Duration) time.Duration {
	return from + time.Duration(uniform(r, int((to-from)/time.Second)+1))*time.Second
}

var scripts = rapid.Custom(func(r *rapid.T) script {
	s := script{Setup: setup{
		Boot: span(r, 20*time.Second, 6*time.Minute), End: pick(r, -1, 20*time.Second, 2*time.Minute, 4*time.Minute), Linger: pick(r, -1, 10*time.Second, 5*time.Minute),
		Newer: pick(r, true, false), Once: pick(r, true, false, false, false), Hour: span(r, 0, 24*time.Hour),
		Lag: pick(r, 300*time.Millisecond, 2*time.Second, 2*time.Second, 10*time.Second), Dawdle: pick(r, 0, 0, 5, 20, 60), Coarse: pick(r, true, true, true, false),
		PerDay: pick[policy.Money](r, 6, 20, 50, 200) * policy.Dollar, Lifetime: pick[policy.Money](r, 0, 0, 15, 60) * policy.Dollar,
		Ask: pick(r, 0, 0, 0, 0, 3*policy.Dollar, policy.AlwaysAsk), Leases: pick(r, 2, 3, 6),
		Idle: pick(r, policy.IdleOff, policy.IdleOff, policy.IdleWarn, policy.IdleEnforce), Untracked: pick(r, true, false),
		Seed: uint64(uniform(r, 1<<16)),
	}}
	for range 10 + uniform(r, 35) {
		s.Moves = append(s.Moves, drawMove(r))
	}
	return s
})

// kinds are the moves, each as often as its weight says.
var kinds = []struct {
	weight int
	do     string
	draw   func(r *rapid.T, m *move)
}{
	{24, "launch", func(r *rapid.T, m *move) {
		m.X = pick(r, "gpu_1x_a10", "gpu_1x_a10", "gpu_1x_a100_sxm4", "gpu_4x_a6000", "cpu_4x_general")
		m.D = pick(r, 0, time.Duration(1+uniform(r, 90))*time.Minute, time.Duration(1+uniform(r, 20))*time.Minute)
		m.N = uniform(r, 64) // bits: principal, key, results
	}},
	{5, "again", nil},
	{7, "stop", nil},
	{7, "extend", func(r *rapid.T, m *move) { m.N, m.X = 1+uniform(r, 40), pick(r, "", "c1", "c2") }},
	{7, "approve", nil},
	{2, "deny", nil},
	{2, "freeze", func(r *rapid.T, m *move) { m.D = span(r, time.Second, 20*time.Minute) }},
	{3, "freeze at", func(r *rapid.T, m *move) {
		m.X, m.D = pick(r, "reserved", "key-adding", "key-added", "launch-marking"), span(r, time.Minute, 20*time.Minute)
	}},
	{3, "caps", func(r *rapid.T, m *move) { m.N = pick(r, 0, 1, 3, 10, 40, 200) }},
	{1, "price", func(r *rapid.T, m *move) { m.N = pick(r, 50, 129, 180, 400) }},
	{10, "pass", func(r *rapid.T, m *move) { m.D = span(r, 0, 90*time.Second) }},
	{8, "pass", func(r *rapid.T, m *move) { m.D = span(r, time.Minute, 25*time.Minute) }},
	{1, "pass", func(r *rapid.T, m *move) { m.D = span(r, time.Hour, 5*time.Hour) }},
	{7, "start", nil},
	{3, "kill", nil},
	{10, "kill at", func(r *rapid.T, m *move) { m.X, m.D = pick(r, crashPoints...), pick(r, 0, span(r, 0, 30*time.Minute)) }},
	{1, "kill all", func(r *rapid.T, m *move) { m.D = pick(r, 0, span(r, 0, 6*time.Hour)) }},
	{3, "suspend", func(r *rapid.T, m *move) {
		m.D = pick(r, span(r, time.Second, 2*time.Minute), span(r, time.Minute, 40*time.Minute))
	}},
	{5, "suspend at", func(r *rapid.T, m *move) {
		m.X, m.D = pick(r, crashPoints...), pick(r, span(r, time.Second, 2*time.Minute), span(r, time.Minute, 40*time.Minute))
	}},
	{3, "clock", func(r *rapid.T, m *move) {
		m.D, m.N = pick(r, span(r, 0, 4*time.Minute), -span(r, 0, 4*time.Minute), span(r, 0, 30*time.Hour), -span(r, 0, 30*time.Hour)), uniform(r, 90)
	}},
	{1, "another key", func(r *rapid.T, m *move) { m.D = span(r, 10*time.Minute, time.Hour) }},
	{3, "ledger", func(r *rapid.T, m *move) {
		m.D, m.X = span(r, time.Second, 15*time.Minute), pick(r, "write", "write", "all")
	}},
	{4, "instance", func(r *rapid.T, m *move) { m.X = pick(r, "vanish", "vanish", "preempted", "terminated", "unhealthy") }},
	{4, "slow vanish", func(r *rapid.T, m *move) { m.D = span(r, 15*time.Second, 43*time.Second) }},
	{3, "machine", func(r *rapid.T, m *move) {
		m.X, m.D = pick(r, "wrong key", "sick", "blind", "busy", "slow fetch"), span(r, time.Minute, 40*time.Minute)
	}},
	{2, "foreign", func(r *rapid.T, m *move) {
		m.X = pick(r, "plain", "forged", "ledger", "ledger due", "our key", "our key")
	}},
	{30, "fault", func(r *rapid.T, m *move) { m.X, m.Fault = drawFault(r) }},
}

func drawMove(r *rapid.T) move {
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	n := uniform(r, total)
	for _, k := range kinds {
		if n -= k.weight; n >= 0 {
			continue
		}
		m := move{Do: k.do, Who: uniform(r, 3), Which: pick(r, 0, 0, 0, 1, 1, 2, 3)}
		if k.draw != nil {
			k.draw(r, &m)
		}
		m.Gap = pick(r, 0, 0, span(r, 0, 10*time.Second), span(r, 0, 2*time.Minute), span(r, 0, 8*time.Minute))
		return m
	}
	panic("unreachable")
}

// crashPoints are all places at which a process says that it may die there.
var crashPoints = []string{
	"absence-noted", "adopted", "adopting", "approval-reserved", "approval-reserving", "asked", "binding", "booted", "bound", "decided", "deciding", "extended",
	"extending", "forgetting", "forgotten", "found", "giving-up", "gone", "guarded", "idle", "intended", "jobs-ended", "key-added", "key-adding", "key-saved",
	"launch-lost", "launch-marked", "launch-marking", "launch-sent", "private-key-deleted", "ready", "readying", "rescue-noted", "rescued", "reserved", "seen",
	"settled", "settling", "sighted", "stop-written", "stopping", "terminate-noted", "terminate-noting", "terminate-sent", "terminating",
	// Those at which a death or a delay has most to spoil come up more often.
	"launch-marking", "launch-marked", "launch-sent", "binding", "stopping", "launch-lost", "reserved",
}
