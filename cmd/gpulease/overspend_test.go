//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/ledger/postgrestest"
	"github.com/gpulease/gpulease/policy"
)

// raceVariable is how long sixteen processes try to overspend, for instance 30s.
// Without it there are fewer, for a shorter time.
const raceVariable = "GPULEASE_RACE"

// What the processes try to get over. Each cap is the one that binds at some time:
// three of the types together are over the burn rate, cheap ones are too many first, and the day
// fills up with what they have cost.
const (
	raceLeases  = 5
	raceBurn    = 3 * policy.Dollar
	raceDay     = 2 * policy.Dollar
	raceCallers = 2 // for each process
)

var raceTypes = []string{"gpu_1x_a10", "gpu_1x_rtx6000", "cpu_4x_general"}

// Many processes, each with its own server, try to launch more than is allowed, through MCP, as fast as they can. What
// runs, and what is reserved, is never over a cap.
func TestProcessesCannotOverspend(t *testing.T) {
	// Not beside other tests: these processes take all of the computer, and nobody may be refused for that.
	beside := func(t *testing.T) {
		if os.Getenv(raceVariable) == "" { // what is measured is measured alone
			t.Parallel()
		}
	}
	t.Run("SQLite", func(t *testing.T) {
		beside(t)
		overspend(t, func(w *world) string { return filepath.Join(w.state(), "ledger.db") })
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		beside(t)
		overspend(t, func(*world) string { return postgrestest.Shared(t).NewAddress(t) })
	})
}

// attempt is a call of launch_lease.
type attempt struct {
	took    time.Duration
	refusal lease.Code // "" for a lease
}

func overspend(t *testing.T, address func(*world) string) {
	processes, lasting := 6, 8*time.Second
	if text := os.Getenv(raceVariable); text != "" {
		d, err := time.ParseDuration(text)
		require.NoError(t, err)
		processes, lasting = 16, d
	}
	w := newWorld(t, lambdatest.Config{BootTime: 200 * time.Millisecond, TerminateTime: 100 * time.Millisecond})
	url := address(w)
	w.env = append(w.env, paceVariable+"=1ms", "GPULEASE_LEDGER="+url, "GPULEASE_LOG_LEVEL=warn",
		fmt.Sprintf("GPULEASE_POLICY_SET=max_leases=%d;caps.burn_per_hour=%s;caps.per_day=%s", raceLeases, raceBurn.Decimal(), raceDay.Decimal()))
	hosts := make([]*host, processes)
	for i := range hosts {
		hosts[i] = w.host()
	}
	db, err := ledger.Open(t.Context(), url, ledger.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })

	ctx, cancel := context.WithTimeout(t.Context(), lasting)
	defer cancel()
	began := time.Now()
	watched := make(chan error, 1)
	looks := 0
	go func() { watched <- watchSpending(ctx, w.sim, db, &looks) }()
	var all sync.WaitGroup
	var mu sync.Mutex
	var attempts []attempt
	var errs []error
	for i, h := range hosts {
		for j := range raceCallers {
			all.Go(func() {
				got, err := grab(ctx, h, rand.New(rand.NewPCG(uint64(i), uint64(j))))
				mu.Lock()
				defer mu.Unlock()
				attempts = append(attempts, got...)
				errs = append(errs, err)
			})
		}
	}
	all.Wait()
	took := time.Since(began)
	require.NoError(t, errors.Join(errs...))
	require.NoError(t, <-watched)

	out, err := w.program("stop", "--all").CombinedOutput()
	require.NoError(t, err, "%s", out)
	w.settledWithin(db, attempts)
	report(t, attempts, took, processes, looks)
}

// grab launches and stops until ctx ends.
func grab(ctx context.Context, h *host, r *rand.Rand) (got []attempt, err error) {
	for ctx.Err() == nil {
		began := time.Now()
		id, refusal, err := h.ask("launch_lease", map[string]any{"type": raceTypes[r.IntN(len(raceTypes))], "ttl_minutes": 1})
		if err != nil {
			return got, err
		}
		got = append(got, attempt{time.Since(began), refusal})
		switch refusal {
		case lease.CodePolicyDenied, lease.CodeBudgetExceeded:
			continue
		case "":
		default:
			return got, fmt.Errorf("launch_lease was refused for another reason: %s", refusal)
		}
		if _, refusal, err = h.ask("stop_lease", map[string]any{"lease_id": id}); err != nil || refusal != "" {
			return got, fmt.Errorf("stop_lease %s: %s: %w", id, refusal, err)
		}
	}
	return got, nil
}

