package main

import (
	"context"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/policy"
)

// keySigner signs names with the world's API key.
type keySigner struct{ key lambda.Key }

func (s keySigner) Sign(_ context.Context, text string) (string, error) {
	c, err := lambda.New(s.key)
	if err != nil {
		return "", err
	}
	return c.Sign(text), nil
}

// foreign is an instance of a lease of another ledger.
func (w *world) foreign(ledgerID string, id lease.ID, hardStop time.Time) (instance string) {
	w.t.Helper()
	key, err := lambda.ParseKey(w.sim.APIKey())
	require.NoError(w.t, err)
	name, err := lease.Name{Ledger: ledgerID, Lease: id, HardStop: hardStop}.Signed(w.t.Context(), keySigner{key})
	require.NoError(w.t, err)
	return w.runs(name)
}

func (w *world) runs(name string) (instance string) {
	w.t.Helper()
	instance, err := w.sim.Launch(lambdatest.Order{Name: name, Type: testType, Region: "us-east-1", Key: "k"})
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = w.sim.Terminate(instance) })
	return instance
}

func (w *world) isRunning(instance string) bool {
	for _, i := range w.sim.Running() {
		if i.ID == instance {
			return true
		}
	}
	return false
}

func TestReapFromAnEmptyDirectoryMakesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	late := w.foreign("wxyz", "aaaaaaaaaaaa", time.Now().Add(-time.Minute))
	inTime := w.foreign("wxyz", "bbbbbbbbbbbb", time.Now().Add(time.Hour))
	others := w.runs("gl-wxyz-cccccccccccc-1-forged")
	dir := filepath.Join(w.dir, "empty")
	env := append(w.env, "GPULEASE_STATE_DIR="+dir, "HOME="+filepath.Join(w.dir, "nobody"))
	code, out, errs := cli(t, env, "reap", "--wait", "30s")
	require.Zero(t, code, errs)
	require.Contains(t, out, "ended: instance "+late)
	require.Contains(t, out, "within its time: instance "+inTime)
	require.Contains(t, out, "1 ended, 0 not confirmed, 1 of ours within their time, 1 not ours and not touched")
	require.False(t, w.isRunning(late))
	require.True(t, w.isRunning(inTime))
	require.True(t, w.isRunning(others))
	require.NoDirExists(t, dir)
	require.NoDirExists(t, filepath.Join(w.dir, "nobody"))

	code, _, errs = cli(t, append(env, "LAMBDA_API_KEY="), "reap")
	require.Equal(t, 1, code, "it could not look")
	require.Contains(t, errs, "bad_api_key")
	code, _, _ = cli(t, env, "reap", "--from-ledger", "wxyz")
	require.Equal(t, exitUsage, code)
}

func TestReapSaysWhatIsNotConfirmed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{TerminateTime: time.Hour})
	late := w.foreign("wxyz", "aaaaaaaaaaaa", time.Now().Add(-time.Minute))
	env := append(w.env, "GPULEASE_STATE_DIR="+filepath.Join(w.dir, "empty"))
	code, out, errs := cli(t, env, "reap", "--wait", "2s", "--json")
	require.Equal(t, exitUnconfirmed, code, errs)
	require.Contains(t, out, `"unconfirmed":[{"instance_id":"`+late)
	require.Contains(t, errs, "1 ends are NOT CONFIRMED: money is still being spent")
}

// The deadlines of the own ledger are enforced too, and the visit counts as a guard.
func TestReapWithALedgerEndsWhatIsOverdueInIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	h := w.host("--keeper=false")
	id := h.ok("launch_lease", map[string]any{"type": testType}).Lease
	h.until(id, "ready")
	fresh := h.ok("launch_lease", map[string]any{"type": testType}).Lease
	h.until(fresh, "ready")
	h.kill()
	db, err := ledger.Open(t.Context(), filepath.Join(w.state(), "ledger.db"), ledger.Options{})
	require.NoError(t, err)
	l, err := db.Get(t.Context(), lease.ID(id))
	require.NoError(t, err)
	l.Deadline = time.Now().Add(-time.Second)
	_, err = db.Update(t.Context(), l, "brought forward by the test")
	require.NoError(t, err)
	require.NoError(t, db.Close())

	out := w.says(0, "reap", "--wait", "1m")
	require.Contains(t, out, "within its time: ")
	list := w.says(0, "leases", "--all")
	require.Regexp(t, id+`\s+ended\s+deadline`, list)
	require.Regexp(t, fresh+`\s+ready`, list)
	require.Regexp(t, "guarded by .*"+regexp.QuoteMeta("reap "+hostname())+", seen ", list)
	require.Contains(t, w.says(0, "doctor"), "gpulease reap was seen on "+hostname())
	require.True(t, w.keeperRuns(), "what still lives here has a keeper again")
}

func TestAdoptionAfterTheLossOfAllState(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	h := w.host("--keeper=false")
	id := h.ok("launch_lease", map[string]any{"type": testType}).Lease
	h.until(id, "ready")
	h.kill()
	w.loseState()
	for _, ask := range [][]string{{"leases"}, {"stop", "--all"}} {
		require.Regexp(t, `1 machine of gpulease runs in this account .* ledger \w{4} has launched it. If that was lost, gpulease reap --adopt`, w.says(0, ask...))
	}

	out := w.says(0, "reap", "--adopt")
	require.Contains(t, out, "adopted "+id+": "+testType)
	require.Contains(t, out, "nothing can be run on it, only gpulease stop "+id)
	require.True(t, w.keeperRuns(), "somebody ends it at its hard stop")
	out = w.says(0, "leases")
	require.Regexp(t, id+`\s+ready`, out)
	require.Contains(t, w.says(0, "reap", "--adopt"), "0 ended", "nothing is left to adopt")

	// This ledger has a lease now: another's is only adopted when it is named.
	other := w.foreign("wxyz", "bbbbbbbbbbbb", time.Now().Add(time.Hour))
	out = w.says(1, "reap", "--adopt")
	require.Contains(t, out, "not adopted, of ledger wxyz: instance "+other)
	require.Contains(t, out, "with --from-ledger wxyz")
	require.Contains(t, w.says(0, "reap", "--adopt", "--from-ledger", "wxyz"), "adopted bbbbbbbbbbbb")
	require.Contains(t, w.says(0, "stop", "--all"), id+": ended (stopped)")
	require.Empty(t, w.sim.Running())
}

// Without anything to adopt from, it is not plain which of two ledgers was lost.
func TestAdoptionAsksWhichLedgerWasLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	w.foreign("wxyz", "aaaaaaaaaaaa", time.Now().Add(time.Hour))
	w.foreign("wxya", "bbbbbbbbbbbb", time.Now().Add(time.Hour))
	out := w.says(1, "reap", "--adopt")
	require.Contains(t, out, "there is more than one ledger to adopt from")
	require.Contains(t, out, "--from-ledger wxya or --from-ledger wxyz")
	require.Contains(t, w.says(0, "leases"), "no leases")
}

func TestReapSaysNotConfirmedOnce(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	l := lease.Lease{ID: "aaaaaaaaaaaa", Price: policy.Dollar, Detail: "STOP NOT CONFIRMED, still billing: terminate: 500"}
	require.NoError(t, reaping{Due: []lease.Lease{l}}.print(&b))
	require.Contains(t, b.String(), "aaaaaaaaaaaa: STOP NOT CONFIRMED, $1.00/h are still being spent (still billing: terminate: 500)\n")
}
