//go:build unix

package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

// death is one cell of the crash matrix: at a point, on the way through an
// operation, the process by dies, and the process next goes on.
type death struct {
	op    string
	point string
	by    string // "serve", "keeper", or a command that does one thing
	next  string // "serve": a server without a keeper; "keeper": a keeper without a server
}

func (d death) String() string {
	return fmt.Sprintf("%s/%s/%s dies, %s goes on", d.point, d.op, d.by, d.next)
}

// plot is how a process is brought to a point. It returns a server that goes on, or
// nil where there is none yet.
type plot struct {
	cfg  lambdatest.Config
	env  []string
	play func(c *stage, d death) *host
}

const mayRepeat = "the agent's call" // an idempotency key

var plots = map[string]plot{
	"launch": {play: func(c *stage, d death) *host { return c.launching(d) }},
	"lost answer": {play: func(c *stage, d death) *host {
		c.sim.Inject(lambdatest.Fault{Op: lambdatest.OpLaunch, Count: 1, Cut: lambdatest.CutAfter})
		return c.launching(d)
	}},
	"refusal": {play: func(c *stage, d death) *host {
		c.sim.Inject(lambdatest.Fault{Op: lambdatest.OpLaunch, Count: 1, Code: lambdatest.CodeQuotaExceeded})
		return c.launching(d)
	}},
	"boot":       {cfg: lambdatest.Config{BootTime: longBoot}, play: (*stage).bootingThere},
	"stop":       {play: (*stage).stoppingThere},
	"absence":    {cfg: lambdatest.Config{TerminateTime: -1, Linger: -1}, play: (*stage).stoppingThere},
	"results":    {play: (*stage).bringingHome},
	"vanished":   {cfg: lambdatest.Config{TerminateTime: -1, Linger: -1}, play: (*stage).bringingHome},
	"preemption": {cfg: lambdatest.Config{BootTime: time.Hour, Linger: 8 * time.Second}, play: (*stage).preempted},
	"deadline":   {play: (*stage).overdue},
	"idle":       {env: []string{"GPULEASE_POLICY_SET=idle_timeout=1m"}, play: (*stage).idling},
	"naming":     {play: (*stage).naming},
	"extension":  {play: (*stage).extending},
	"approval":   {env: []string{"GPULEASE_POLICY_SET=approve_above=0"}, play: (*stage).approving},
	"adoption":   {play: (*stage).adopting},
	"tailnet":    {env: []string{"GPULEASE_POLICY_SET=network.tailscale_tags=gpulease"}, play: (*stage).joining},
}

// Where a launch can be cut short. Up to before nothing is on record, up to unsent
// nothing was sent.
var (
	unwritten = []string{"sighted", "intended"}
	unsent    = []string{"reserved", "key-saved", "guarded", "key-adding", "key-added", "launch-marking"}
	sent      = []string{"launch-marked", "launch-sent", "binding", "bound"}
	up        = []string{"seen", "booted", "host-key-recording", "host-key-recorded", "host-key-taken", "readying", "ready"}
	down      = []string{
		"terminating", "terminate-sent", "terminate-noting", "terminate-noted",
		"gone", "settling", "settled", "forgetting", "private-key-deleted", "forgotten",
	}
	joined   = []string{"tailnet-recording", "tailnet-recorded"}
	bringing = []string{"jobs-ended", "rescued", "rescue-noted"}
)

