package lambda_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
)

// turns notes who got a turn, and when since the start.
type turns struct {
	mu    sync.Mutex
	wg    sync.WaitGroup
	start time.Time
	got   []turn
}

type turn struct {
	class lambda.Class
	name  string
	at    time.Duration
}

func newTurns() *turns { return &turns{start: time.Now()} }

// ask starts a goroutine that waits for a turn. It returns when that goroutine waits.
func (s *turns) ask(t *testing.T, l lambda.Limiter, class lambda.Class, name string) {
	s.wg.Go(func() {
		if assert.NoError(t, l.Wait(t.Context(), class)) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.got = append(s.got, turn{class, name, time.Since(s.start)})
		}
	})
	synctest.Wait()
}

func (s *turns) order() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, g := range s.got {
		fmt.Fprintf(&b, "%s@%s ", g.name, g.at)
	}
	return strings.TrimSpace(b.String())
}

func round() lambda.PacerConfig {
	return lambda.PacerConfig{Interval: time.Second, LaunchInterval: 12 * time.Second}
}

func TestPacerServesTheMostUrgentFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := lambda.NewPacer(round()), newTurns()
		s.ask(t, p, lambda.ClassRead, "r1") // goes at once; the others find the slot taken
		s.ask(t, p, lambda.ClassRead, "r2")
		s.ask(t, p, lambda.ClassChange, "c1")
		s.ask(t, p, lambda.ClassLaunch, "l1")
		s.ask(t, p, lambda.ClassTerminate, "t1")
		s.ask(t, p, lambda.ClassTerminate, "t2")
		s.wg.Wait()
		require.Equal(t, "r1@0s t1@1s t2@2s l1@3s c1@4s r2@5s", s.order())
	})
}

func TestPacerKeepsLaunchesApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := lambda.NewPacer(round()), newTurns()
		s.ask(t, p, lambda.ClassLaunch, "l1")
		s.ask(t, p, lambda.ClassLaunch, "l2")
		s.ask(t, p, lambda.ClassLaunch, "l3")
		s.ask(t, p, lambda.ClassRead, "r1") // does not wait for the launches
		s.ask(t, p, lambda.ClassRead, "r2")
		s.wg.Wait()
		require.Equal(t, "l1@0s r1@1s r2@2s l2@12s l3@24s", s.order())
	})
}

// A stream of terminates may not keep the reads from confirming that they worked.
func TestPacerPassesNobodyOverForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := lambda.NewPacer(round()), newTurns()
		s.ask(t, p, lambda.ClassTerminate, "t")
		for range 12 {
			s.ask(t, p, lambda.ClassTerminate, "t")
		}
		s.ask(t, p, lambda.ClassRead, "r")
		s.ask(t, p, lambda.ClassRead, "r")
		s.wg.Wait()
		require.Equal(t, "t@0s t@1s t@2s t@3s t@4s r@5s t@6s t@7s t@8s t@9s r@10s t@11s t@12s t@13s t@14s", s.order())
	})
}

func TestPacerLetsWaitersLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := lambda.NewPacer(round()), newTurns()
		s.ask(t, p, lambda.ClassRead, "r1")
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() { left <- p.Wait(ctx, lambda.ClassRead) }() // this one drives the queue
		synctest.Wait()
		s.ask(t, p, lambda.ClassRead, "r2")
		cancel()
		require.ErrorIs(t, <-left, context.Canceled)
		require.ErrorIs(t, p.Wait(ctx, lambda.ClassTerminate), context.Canceled)
		s.wg.Wait()
		require.Equal(t, "r1@0s r2@1s", s.order(), "somebody else drives on, and no slot is lost")
	})
	require.ErrorContains(t, lambda.NewPacer(lambda.PacerConfig{}).Wait(t.Context(), 9), "unknown class")
}

func TestPacerHoldsBackAfterTooManyRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := lambda.NewPacer(round()), newTurns()
		p.Throttled(t.Context(), lambda.ClassRead, 5*time.Second)
		s.ask(t, p, lambda.ClassRead, "r1")
		s.wg.Wait()
		p.Throttled(t.Context(), lambda.ClassLaunch, 0)
		s.ask(t, p, lambda.ClassLaunch, "l1")
		s.ask(t, p, lambda.ClassRead, "r2")
		s.wg.Wait()
		p.Throttled(t.Context(), lambda.ClassRead, 24*time.Hour) // a terminate cannot wait that long
		s.ask(t, p, lambda.ClassTerminate, "t1")
		s.wg.Wait()
		require.Equal(t, "r1@5s r2@7s l1@17s t1@47s", s.order())
	})
}

