package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

const testType = "gpu_1x_a10"

func TestTheWholeLoopThroughAnMCPClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	w.keepPace()
	h := w.host()

	a := h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 30, "dry_run": true})
	require.Equal(t, "allow", a.Decision)
	require.Zero(t, w.sim.LaunchCount())

	a = h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 30, "purpose": "the loop"})
	id := a.Lease
	require.NotEmpty(t, a.Next.Text)
	text := h.refused(lease.CodeLeaseNotReady, "run_command", map[string]any{"lease_id": id, "command": "true"})
	require.Contains(t, text, "next: get_lease")
	a = h.until(id, "ready")
	require.Contains(t, a.Guard, "keeper", "a keeper was started before the launch")

	a = h.ok("run_command", map[string]any{
		"lease_id": id, "command": `echo "out $WORD"; pwd; echo err >&2; exit 3`, "cwd": ".", "env": map[string]any{"WORD": "two words"}, "wait_seconds": 20,
	})
	require.Equal(t, 3, *a.Exit)
	require.True(t, strings.HasPrefix(a.Stdout, "out two words\n/"), "%q", a.Stdout)
	require.Equal(t, "err\n", a.Stderr)

	a = h.ok("run_command", map[string]any{"lease_id": id, "command": "sleep 600", "timeout_seconds": 1, "wait_seconds": 20})
	require.Equal(t, "timeout", a.Reason)

	// A host that sends the same call again does not run the command twice.
	twice := callParams("run_command", map[string]any{"lease_id": id, "command": "echo once >> count; cat count", "wait_seconds": 20})
	twice.Meta = mcp.Meta{"claudecode/toolUseId": "toolu_1"}
	for range 2 {
		res, err := h.session.CallTool(t.Context(), twice)
		require.NoError(t, err)
		require.False(t, res.IsError)
		require.Equal(t, "once\n", res.StructuredContent.(map[string]any)["stdout"])
	}

	// A server that starts later sees the lease and can stop it.
	require.NoError(t, h.session.Close())
	h = w.host()
	leases := h.ok("list_leases", nil).Leases
	require.Len(t, leases, 1)
	require.Equal(t, id, leases[0].Lease)
	a = w.stop(h, id)
	require.Equal(t, "stopped", a.Reason)
	require.Positive(t, a.Cost)
	h.refused(lease.CodeLeaseEnded, "run_command", map[string]any{"lease_id": id, "command": "true"})
	require.Equal(t, a.Cost, h.ok("stop_lease", map[string]any{"lease_id": id}).Cost, "a stop may be repeated")
	files, err := os.ReadDir(filepath.Join(w.state(), "keys"))
	require.NoError(t, err)
	require.Empty(t, files)
}

func TestBadInputIsRefusedWithACodeAndLaunchesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	h := w.host()
	for _, tt := range []struct {
		tool string
		args map[string]any
		code lease.Code
		text string
	}{
		{"launch_lease", map[string]any{"type": testType, "ttl_minuets": 5}, lease.CodeInvalidInput, "ttl_minutes"},
		{"launch_lease", map[string]any{"type": "gpu_9x_h900"}, lease.CodeInvalidInput, "gpu_1x_a10"},
		{"launch_lease", map[string]any{"type": testType, "ttl_minutes": 0}, lease.CodeInvalidInput, "ttl_minutes"},
		{"launch_lease", map[string]any{"type": testType, "ttl_minutes": 481}, lease.CodePolicyDenied, "max_ttl"},
		{"launch_lease", map[string]any{}, lease.CodeInvalidInput, "type"},
		{"get_lease", map[string]any{"lease_id": "aaaaaaaaaaaa"}, lease.CodeLeaseNotFound, "list_leases"},
		{"stop_lease", map[string]any{"lease_id": "../../../etc"}, lease.CodeLeaseNotFound, "list_leases"},
		{"run_command", map[string]any{"lease_id": "aaaaaaaaaaaa", "command": "true"}, lease.CodeLeaseNotFound, "list_leases"},
		{"run_command", map[string]any{"lease_id": "aaaaaaaaaaaa", "command": "true", "wait_seconds": 46}, lease.CodeInvalidInput, "45"},
	} {
		require.Contains(t, h.refused(tt.code, tt.tool, tt.args), tt.text)
	}
	require.Zero(t, w.sim.LaunchCount())
	require.Empty(t, w.sim.Keys())
	require.Empty(t, h.ok("list_leases", nil).Leases)
}

func TestMalformedPolicyMeansNoLaunch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	file := filepath.Join(w.dir, "policy.yaml")
	require.NoError(t, os.WriteFile(file, []byte("max_ttl: 2h\nmax_tll: 3h\n"), 0o600))
	w.env = append(w.env, "GPULEASE_POLICY="+file)
	h := w.host()
	text := h.refused(lease.CodePolicyDenied, "launch_lease", map[string]any{"type": testType})
	require.Contains(t, text, file+":2")
	require.Contains(t, text, "max_tll")
	require.Zero(t, w.sim.LaunchCount())

	// Mended, it is in force without a restart.
	require.NoError(t, os.WriteFile(file, []byte("max_ttl: 2h\n"), 0o600))
	require.Contains(t, h.refused(lease.CodePolicyDenied, "launch_lease", map[string]any{"type": testType, "ttl_minutes": 121}), file+":1")
}

