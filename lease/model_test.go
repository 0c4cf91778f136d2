package lease_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The model plays random sequences of requests, failures, deaths, suspensions and
// wrong clocks against the real manager, the real ledger and the simulated cloud,
// in virtual time, and looks at the promises at every step:
//
//   - At each reservation, what is held and spent is within every cap.
//   - The cloud's bill of a lease is never above what is held or settled for it.
//   - A lease has at most one instance. Its launch is never sent again unless the cloud
//     has refused it, and only with intent and reservation on disk and without a freeze.
//   - What becomes ready is alive; what has ended is gone; only what somebody has decided to
//     end, on disk, is terminated, and nothing that is not ours.
//   - Nothing of ours outlives its end by more than some minutes while a process can act.
//   - When all is quiet, nothing runs, nothing is held, no key is left, and the ledger verifies.
//   - Where nothing went wrong, no more is settled than the bill, what ending takes, and four looks at the cloud.
//
// Four things that no process can know are left out of the comparison with the bill,
// and of that alone: what an instance costs that is hidden for longer than the settling
// time (10 minutes), until it shows and an hour's sweep has found it; what one costs whose
// listing and whose own page both deny it, in the same way; what one has cost that ended by
// itself before anybody saw it, after a launch without an answer or at a price that had
// risen; and leases that live while the
// cloud's Date is wrong for many answers in a row. While a process's clock differs from the
// cloud's by up to the minute that counts as agreement, two minutes are allowed for.
//
// What is not reproducible of a sequence is which of two goroutines runs first that
// wake at the same moment of virtual time.

// env reads a number from the environment.
func env(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// failure is a sequence that has violated a promise.
type failure struct {
	seed int
	script
	outcome
}

// TestModel plays as many sequences as GPULEASE_MODEL_RUNS says (make model: 10,000), from
// the seed GPULEASE_MODEL_SEED on.
func TestModel(t *testing.T) {
	t.Parallel()
	runs := 150
	if raceEnabled || testing.Short() {
		runs = 10
	}
	runs = env("GPULEASE_MODEL_RUNS", runs)
	seed := env("GPULEASE_MODEL_SEED", 1)
	workers := env("GPULEASE_MODEL_WORKERS", 1)
	g := newPlayground(t)
	began := time.Now()

	var mu sync.Mutex
	stats := map[string]int{}
	var failed []failure
	next := 0
	t.Run("sequences", func(t *testing.T) {
		for n := range workers {
			t.Run(strconv.Itoa(n), func(t *testing.T) {
				if workers > 1 {
					t.Parallel()
				}
				for {
					mu.Lock()
					s := seed + next
					next++
					enough := next > runs || len(failed) >= 10
					mu.Unlock()
					if enough {
						return
					}
					f := failure{seed: s, script: scripts.Example(s)}
					f.outcome = g.play(t, f.script, plant{})
					mu.Lock()
					for k, v := range f.stats {
						stats[k] += v
					}
					if f.violation != "" {
						failed = append(failed, f)
						fmt.Fprintf(os.Stderr, "seed %d: %s\n", s, f.violation) // at once: the long form takes long
					}
					if next%1000 == 0 {
						fmt.Fprintf(os.Stderr, "%d sequences in %s, %d failed\n", next, time.Since(began).Round(time.Second), len(failed))
					}
					mu.Unlock()
				}
			})
		}
	})
	for _, f := range failed {
		small, trace := g.shrink(t, f)
		t.Errorf("seed %d: %s\nagain: GPULEASE_MODEL_SEED=%d GPULEASE_MODEL_RUNS=1 go test -run '^TestModel$' ./lease\n%s\n%s",
			f.seed, f.violation, f.seed, small, strings.Join(trace, "\n"))
	}
	t.Logf("%d sequences from seed %d in %s: %s", runs, seed, time.Since(began).Round(time.Second), told(stats))
	if len(failed) == 0 && runs >= 100 {
		checkCoverage(t, stats)
	}
}

// shrink leaves moves out as long as the sequence still fails.
func (g playground) shrink(t *testing.T, f failure) (script, []string) {
	t.Helper()
	s, trace := f.script, f.trace
	until := time.Now().Add(20 * time.Second)
	for size := len(s.Moves) / 2; size > 0; size /= 2 {
		for from := 0; from+size <= len(s.Moves) && time.Now().Before(until); {
			less := s
			less.Moves = slices.Delete(slices.Clone(s.Moves), from, from+size)
			if out := g.play(t, less, plant{}); out.violation != "" {
				s, trace = less, out.trace
			} else {
				from += size
			}
		}
	}
	return s, trace
}

func told(stats map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(stats)) {
		if kind, _, _ := strings.Cut(k, " "); !slices.Contains([]string{"point", "move", "fault", "hit"}, kind) {
			parts = append(parts, fmt.Sprintf("%d %s", stats[k], k))
		}
	}
	return strings.Join(parts, ", ")
}

// checkCoverage: what is never reached proves nothing.
func checkCoverage(t *testing.T, stats map[string]int) {
	t.Helper()
	for _, p := range crashPoints {
		if stats["point "+p] == 0 && p != "adopted" && p != "adopting" {
			t.Errorf("the crash point %q was never reached", p)
		}
	}
	for _, k := range kinds {
		if stats["move "+k.do] == 0 {
			t.Errorf("nothing ever did %q", k.do)
		}
	}
	for name := range faults {
		if stats["hit "+name] == 0 {
			t.Errorf("the fault %q never hit", name)
		}
	}
}
