package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

// under puts the world under a policy.
func (w *world) under(text string) {
	w.t.Helper()
	file := filepath.Join(w.dir, "policy.yaml")
	require.NoError(w.t, os.WriteFile(file, []byte(text), 0o600))
	w.env = append(w.env, "GPULEASE_POLICY="+file)
}

// says runs a command in a process of its own that must exit with code.
func (w *world) says(code int, args ...string) string {
	w.t.Helper()
	cmd := w.program(args...)
	out, err := cmd.CombinedOutput()
	if err != nil || code != 0 {
		require.NotNil(w.t, cmd.ProcessState, "%v", err)
		require.Equal(w.t, code, cmd.ProcessState.ExitCode(), "gpulease %v: %s", args, out)
	}
	return string(out)
}

func TestWhatAPersonApprovesIsLaunched(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	w.under("approve_above: 0\n")
	h := w.host()
	a := h.ok("launch_lease", map[string]any{"type": testType, "region": "us-east-1", "ttl_minutes": 30, "purpose": "tests\x1b[2J"})
	require.Equal(t, "awaiting_approval", a.State)
	require.Contains(t, a.Next.Text, "gpulease approve "+a.Lease)
	require.Contains(t, string(a.Raw), `"worst_case_usd":1.2255`, "57 minutes at $1.29/h")

	out := w.says(0, "leases")
	require.Contains(t, out, a.Lease+" waits for approval until ")
	require.Contains(t, out, "$1.2255 at most: gpulease approve "+a.Lease)
	require.NotContains(t, out, "guarded by ", "nothing has a deadline yet")
	out = w.says(exitUsage, "approve", a.Lease)
	require.Contains(t, out, "there is no terminal to ask one: give --yes", "an agent with a shell does not approve by accident")
	require.Contains(t, out, `tests\x1b[2J`)
	require.Zero(t, w.sim.LaunchCount())
	for _, command := range [][]string{{"approve", "--yes"}, {"deny"}, {"extend", "--minutes", "5", "--yes"}, {"ssh"}} {
		out = w.says(1, append(command, "aaaaaaaaaaaa")...)
		require.Contains(t, out, `there is no lease "aaaaaaaaaaaa"; gpulease leases --all lists them`, command)
		require.NotContains(t, out, "list_leases", "that is for agents")
	}

	out = w.says(0, "approve", a.Lease, "--yes", "--wait", "1m")
	require.Contains(t, out, testType+" in us-east-1, $1.29/h")
	require.Contains(t, out, "worst case  $1.2255")
	require.Contains(t, out, a.Lease+": approved by ")
	require.Regexp(t, a.Lease+`\s+(booting|ready)`, out)
	h.until(a.Lease, "ready")
	require.Equal(t, 1, w.sim.LaunchCount())
	require.Contains(t, w.says(1, "approve", a.Lease, "--yes"), "does not wait for approval")
	w.stop(h, a.Lease)
}

// The host that asked is gone with its keeper: the approval starts one, which has its key from whoever approves.
func TestAnApprovalStartsAKeeper(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	w.under("approve_above: 0\n")
	h := w.host("--keeper=false")
	id := h.ok("launch_lease", map[string]any{"type": testType}).Lease
	h.kill()
	require.False(t, w.keeperRuns())
	out := w.says(0, "approve", id, "--yes", "--wait", "1m")
	require.Regexp(t, id+`\s+(booting|ready)`, out)
	require.True(t, w.keeperRuns())
	require.Len(t, w.sim.Running(), 1)

	// Without a key nobody can launch it, and that is said.
	w = newWorld(t, lambdatest.Config{})
	w.under("approve_above: 0\n")
	h = w.host("--keeper=false")
	id = h.ok("launch_lease", map[string]any{"type": testType}).Lease
	h.kill()
	code, out, errs := cli(t, w.withKey(""), "approve", id, "--yes")
	require.Equal(t, 1, code)
	require.Contains(t, out, id+": approved by ")
	require.Contains(t, errs, "it is approved, and no keeper could be started that launches it: bad_api_key")
}

func TestWhatAPersonDeniesIsNotLaunched(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	w.under("approve_above: 0\n")
	h := w.host()
	id := h.ok("launch_lease", map[string]any{"type": testType}).Lease
	require.Contains(t, w.says(0, "deny", id, "--why", "too dear"), id+": denied by ")
	a := h.ok("get_lease", map[string]any{"lease_id": id, "wait_seconds": 5})
	require.Equal(t, "ended", a.State)
	require.Equal(t, "denied", a.Reason)
	require.Contains(t, a.Detail, "too dear")
	require.Zero(t, w.sim.LaunchCount())
	require.Contains(t, w.says(1, "approve", id, "--yes"), "does not wait for approval")
}

func TestAFreezeHoldsInEveryProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	h := w.host()
	running := h.ok("launch_lease", map[string]any{"type": testType}).Lease
	h.until(running, "ready")
	require.Contains(t, w.says(0, "freeze", "--why", "look at the bill"), "frozen by "+person())
	text := h.refused(lease.CodeFrozen, "launch_lease", map[string]any{"type": testType})
	require.Contains(t, text, "look at the bill")
	h.refused(lease.CodeFrozen, "extend_lease", map[string]any{"lease_id": running, "minutes": 5})
	require.Contains(t, strings.Join(h.ok("list_capacity", nil).Warnings, "\n"), "frozen by "+person())
	require.Contains(t, w.says(0, "leases"), "frozen by "+person())
	require.Contains(t, w.says(0, "spend"), "FROZEN since ")
	w.stop(h, running)
	require.Contains(t, w.says(0, "unfreeze"), "launches go on; they were frozen since ")
	require.Contains(t, w.says(0, "unfreeze"), "launches are not frozen")
	require.Equal(t, "ended", w.endOf(h, h.ok("launch_lease", map[string]any{"type": testType}).Lease).State)
	require.Empty(t, w.sim.Running())
}

