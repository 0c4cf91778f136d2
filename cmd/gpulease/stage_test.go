//go:build unix

package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/policy"
)

// stage is a world in which one lease lives, beside machines of others.
type stage struct {
	*world
	others []string // instances that are not this ledger's
	db     *ledger.DB
	args   map[string]any // of the launch

	died     time.Time     // by the cloud's clock, when a process died whose lease had not ended
	advanced time.Time     // when the clock was last moved on
	skipped  time.Duration // by which the cloud's clock was moved on so little that the program keeps its own
}

// signer signs names as every gpulease with the account's key does.
type signer struct{ key lambda.Key }

func (s signer) Sign(_ context.Context, text string) (string, error) { return s.key.Sign(text), nil }

func newStage(w *world) *stage {
	c := &stage{world: w, args: launchArgs()}
	key, err := lambda.ParseKey(w.sim.APIKey())
	require.NoError(w.t, err)
	// One of another ledger under the same key, and one whose name only looks like ours.
	neighbour, err := lease.Name{Ledger: "abcd", Lease: "abcdefghijkl", HardStop: time.Now().Add(48 * time.Hour)}.Signed(context.Background(), signer{key})
	require.NoError(w.t, err)
	for _, name := range []string{neighbour, neighbour[:len(neighbour)-4] + "aaaa"} {
		id, err := w.sim.Launch(lambdatest.Order{Type: testType, Region: "us-east-1", Name: name})
		require.NoError(w.t, err)
		c.others = append(c.others, id)
	}
	return c
}

// open opens the ledger beside the processes that use it.
func (c *stage) open() *ledger.DB {
	c.t.Helper()
	if c.db == nil {
		db, err := ledger.Open(context.Background(), filepath.Join(c.state(), "ledger.db"), ledger.Options{})
		require.NoError(c.t, err)
		c.t.Cleanup(func() { _ = db.Close() }) // the ledger of an adoption is closed before
		c.db = db
	}
	return c.db
}

func (c *stage) leases() []lease.Lease {
	c.t.Helper()
	all, err := c.open().List(context.Background(), 0)
	require.NoError(c.t, err)
	return all
}

// lease is the one that there is.
func (c *stage) lease() lease.Lease {
	c.t.Helper()
	all := c.leases()
	require.Len(c.t, all, 1)
	return all[0]
}

// ours are the instances that were launched here.
func (c *stage) ours() []lambdatest.Instance {
	return slices.DeleteFunc(c.sim.Instances(), func(i lambdatest.Instance) bool { return slices.Contains(c.others, i.ID) })
}