// Pacers that share a gate are like processes that share an account.
func TestPacersShareAGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := &countingGate{Gate: lambda.NewGate(time.Now)}
		s := newTurns()
		cfg := round()
		cfg.Gate = gate
		for i := range 5 {
			p := lambda.NewPacer(cfg)
			s.ask(t, p, lambda.ClassRead, fmt.Sprint("r", i))
			s.ask(t, p, lambda.ClassRead, fmt.Sprint("r", i))
			s.ask(t, p, lambda.ClassLaunch, fmt.Sprint("l", i))
		}
		urgent := lambda.NewPacer(cfg)
		s.ask(t, urgent, lambda.ClassTerminate, "t")
		s.wg.Wait()
		require.Len(t, s.got, 16)
		require.Equal(t, "r0", s.got[0].name)
		require.Equal(t, turn{lambda.ClassTerminate, "t", time.Second}, s.got[1], "the urgent one of another process is next")
		var last, lastLaunch time.Duration = -time.Hour, -time.Hour
		for _, g := range s.got {
			require.GreaterOrEqual(t, g.at-last, time.Second, "%v", s.got)
			last = g.at
			if g.class == lambda.ClassLaunch {
				require.GreaterOrEqual(t, g.at-lastLaunch, 12*time.Second, "%v", s.got)
				lastLaunch = g.at
			}
		}
		launches := slices.DeleteFunc(slices.Clone(s.got), func(g turn) bool { return g.class != lambda.ClassLaunch })
		require.Len(t, launches, 5)
		require.Less(t, launches[4].at, 51*time.Second)
		require.Less(t, gate.count(), 400, "a gate in a database is not to be asked all the time")
	})
}

type countingGate struct {
	lambda.Gate
	mu    sync.Mutex
	takes int
}

func (g *countingGate) Take(ctx context.Context, slots ...lambda.Slot) (time.Duration, error) {
	g.mu.Lock()
	g.takes++
	g.mu.Unlock()
	return g.Gate.Take(ctx, slots...)
}

func (g *countingGate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.takes
}

// brokenGate is a database that is away.
type brokenGate struct{ err error }

func (g brokenGate) Take(context.Context, ...lambda.Slot) (time.Duration, error) { return 0, g.err }
func (g brokenGate) Hold(context.Context, string, time.Duration) error           { return g.err }

func TestPacerWithoutItsGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := round()
		broken := errors.New("database is locked")
		cfg.Gate = brokenGate{broken}
		p, s := lambda.NewPacer(cfg), newTurns()
		s.ask(t, p, lambda.ClassTerminate, "t1")
		s.ask(t, p, lambda.ClassRead, "r1")
		s.ask(t, p, lambda.ClassTerminate, "t2")
		require.ErrorIs(t, p.Wait(t.Context(), lambda.ClassLaunch), broken, "a launch needs the shared limit")
		s.wg.Wait()
		require.Equal(t, "t1@0s t2@1s r1@2.03s", s.order(), "all else goes at this process's own pace")
		p.Throttled(t.Context(), lambda.ClassRead, 5*time.Second)
		s.ask(t, p, lambda.ClassTerminate, "t3")
		s.wg.Wait()
		require.Contains(t, s.order(), "t3@7.03s")
	})
}

// hungGate is a database that does not answer.
type hungGate struct{}

func (hungGate) Take(ctx context.Context, _ ...lambda.Slot) (time.Duration, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}
func (hungGate) Hold(context.Context, string, time.Duration) error { return nil }

func TestPacerWithAGateThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := round()
		cfg.Gate = hungGate{}
		p, s := lambda.NewPacer(cfg), newTurns()
		s.ask(t, p, lambda.ClassTerminate, "t1")
		s.wg.Wait()
		require.Equal(t, "t1@3s", s.order())
	})
}

// The one who asks the gate for others may leave; that must not be their refusal.
func TestPacerDriverLeavesWhileItAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := round()
		gate := &hangsOnce{Gate: lambda.NewGate(nil), slots: 2}
		cfg.Gate = gate
		p, s := lambda.NewPacer(cfg), newTurns()
		s.ask(t, p, lambda.ClassRead, "r1")
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() { left <- p.Wait(ctx, lambda.ClassRead) }() // drives
		synctest.Wait()
		s.ask(t, p, lambda.ClassLaunch, "l1") // is asked for next, by the other, at a gate that hangs
		time.Sleep(2 * time.Second)
		require.True(t, gate.hung())
		cancel()
		require.ErrorIs(t, <-left, context.Canceled)
		s.wg.Wait()
		require.Equal(t, "r1@0s l1@2s", s.order())
	})
}

