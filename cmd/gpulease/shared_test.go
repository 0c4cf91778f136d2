package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger/postgrestest"
)

// With a shared ledger the one who decides need not be on the computer of the agent: what is approved is launched there,
// where the lease's keys belong.
func TestAPersonDecidesOnAnotherComputer(t *testing.T) {
	t.Parallel()
	address := postgrestest.Shared(t).NewAddress(t)
	w := newWorld(t, lambdatest.Config{})
	w.env = append(w.env, "GPULEASE_LEDGER="+address)
	far := w.elsewhere()
	w.under("approve_above: 0\n")
	h := w.host()
	id := h.ok("launch_lease", map[string]any{"type": testType}).Lease
	out := far.says(0, "approve", id, "--yes", "--wait", "1m")
	require.Regexp(t, id+`\s+(booting|ready)`, out)
	h.until(id, "ready")
	require.Equal(t, "here\n", h.ok("run_command", map[string]any{"lease_id": id, "command": "echo here", "wait_seconds": 20}).Stdout)

	said := far.says(0, "freeze", "--why", "enough") + far.says(0, "spend") + far.says(0, "audit", "verify") + far.says(0, "audit", "show", id)
	require.Contains(t, said, "is whole")
	require.Contains(t, said, "approved by "+person())
	passwordless(t, said)
	require.Contains(t, h.refused(lease.CodeFrozen, "launch_lease", map[string]any{"type": testType}), "enough")
	require.Contains(t, far.says(0, "reap", "--wait", "20s"), "1 of ours within their time")
	require.False(t, far.keeperRuns(), "a computer from which nothing was leased has no keeper")
	require.Contains(t, h.ok("get_lease", map[string]any{"lease_id": id}).Guard, "reap "+hostname())
	require.Regexp(t, `FROZEN since .*: enough`, far.says(1, "policy", "check", "--type", "x", "--price", "1"))
	require.Contains(t, far.says(0, "stop", id), id+": ended (stopped)")
	require.Empty(t, w.sim.Running())
}