func TestKeysThatAreMissingOrBad(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	good := w.env
	for name, tt := range map[string]struct{ env, text string }{
		"missing":   {"LAMBDA_API_KEY=", "LAMBDA_API_KEY_COMMAND"},
		"bad":       {"LAMBDA_API_KEY=secret_wrong_0123456789abcdef.xyz", "does not accept"},
		"malformed": {"LAMBDA_API_KEY=two words\nand a line", "LAMBDA_API_KEY"},
	} {
		w.env = append(append([]string{}, good...), tt.env)
		h := w.host()
		for _, tool := range []string{"list_capacity", "launch_lease"} {
			args := map[string]any{}
			if tool == "launch_lease" {
				args["type"] = testType
			}
			text := h.refused(lease.CodeBadAPIKey, tool, args)
			require.Contains(t, text, tt.text, name)
			require.NotContains(t, text, "secret_wrong", "no key in an error")
			require.NotContains(t, h.log.String(), "secret_wrong", "no key in the log")
		}
	}
	w.env = good
	require.Zero(t, w.sim.LaunchCount())
}

func TestKeyFromACommandOrAFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	good := w.env
	file := filepath.Join(w.dir, "key")
	require.NoError(t, os.WriteFile(file, []byte(w.sim.APIKey()+"\n"), 0o600))
	for _, env := range []string{"LAMBDA_API_KEY_FILE=" + file, "LAMBDA_API_KEY_COMMAND=cat '" + file + "'"} {
		w.env = append(append([]string{}, good...), "LAMBDA_API_KEY=", env)
		w.host().ok("list_capacity", nil)
	}
	w.env = good
}

func TestLedgerThatCannotBeUsedMeansNoLaunch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	file := filepath.Join(w.dir, "broken.db")
	require.NoError(t, os.WriteFile(file, []byte(strings.Repeat("this is no database\n", 500)), 0o600))
	good := w.env
	w.env = append(append([]string{}, good...), "GPULEASE_LEDGER="+file)
	h := w.host()
	text := h.refused(lease.CodeLedgerUnavailable, "launch_lease", map[string]any{"type": testType})
	require.Contains(t, text, "GPULEASE_LEDGER")
	require.Zero(t, w.sim.LaunchCount())
	w.env = good
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(b), "this is no database"), "a file that is not ours is left as it is")
}

// The server is killed with SIGKILL while the launch call's answer is on its
// way. The next one finds the instance, launches no second one and stops it.
func TestServerKilledRightAfterTheLaunchCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	w.sim.Inject(lambdatest.Fault{Op: lambdatest.OpLaunch, Count: 1, Hang: -1, AfterWork: true})
	h := w.host("--keeper=false")
	launched := make(chan struct{})
	go func() {
		defer close(launched)
		_, _ = h.session.CallTool(t.Context(), callParams("launch_lease", map[string]any{"type": testType, "ttl_minutes": 30, "idempotency_key": "k"}))
	}()
	require.Eventually(t, func() bool { return w.sim.LaunchCount() == 1 }, 30*time.Second, 5*time.Millisecond, "the launch call was sent")
	h.kill()
	<-launched
	require.Len(t, w.sim.Running(), 1, "the machine runs, and nobody has been told its id")

	h = w.host("--keeper=false")
	leases := h.ok("list_leases", nil).Leases
	require.Len(t, leases, 1)
	id := leases[0].Lease
	again := h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 30, "idempotency_key": "k"})
	require.Equal(t, id, again.Lease)
	h.until(id, "ready")
	require.Equal(t, 1, w.sim.LaunchCount(), "no second launch")
	require.Equal(t, "here\n", h.ok("run_command", map[string]any{"lease_id": id, "command": "echo here", "wait_seconds": 20}).Stdout)
	w.stop(h, id)
}

func TestCommandLineStopsWithoutAServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	h := w.host("--keeper=false")
	id := h.ok("launch_lease", map[string]any{"type": testType}).Lease
	h.kill()
	out, err := w.program("leases").Output()
	require.NoError(t, err)
	require.Contains(t, string(out), id)
	out, err = w.program("stop", "--all").Output()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), id+": ended (stopped)")
	require.Empty(t, w.sim.Running())

	out, err = w.program("leases", "--all").Output()
	require.NoError(t, err)
	require.Contains(t, string(out), "stopped")
}

func TestUsageErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	for _, args := range [][]string{{"serve", "--nonsense"}, {"stop"}, {"stop", "--all", "aaaaaaaaaaaa"}, {"serve", "--ssh-port", "0"}, {"demo", "--command", "true"}} {
		cmd := w.program(args...)
		out, err := cmd.CombinedOutput()
		require.Error(t, err)
		require.Equal(t, exitUsage, cmd.ProcessState.ExitCode(), "%v: %s", args, out)
	}
}

// What gpulease keeps for itself is never sent to a machine, also where it lies
// below the directory that agents may send from.
func TestOwnStateIsNeverSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	h := w.host("--root", w.dir)
	id := h.ok("launch_lease", map[string]any{"type": testType}).Lease
	h.until(id, "ready")
	h.refused(lease.CodePathDenied, "sync_files", map[string]any{"lease_id": id, "local_dir": w.state(), "remote_dir": "loot"})
	project := filepath.Join(w.dir, "project")
	require.NoError(t, os.MkdirAll(project, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(project, "a.txt"), []byte("a"), 0o644))
	h.ok("sync_files", map[string]any{"lease_id": id, "local_dir": project, "remote_dir": "work"})
	require.Equal(t, "a", h.ok("run_command", map[string]any{"lease_id": id, "command": "cat a.txt", "cwd": "work", "wait_seconds": 20}).Stdout)
	w.stop(h, id)
}