func TestExtensions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	h := w.host()
	id := h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 30}).Lease
	before := h.until(id, "ready")
	a := h.ok("extend_lease", map[string]any{"lease_id": id, "minutes": 10})
	require.Contains(t, string(a.Raw), `"ttl_minutes":40`)
	w.under("approve_above: 0\n")
	strict := w.host()
	require.Contains(t, strict.refused(lease.CodeApprovalRequired, "extend_lease", map[string]any{"lease_id": id, "minutes": 5}), "gpulease extend "+id)

	require.Contains(t, w.says(exitUsage, "extend", id, "--minutes", "5"), "there is no terminal")
	require.Contains(t, w.says(exitUsage, "extend", id), "--minutes has to be between")
	out := w.says(0, "extend", id, "--minutes", "5", "--yes")
	require.Contains(t, out, "5m more cost up to $0.1075")
	require.Contains(t, w.says(1, "extend", id, "--minutes", "5000", "--yes"), "minutes would pass")
	require.Contains(t, w.says(0, "audit", "show", id), "approved by "+person())
	deadline := func(raw json.RawMessage) time.Time {
		var x struct{ Deadline time.Time }
		require.NoError(t, json.Unmarshal(raw, &x))
		return x.Deadline
	}
	after := h.ok("get_lease", map[string]any{"lease_id": id})
	require.Equal(t, 15*time.Minute, deadline(after.Raw).Sub(deadline(before.Raw)))
	w.stop(h, id)
}

// Results named at the launch and at the stop are there when the stop is confirmed.
func TestResultsComeHomeWithTheStop(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	project := filepath.Join(w.dir, "project")
	require.NoError(t, os.Mkdir(project, 0o700))
	h := w.host("--root", project)
	id := h.ok("launch_lease", map[string]any{"type": testType, "results": []string{"out"}}).Lease
	h.until(id, "ready")
	h.ok("run_command", map[string]any{"lease_id": id, "command": "mkdir out; echo model > out/a; echo log > b.log", "wait_seconds": 20})
	a := h.ok("stop_lease", map[string]any{"lease_id": id, "results": []string{"b.log", "none"}})
	if a.State != "ended" {
		a = h.until(id, "ended")
	}
	for file, text := range map[string]string{"out/a": "model\n", "b.log": "log\n"} {
		got, err := os.ReadFile(filepath.Join(project, "results", id, file))
		require.NoError(t, err, "%s", a.Raw)
		require.Equal(t, text, string(got))
	}
	require.Contains(t, string(a.Raw), "2 result files")
	require.Contains(t, string(a.Raw), "not there: none")
	require.Empty(t, w.sim.Running())
}

func TestSpendSaysWhereTheMoneyStands(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	w.under("principals: {ci: {caps: {per_day: 5}}}\n")
	_, err := w.sim.Launch(lambdatest.Order{Name: "somebody else's", Type: testType, Region: "us-east-1", Key: "k"})
	require.NoError(t, err)
	h := w.host()
	id := h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 30}).Lease
	h.until(id, "ready")
	out := w.says(0, "spend")
	require.Regexp(t, `caps\.per_day\s+\$\S+\s+\$50\.00\s+\$\S+\s+default`, out)
	require.Regexp(t, `default\s+1\s+`, out, "the principal has one lease")
	require.Regexp(t, id+`\s+default\s+ready`, out)
	require.Regexp(t, testType+`\s+us-east-1\s+\$1\.29/h.*somebody else's`, out)
	require.NotContains(t, out, "principals.ci")
	require.Contains(t, w.says(0, "spend", "--principal", "ci"), "principals.ci.caps.per_day")

	a := h.ok("spend_report", nil)
	require.Contains(t, string(a.Raw), `"rule":"caps.per_day"`)
	require.Contains(t, string(a.Raw), `"lease_id":"`+id+`"`)
	require.Contains(t, string(a.Raw), `"untracked":[{"instance_id":`)
	require.Contains(t, strings.Join(a.Warnings, "\n"), "1 instance in the account has no lease here and costs ")

	ended := w.endOf(h, id)
	var r struct {
		Month    float64 `json:"month_usd"`
		Reserved float64 `json:"reserved_usd"`
		Leases   []struct {
			ID   string  `json:"lease_id"`
			Cost float64 `json:"cost_usd"`
		}
		Untracked []any `json:"untracked"`
	}
	require.NoError(t, json.Unmarshal([]byte(w.says(0, "spend", "--json")), &r))
	require.Zero(t, r.Reserved)
	require.Equal(t, id, r.Leases[0].ID)
	require.Equal(t, ended.Cost.Decimal(), jsonDecimal(r.Leases[0].Cost))
	require.Len(t, r.Untracked, 1)
}

// endOf stops a lease in a world that has had others, or has something else running.
func (w *world) endOf(h *host, id string) said {
	w.t.Helper()
	a := h.ok("stop_lease", map[string]any{"lease_id": id})
	if a.State != "ended" {
		a = h.until(id, "ended")
	}
	return a
}

func jsonDecimal(f float64) string {
	b, err := json.Marshal(f)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