// untilLease waits for the lease without asking any process of ours.
func (c *stage) untilLease(what string, ok func(lease.Lease) bool) lease.Lease {
	c.t.Helper()
	limit := time.Now().Add(3 * time.Minute)
	for {
		all := c.leases()
		if len(all) == 1 && ok(all[0]) {
			return all[0]
		}
		if !time.Now().Before(limit) {
			require.Failf(c.t, "waited in vain", "%s: %+v\n%s", what, all, c.keeperSaid())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (c *stage) untilState(states ...lease.State) lease.Lease {
	c.t.Helper()
	return c.untilLease("state", func(l lease.Lease) bool { return slices.Contains(states, l.State) })
}

func (c *stage) keeperSaid() string {
	text, _ := os.ReadFile(filepath.Join(c.state(), "keeper.log"))
	return string(text)
}

// advance moves the cloud's clock on; the program follows it.
func (c *stage) advance(d time.Duration) {
	c.sim.Advance(d)
	c.advanced = c.sim.Now()
}

// skip moves the cloud's clock on by so little that the program's is still taken for right.
func (c *stage) skip(d time.Duration) {
	c.sim.Advance(d)
	c.skipped += d
}

// startKeeper starts a keeper by hand, beside a server that leads already.
func (c *stage) startKeeper() {
	c.t.Helper()
	k := c.program("keeper")
	log := &lockedBuffer{}
	k.Stderr = log
	require.NoError(c.t, k.Start())
	var over sync.WaitGroup
	over.Go(func() { _ = k.Wait() })
	c.t.Cleanup(func() {
		over.Wait()
		if c.t.Failed() {
			c.t.Logf("log of a keeper:\n%s", log)
		}
	})
	require.Eventually(c.t, c.keeperRuns, time.Minute, 20*time.Millisecond)
}

// acts waits until a process says that it leads and works on the machines.
func (c *stage) acts(log func() string) {
	c.t.Helper()
	require.Eventually(c.t, func() bool {
		text := log()
		return strings.Contains(text, `"as":"leader`) && strings.Contains(text, `"as":"host`)
	}, time.Minute, 20*time.Millisecond, "it does not act")
}

// begin calls a tool of a process that will die meanwhile.
func (h *host) begin(tool string, args map[string]any) { h.beginCall(callParams(tool, args)) }

func (h *host) beginCall(call *mcp.CallToolParams) {
	var over sync.WaitGroup
	over.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, _ = h.session.CallTool(ctx, call)
	})
	h.t.Cleanup(over.Wait)
}

// falls returns when a server has died in a trap.
func (c *stage) falls(x trap, h *host) {
	c.t.Helper()
	x.sprung(h.log.String)
	_ = h.session.Wait()
	c.noteDeath()
}

// keeperFalls returns when the keeper has died in a trap.
func (c *stage) keeperFalls(x trap) {
	c.t.Helper()
	x.sprung(c.keeperSaid)
	// A second keeper may have been waiting for its turn; then that goes on, too.
	for limit := time.Now().Add(5 * time.Second); c.keeperRuns() && time.Now().Before(limit); {
		time.Sleep(10 * time.Millisecond)
	}
	c.noteDeath()
}

// runs runs a command to its end.
func (c *stage) runs(args ...string) {
	c.t.Helper()
	out, err := c.program(args...).CombinedOutput()
	require.NoError(c.t, err, "%v: %s", args, out)
}

// commandFalls runs a command, which dies in a trap.
func (c *stage) commandFalls(x trap, args ...string) {
	c.t.Helper()
	out, err := c.program(args...).CombinedOutput()
	x.sprung(func() string { return string(out) })
	var died *exec.ExitError
	require.ErrorAs(c.t, err, &died)
	require.False(c.t, died.Exited(), "it was not killed: %s", out)
	c.noteDeath()
}

// project is the directory that servers may bring results to.
func (c *stage) project() string {
	c.t.Helper()
	dir := filepath.Join(c.dir, "project")
	require.NoError(c.t, os.MkdirAll(dir, 0o700))
	return dir
}

// server is a server that brings results home, and starts no keeper.
func (c *stage) server() *host { return c.host("--keeper=false", "--root", c.project()) }

func (c *stage) noteDeath() {
	c.t.Helper()
	if all := c.leases(); len(all) == 0 || all[0].State != lease.Ended {
		c.died = c.sim.Now()
	}
}

// verdict checks what has to hold when all is over, with the simulator as the witness.
func (c *stage) verdict() {
	c.t.Helper()
	l := c.untilState(lease.Ended)
	require.NoError(c.t, c.open().Verify(context.Background()))
	require.Zero(c.t, l.Reserved)

	ours := c.ours()
	require.LessOrEqual(c.t, len(ours), 1, "a second instance was launched")
	running := c.sim.Running()
	require.Len(c.t, running, len(c.others), "what others run is all that runs")
	for _, i := range running {
		require.Contains(c.t, c.others, i.ID)
		require.Zero(c.t, i.StopCalledAt)
	}
	// What dies between the settlement and the tidying is tidied by whoever sweeps: a server 20 s after its start.
	require.Eventually(c.t, func() bool { return len(c.sim.Keys()) == 1 && c.sim.Keys()[0].Name == "console" }, 2*time.Minute, 50*time.Millisecond,
		"an SSH key of ours stays in the account")
	require.NoFileExists(c.t, filepath.Join(c.state(), "keys", string(l.ID)+".key"))

	bill := policy.Money(0)
	for _, i := range ours {
		line, ok := c.sim.Bill().Of(i.ID)
		require.True(c.t, ok)
		bill += policy.Money(line.MicroDollars)
		require.NotZero(c.t, i.TerminatedAt)
		latest := l.Deadline.Add(time.Minute)
		if late := c.advanced.Add(time.Minute); late.After(latest) {
			latest = late // nobody could act while the clock jumped
		}
		require.False(c.t, i.TerminatedAt.After(latest), "it ended at %s, its deadline was %s", i.TerminatedAt, l.Deadline)
	}
	require.GreaterOrEqual(c.t, l.Cost, bill, "the ledger has less than the cloud's bill")
	require.LessOrEqual(c.t, l.Cost, c.most(l), "the ledger has more than the cloud's bill and its own rounding")
	u, err := c.open().Usage(context.Background(), "default", l.EndedAt, lease.Periods{})
	require.NoError(c.t, err)
	require.Equal(c.t, l.Cost, u.Account.Lifetime, "what counts against the caps is what was settled")
}

// most is what the ledger may have settled at most. The cloud bills from the first
// healthy moment to the terminate call. The ledger bills whole minutes from the
// earliest moment from which the cloud might bill, which is when the launch call was marked as
// sent, to the first answer that proves the end; it knows no better. So the bound is
// exact but for what lies between two requests:
//   - the mark is written after the key's registration has been answered and before the launch
//     call arrives, so its time is between those two requests;
//   - the end is proven by the first listing that a living process makes after it,
//     or by the second, where the first one leaves the time in doubt.
//
// What the cloud's clock was moved on by unseen is in neither, unless it is less than a minute: then the
// end is dated by that clock and the begin by ours, for a bill may be so, too.
//
// Where that span and the bill begin the same minutes, it is the bill plus at most one minute.
func (c *stage) most(l lease.Lease) policy.Money {
	ours := c.ours()
	if len(ours) == 0 {
		return 0
	}
	i := ours[0]
	from, proof := i.LaunchedAt, time.Time{}
	after := i.TerminatedAt
	if c.died.After(after) {
		after = c.died
	}
	listings := 0
	for _, r := range c.sim.Requests() {
		switch {
		case r.Op == lambdatest.OpAddKey && r.Time.Before(i.LaunchedAt):
			from = r.Time
		case r.Op == lambdatest.OpListInstances && r.Status == 200 && r.Time.After(after.Add(-time.Second)) && listings < 3:
			listings++ // it may have come a moment before the end, and been answered after it
			proof = r.Time
		}
	}
	require.False(c.t, proof.IsZero(), "it was settled without a listing that proves the end")
	if proof.Before(after) {
		proof = after
	}
	unseen := c.skipped
	if unseen <= time.Minute {
		unseen = 0
	}
	// It is dated when the answer is there, and how far the clocks are apart is known to a second or two.
	return l.Price.For(proof.Add(4*time.Second).Sub(from) - unseen)
}