// matrix are all cells.
func matrix() []death {
	var m []death
	add := func(op, by, next string, points ...[]string) {
		for _, p := range slices.Concat(points...) {
			m = append(m, death{op, p, by, next})
		}
	}
	one := func(points ...string) []string { return points }

	// A server dies, and the next server finds what it left.
	add("launch", "serve", "serve", unwritten, unsent, sent)
	add("lost answer", "serve", "serve", one("launch-lost", "found"))
	add("refusal", "serve", "serve", one("launch-sent", "giving-up", "settling", "forgetting"))
	add("boot", "serve", "serve", up)
	add("stop", "serve", "serve", one("stopping", "stop-written"), down)
	add("absence", "serve", "serve", one("absence-noted", "gone"))
	add("results", "serve", "serve", bringing)
	add("deadline", "serve", "serve", one("stopping", "stop-written", "rescued", "rescue-noted", "terminate-sent"))
	add("idle", "serve", "serve", one("idle", "stop-written"))
	add("naming", "serve", "serve", one("naming-results", "results-named"))
	add("extension", "serve", "serve", one("extending", "extended"))
	add("approval", "serve", "serve", one("asked"))
	add("approval", "approve", "serve", one("deciding", "decided"))
	add("adoption", "reap", "serve", one("adopting", "adopted"))

	// A server dies, and the keeper goes on alone.
	add("launch", "serve", "keeper", one("guarded", "key-adding", "key-added", "launch-marking"), sent)
	add("lost answer", "serve", "keeper", one("launch-lost"))
	add("refusal", "serve", "keeper", one("giving-up"))
	add("boot", "serve", "keeper", up)
	add("stop", "serve", "keeper", one("stopping", "stop-written"), down)
	add("absence", "serve", "keeper", one("absence-noted"))
	add("results", "serve", "keeper", bringing)
	add("naming", "serve", "keeper", one("naming-results", "results-named"))
	add("approval", "serve", "keeper", one("approval-reserving", "approval-reserved", "launch-marking", "launch-sent"))

	// The keeper dies, and a server goes on.
	add("approval", "keeper", "serve", one("approval-reserving", "approval-reserved"), unsent, sent)
	add("lost answer", "keeper", "serve", one("found"))
	add("boot", "keeper", "serve", up)
	add("preemption", "keeper", "serve", one("stopping", "stop-written"))
	add("results", "keeper", "serve", bringing, down)
	add("vanished", "keeper", "serve", one("absence-noted"))

	add("tailnet", "serve", "serve", joined)
	add("tailnet", "serve", "keeper", joined)
	add("tailnet", "keeper", "serve", joined)
	return m
}

// Every point that the program has is in the matrix.
func TestCrashMatrixIsWhole(t *testing.T) {
	t.Parallel()
	rows := map[string]bool{}
	cells := map[string]bool{}
	for _, d := range matrix() {
		rows[d.point] = true
		require.Contains(t, plots, d.op)
		require.False(t, cells[d.String()], "twice: %s", d)
		cells[d.String()] = true
	}
	require.Equal(t, slices.Sorted(maps.Keys(points(t))), slices.Sorted(maps.Keys(rows)))
	require.GreaterOrEqual(t, len(rows), 25)
}

// A process is killed with SIGKILL at each step between a decision and the settled
// receipt. Whoever goes on finds everything in the ledger and in the account: at
// most one instance, none after its deadline, no less in the ledger than on the
// bill and no more than rounding, and nothing of others is touched.
func TestCrashMatrix(t *testing.T) {
	t.Parallel()
	cells := matrix()
	if raceDetector {
		cells = someCells(cells)
	}
	began := time.Now()
	// They wait far more than they work.
	const atOnce = 16
	turns := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for _, d := range cells {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			t.Run(d.String(), func(t *testing.T) { d.play(t) })
		})
	}
	all.Wait()
	byColumn := map[string]int{}
	for _, d := range cells {
		who := d.by
		if who != "serve" && who != "keeper" {
			who = "a command"
		}
		byColumn[fmt.Sprintf("%s dies, %s goes on", who, d.next)]++
	}
	t.Logf("%d points, %d cells (%v) in %s", len(points(t)), len(cells), byColumn, time.Since(began).Round(time.Second))
}

// someCells is one cell for every third point, of another column from point to point: the
// race detector makes each process several times as dear. make crash plays all cells.
func someCells(cells []death) (some []death) {
	of := map[string][]death{}
	var names []string
	for _, d := range cells {
		if of[d.point] == nil {
			names = append(names, d.point)
		}
		of[d.point] = append(of[d.point], d)
	}
	for i, name := range names {
		if i%3 == 0 {
			some = append(some, of[name][i%len(of[name])])
		}
	}
	return some
}