// hangsOnce hangs at the first question for that many slots.
type hangsOnce struct {
	lambda.Gate
	slots int
	mu    sync.Mutex
	done  bool
}

func (g *hangsOnce) Take(ctx context.Context, slots ...lambda.Slot) (time.Duration, error) {
	g.mu.Lock()
	hang := !g.done && len(slots) == g.slots
	g.done = g.done || hang
	g.mu.Unlock()
	if hang {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return g.Gate.Take(ctx, slots...)
}

func (g *hangsOnce) hung() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.done
}

func TestGate(t *testing.T) {
	now := time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)
	g := lambda.NewGate(func() time.Time { return now })
	a, b := lambda.Slot{Name: "a", Every: time.Second}, lambda.Slot{Name: "b", Every: 12 * time.Second}
	take := func(slots ...lambda.Slot) time.Duration {
		d, err := g.Take(t.Context(), slots...)
		require.NoError(t, err)
		return d
	}
	require.Zero(t, take(a, b))
	require.Equal(t, time.Second, take(a))
	require.Equal(t, 12*time.Second, take(a, b))
	now = now.Add(time.Second)
	require.Equal(t, 11*time.Second, take(a, b), "one slot is free")
	require.Zero(t, take(a), "and was not taken by the call that needed both")

	require.NoError(t, g.Hold(t.Context(), "a", 5*time.Second))
	require.NoError(t, g.Hold(t.Context(), "a", time.Second))
	require.Equal(t, 5*time.Second, take(a), "a shorter hold does not free it")
	now = now.Add(-3 * time.Hour)
	require.Zero(t, take(a), "a clock that was set back does not stop everything")
}

// The limiter hears of too many requests, in either shape, and of nothing else.
func TestLimiterIsToldOfTooManyRequests(t *testing.T) {
	l := &listening{}
	for _, answer := range []*fake{always(429, "", "Retry-After", "9"), always(403, page1015), always(503, "", "Retry-After", "9"), always(403, page1010)} {
		_, err := newClient(t, answer, lambda.WithLimiter(l)).Launch(background(t), goodLaunch())
		require.Error(t, err)
	}
	require.Equal(t, []string{"launch 9s", "launch 0s"}, l.heard)
}

type listening struct{ heard []string }

func (*listening) Wait(context.Context, lambda.Class) error { return nil }
func (l *listening) Throttled(_ context.Context, c lambda.Class, d time.Duration) {
	l.heard = append(l.heard, fmt.Sprint(c, " ", d))
}

// The whole client under load: a hundred agents ask for capacity for 30 s, while leases are started and ended.
func TestHundredAgents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := hundredAgents(t, t.Context(), 30*time.Second)
		t.Logf("in 30 s: %d requests, %d answered by 429, %d for types; %d answers to agents; %d launches; terminate took %s at worst, %s on average",
			r.requests, r.tooMany, r.types, r.answers, r.launches, r.terminateWorst, r.terminateMean)
		require.Zero(t, r.tooMany, "429s")
		require.LessOrEqual(t, r.requests, 30)
		require.Greater(t, r.answers, 100*30, "each agent is answered all the time")
		require.LessOrEqual(t, r.types, 7, "requests for types: one in 5 s")
		require.LessOrEqual(t, r.terminateWorst, lambda.DefaultInterval+200*time.Millisecond, "one turn and the answer's own time")
		require.Equal(t, 3, r.launches, "in 30 s")
	})
}

// A hundred agents that ask at the same moment cost one request.
func TestHundredAgentsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &strictCloud{latency: 300 * time.Millisecond}
		c := newClient(t, cloud, lambda.WithLimiter(lambda.NewPacer(lambda.PacerConfig{})))
		var wg sync.WaitGroup
		start := time.Now()
		for range 100 {
			wg.Go(func() {
				offers, err := c.InstanceTypes(t.Context())
				assert.NoError(t, err)
				assert.Len(t, offers, 2)
			})
		}
		wg.Wait()
		require.Equal(t, 300*time.Millisecond, time.Since(start))
		require.Equal(t, 1, cloud.stats().requests)
	})
}
