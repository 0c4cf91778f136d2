//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

// The key's file and the ledger were named in the settings and lie in the very project
// that is sent: they stay here.
func TestKeyAndLedgerAreNotSentWithTheProjectThatHoldsThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	root := filepath.Join(w.dir, "project")
	require.NoError(t, os.MkdirAll(filepath.Join(root, "books"), 0o755))
	key := filepath.Join(root, "lambda.key")
	require.NoError(t, os.WriteFile(key, []byte(w.sim.APIKey()+"\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(root, "train.py"), []byte("print()\n"), 0o644))
	w.env = append(w.env, "LAMBDA_API_KEY_FILE="+key, "GPULEASE_LEDGER="+filepath.Join(root, "books", "own.db"))
	h := w.host("--root", root)
	id := h.ok("launch_lease", map[string]any{"type": testType}).Lease
	h.until(id, "ready")
	require.Contains(t, string(h.ok("sync_files", map[string]any{"lease_id": id, "local_dir": "."}).Raw), "left out: "+key)
	a := h.ok("run_command", map[string]any{"lease_id": id, "wait_seconds": 20, "command": "find project -type f"})
	require.Contains(t, a.Stdout, "project/train.py")
	require.NotContains(t, a.Stdout, "lambda.key")
	for _, name := range []string{"own.db\n", "own.db-wal", "own.db-shm"} {
		require.NotContains(t, a.Stdout, name)
	}
	w.stop(h, id)
}

// A machine is not trusted. What comes from it must not take the place of gpulease's own
// program, which the keeper would go on as, with the account's key.
func TestNoFileFromAMachineReplacesTheProgram(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	root := filepath.Join(w.dir, "project")
	bin := filepath.Join(root, "bin")
	require.NoError(t, os.MkdirAll(bin, 0o755))
	program, err := os.ReadFile(w.exe)
	require.NoError(t, err)
	w.exe = filepath.Join(bin, "gpulease")
	syscall.ForkLock.RLock() // a child of another test would hold it open for writing, and it could not be run
	err = os.WriteFile(w.exe, program, 0o755)
	syscall.ForkLock.RUnlock()
	require.NoError(t, err)
	h := w.host("--root", root)
	id := h.ok("launch_lease", map[string]any{"type": testType}).Lease
	h.until(id, "ready")
	a := h.ok("run_command", map[string]any{"lease_id": id, "wait_seconds": 20, "command": "mkdir bin && echo evil >bin/gpulease && echo evil >gpulease"})
	require.Zero(t, *a.Exit, a.Stderr)
	h.refused(lease.CodePathDenied, "fetch_files", map[string]any{"lease_id": id, "paths": []string{"gpulease"}, "local_dir": "bin"})
	h.refused(lease.CodePathDenied, "fetch_files", map[string]any{"lease_id": id, "paths": []string{"bin"}, "local_dir": "."})
	is, err := os.ReadFile(w.exe)
	require.NoError(t, err)
	require.Equal(t, len(program), len(is))
	w.stop(h, id)
}

// The machine is sick, and before its end is confirmed the principal's token is revoked:
// nothing is launched again for who may not ask any more.
func TestNothingIsLaunchedAgainForARevokedPrincipal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{TerminateTime: 4 * time.Second})
	token := w.token("ann")
	s := w.web()
	ann := s.host(token, "/mcp")
	w.sim.Inject(lambdatest.Fault{Op: lambdatest.OpLaunch, GPU: "missing", Count: 1})
	id := ann.ok("launch_lease", map[string]any{"type": testType}).Lease
	require.NoError(t, w.program("token", "revoke", "ann").Run())
	list := func() string {
		out, _ := w.program("leases", "--all").Output() // it fails while a stop is not confirmed
		return string(out)
	}
	require.Eventually(t, func() bool { return strings.Contains(list(), "ended") }, time.Minute, 500*time.Millisecond)
	require.Contains(t, list(), string(lease.GPUUnhealthy), id)
	require.Never(t, func() bool { return w.sim.LaunchCount() > 1 }, 4*time.Second, 100*time.Millisecond)
}