func (d death) play(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil && strings.HasPrefix(d.point, "host-key-") {
		require.NotEqual(t, "true", os.Getenv("CI"), "no ssh-keygen: CI must install openssh-client")
		t.Skip("no ssh-keygen here: the machine keeps its first host key")
	}
	p := plots[d.op]
	cfg := p.cfg
	cfg.BootTime = cmp.Or(cfg.BootTime, 200*time.Millisecond)
	cfg.TerminateTime = cmp.Or(cfg.TerminateTime, 100*time.Millisecond)
	c := newStage(impatient(t, cfg, p.env...))
	s := p.play(c, d)
	c.finish(d, s)
	c.verdict()
	if d.op == "results" || d.op == "naming" {
		home, err := os.ReadFile(filepath.Join(c.lease().ResultsDir, "out"))
		require.NoError(t, err)
		require.Equal(t, "42\n", string(home), "the result came home")
		manifest, err := os.ReadFile(filepath.Join(c.lease().ResultsDir, lease.ManifestName))
		require.NoError(t, err)
		require.Contains(t, string(manifest), `"complete": true`)
	}
}

// finish lets the processes that are left bring the lease to its end.
func (c *stage) finish(d death, s *host) {
	c.t.Helper()
	known := c.leases()
	launched := slices.Contains(unwritten, d.point) || slices.Contains(unsent, d.point)
	switch {
	case slices.Contains(unwritten, d.point):
		require.Empty(c.t, known)
		require.Empty(c.t, c.ours())
	case d.op != "adoption":
		require.Len(c.t, known, 1)
		require.False(c.t, launched && len(c.ours()) > 0, "it was launched before %s", d.point)
	}
	// What nobody can know any more is settled when enough time has passed.
	whoLaunched := d.by == "serve" || d.by == "keeper" // a command leaves a server that may be launching
	if len(known) == 1 && known[0].State == lease.Launching && len(c.ours()) == 0 && whoLaunched {
		if known[0].LaunchSentAt.IsZero() {
			c.advance(4 * time.Minute) // no process can still be about to send it
		} else {
			c.advance(16 * time.Minute) // nothing can still appear
		}
	}
	if d.next == "keeper" {
		require.True(c.t, known[0].State == lease.Ended || c.keeperRuns(), "it goes when nothing lives")
		l := c.untilState(lease.Ready, lease.Stopping, lease.Ended)
		if l.State == lease.Ready && d.op != "naming" {
			c.runs("stop", "--all")
			return
		}
		if l.State != lease.Ready {
			return
		}
	}
	if s == nil {
		s = c.server()
	}
	// An agent that has had no answer asks again.
	if d.op != "adoption" && (len(known) == 0 || known[0].IdempotencyKey == mayRepeat) {
		a := s.ok("launch_lease", c.args)
		if len(known) == 1 {
			require.EqualValues(c.t, known[0].ID, a.Lease, "the same call, the same lease")
		}
	}
	l := c.untilState(lease.AwaitingApproval, lease.Ready, lease.Stopping, lease.Ended)
	if l.State == lease.AwaitingApproval {
		if l.ApprovedAt.IsZero() {
			c.runs("approve", string(l.ID), "--yes")
		}
		l = c.untilState(lease.Ready, lease.Stopping, lease.Ended)
	}
	if l.State == lease.Ready {
		s.ok("stop_lease", stopArgs(d, string(l.ID)))
	}
}

func launchArgs() map[string]any {
	return map[string]any{"type": testType, "ttl_minutes": 5, "idempotency_key": mayRepeat}
}

// stopArgs are those of stop_lease.
func stopArgs(d death, id string) map[string]any {
	args := map[string]any{"lease_id": id}
	if d.op == "naming" {
		args["results"] = []string{"out"}
	}
	return args
}