// ask is call for goroutines that are not the test's own.
func (h *host) ask(tool string, args map[string]any) (id string, refusal lease.Code, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // no call blocks longer than 45 s
	defer cancel()
	res, err := h.session.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: args})
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", tool, err)
	}
	if res.IsError {
		code, _, _ := strings.Cut(strings.TrimPrefix(res.Content[0].(*mcp.TextContent).Text, "error "), ":")
		return "", lease.Code(code), nil
	}
	id, _ = res.StructuredContent.(map[string]any)["lease_id"].(string)
	return id, "", nil
}

// watchSpending compares what runs and what the ledger counts with the caps until ctx ends.
func watchSpending(ctx context.Context, sim *lambdatest.Server, db *ledger.DB, looks *int) error {
	for ; ctx.Err() == nil; *looks++ {
		if err := within(sim.Running()); err != nil {
			return err
		}
		now := time.Now().UTC()
		day := now.Truncate(24 * time.Hour)
		u, err := db.Usage(context.WithoutCancel(ctx), "default", now, lease.Periods{Day: day, Week: day, Month: day})
		if err != nil {
			return err
		}
		if a := u.Account; a.Day > raceDay || a.BurnPerHour > raceBurn || a.Leases > raceLeases {
			return fmt.Errorf("the ledger is over a cap: %+v", a)
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

func within(running []lambdatest.Instance) error {
	var burn policy.Money
	for _, i := range running {
		burn += policy.Cents(i.PriceCentsPerHour)
	}
	if len(running) > raceLeases || burn > raceBurn {
		return fmt.Errorf("over a cap: %d machines run, for %s/h", len(running), burn)
	}
	return nil
}

// settledWithin checks the end: every moment by the simulator's own records, and the money.
func (w *world) settledWithin(db *ledger.DB, attempts []attempt) {
	w.t.Helper()
	instances := w.sim.Instances()
	for _, at := range instances { // what ran at the moment of each launch: only a launch makes it more
		running := slices.DeleteFunc(slices.Clone(instances), func(i lambdatest.Instance) bool {
			return i.LaunchedAt.After(at.LaunchedAt) || !i.TerminatedAt.After(at.LaunchedAt)
		})
		require.NoError(w.t, within(running), "at %s", at.LaunchedAt)
	}
	require.Empty(w.t, w.sim.Running())
	leases, err := db.List(w.t.Context(), 0)
	require.NoError(w.t, err)
	var cost policy.Money
	for _, l := range leases {
		require.Equal(w.t, lease.Ended, l.State)
		require.Zero(w.t, l.Reserved)
		cost += l.Cost
	}
	require.Len(w.t, instances, len(leases), "as many machines as leases")
	allowed := slices.DeleteFunc(slices.Clone(attempts), func(a attempt) bool { return a.refusal != "" })
	require.Len(w.t, leases, len(allowed))
	require.NotEmpty(w.t, allowed)
	require.Less(w.t, len(allowed), len(attempts), "nobody was refused: that was no attack")
	require.GreaterOrEqual(w.t, cost, policy.Money(w.sim.Bill().Total))
	require.LessOrEqual(w.t, cost, raceDay)
	require.NoError(w.t, db.Verify(w.t.Context()))
}

func report(t *testing.T, attempts []attempt, took time.Duration, processes, looks int) {
	t.Helper()
	codes := map[lease.Code]int{}
	times := make([]time.Duration, 0, len(attempts))
	for _, a := range attempts {
		codes[a.refusal]++
		times = append(times, a.took)
	}
	slices.Sort(times)
	at := func(share float64) time.Duration {
		return times[min(len(times)-1, int(share*float64(len(times))))].Round(time.Millisecond)
	}
	refused := make([]string, 0, len(codes))
	for _, c := range slices.Sorted(maps.Keys(codes)) {
		if c != "" {
			refused = append(refused, fmt.Sprintf("%s %d", c, codes[c]))
		}
	}
	t.Logf("%d processes with %d callers each, %s: %d attempts (%.1f/s), %d allowed, refused: %s; launch_lease p50 %s, p99 %s, longest %s; %d looks at the caps",
		processes, raceCallers, took.Round(100*time.Millisecond), len(attempts), float64(len(attempts))/took.Seconds(), codes[""], strings.Join(refused, ", "),
		at(0.5), at(0.99), times[len(times)-1].Round(time.Millisecond), looks)
}
