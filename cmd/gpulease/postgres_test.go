package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger/postgrestest"
)

// elsewhere is another machine: it shares the account and the ledger with w, and has a state directory of its own.
func (w *world) elsewhere() *world {
	w.t.Helper()
	other := *w
	other.dir = w.t.TempDir()
	other.env = append(append([]string{}, w.env...), "HOME="+other.dir, "GPULEASE_STATE_DIR="+other.state())
	return &other
}

// passwordless fails if a text has a part of the password that the ledger's address holds.
func passwordless(t *testing.T, text string) {
	t.Helper()
	require.NotContains(t, text, "hunter2")
	require.NotContains(t, text, postgrestest.Password)
}

// The whole loop with a ledger on a server, seen and ended from another machine.
func TestTheLedgerOnAServer(t *testing.T) {
	t.Parallel()
	address := postgrestest.Shared(t).NewAddress(t)
	w := newWorld(t, lambdatest.Config{})
	w.env = append(w.env, "GPULEASE_LEDGER="+address)
	other := w.elsewhere()

	h := w.host()
	l := h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 10})
	require.Equal(t, "ready", h.until(l.Lease, "ready").State)
	a := h.ok("run_command", map[string]any{"lease_id": l.Lease, "command": "echo on a server", "wait_seconds": 20})
	require.Equal(t, "on a server\n", a.Stdout)

	out, err := other.program("leases").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), l.Lease)
	far := other.host()
	require.Contains(t, far.refused(lease.CodePolicyDenied, "launch_lease", map[string]any{"type": "gpu_8x_h100_sxm5", "ttl_minutes": 480}), "$49.", "one budget for both machines")

	for _, args := range [][]string{{"keeper", "status"}, {"audit", "verify"}, {"spend"}, {"leases", "--json"}, {"policy", "show"}, {"install", "keeper", "--dry-run"}} {
		out, err := w.program(args...).CombinedOutput()
		passwordless(t, string(out))
		if args[0] != "install" { // that refuses to write the password into a file
			require.NoError(t, err, "%s: %s", args, out)
		}
	}
	doctor, err := w.program("doctor").CombinedOutput()
	if exit := new(exec.ExitError); err != nil {
		require.ErrorAs(t, err, &exit)
	}
	require.Contains(t, string(doctor), "its history is whole")
	require.Contains(t, string(doctor), "postgres://gpulease@")

	out, err = other.program("stop", l.Lease).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "ended")
	require.Empty(t, w.sim.Running())

	help, err := w.program("serve", "--help").CombinedOutput()
	require.NoError(t, err)
	require.Contains(t, string(help), "postgres://gpulease@")
	log, err := os.ReadFile(filepath.Join(w.state(), "keeper.log"))
	require.NoError(t, err)
	for _, text := range []string{string(out), string(doctor), string(help), string(log), h.log.String(), far.log.String()} {
		passwordless(t, text)
	}
	_, err = os.Stat(filepath.Join(w.state(), "ledger.db"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// A server that is away when gpulease starts refuses launches in words that help, and serves when it is there.
func TestALedgerOnAServerThatIsAway(t *testing.T) {
	t.Parallel()
	s, err := postgrestest.Start(t.Context())
	postgrestest.Need(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	w := newWorld(t, lambdatest.Config{})
	w.env = append(w.env, "GPULEASE_LEDGER="+s.NewAddress(t))
	require.NoError(t, s.Crash())

	h := w.host()
	text := h.refused(lease.CodeLedgerUnavailable, "launch_lease", map[string]any{"type": testType, "ttl_minutes": 10})
	require.Contains(t, text, "away")
	require.Contains(t, text, "retryable: yes")
	require.Zero(t, w.sim.LaunchCount())
	doctor, err := w.program("doctor").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(doctor), "start the PostgreSQL server")

	require.NoError(t, s.Again(t.Context()))
	l := h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 10})
	h.until(l.Lease, "ready")
	w.stop(h, l.Lease)
	passwordless(t, strings.Join([]string{text, string(doctor), h.log.String()}, "\n"))
}

func TestAnAddressThatCannotBeReadIsNotShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	good := w.env
	w.env = append(append([]string{}, good...), "GPULEASE_LEDGER=postgres://me:hun/ter@2@db/money")
	out, err := w.program("leases").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "%40")
	require.NotContains(t, string(out), "hun")
	help, err := w.program("serve", "--help").CombinedOutput()
	require.NoError(t, err)
	require.NotContains(t, string(help), "hun")
	w.env = good
}

// The ledger's server goes away and the deadline comes: the machine is ended all the same, and settled when the server is back.
func TestADeadlineWhileTheLedgerIsAway(t *testing.T) {
	t.Parallel()
	s, err := postgrestest.Start(t.Context())
	postgrestest.Need(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	w := newWorld(t, lambdatest.Config{})
	w.env = append(w.env, "GPULEASE_LEDGER="+s.NewAddress(t))
	h := w.host()
	l := h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 1})
	h.until(l.Lease, "ready")
	require.NoError(t, s.Crash())
	require.Eventually(t, func() bool { return len(w.sim.Running()) == 0 }, 3*time.Minute, 100*time.Millisecond, "nobody has ended it")
	require.NoError(t, s.Again(t.Context()))
	h.until(l.Lease, "ended")
	// Not before a second look at the account for what the ledger does not know.
	require.Eventually(t, func() bool { return !w.keeperRuns() }, time.Minute, 50*time.Millisecond, "the keeper ends when nothing lives")
}
