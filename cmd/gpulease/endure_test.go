//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
)

// What happens to a process that runs for weeks must not end a keeper. Each of
// these keepers is the only one that has the key, and has to end the lease after it.
func TestKeeperEndures(t *testing.T) {
	t.Parallel()
	for name, meet := range map[string]func(w *world) int{
		"a closed terminal and a full disk for its log": func(w *world) int {
			cmd, _ := w.background("keeper", "--log", "/dev/full")
			require.Eventually(w.t, func() bool { return w.note().PID == cmd.Process.Pid }, 10*time.Second, 10*time.Millisecond)
			require.NoError(w.t, cmd.Process.Signal(syscall.SIGHUP))
			return cmd.Process.Pid
		},
		"a pipe that nobody reads any more": func(w *world) int {
			r, pipe, err := os.Pipe()
			require.NoError(w.t, err)
			require.NoError(w.t, r.Close())
			cmd := w.with("GPULEASE_LOG_LEVEL=debug").program("keeper")
			cmd.Stderr = pipe
			return w.started(cmd)
		},
		"no standard error, nor any other": func(w *world) int {
			cmd := w.program()
			cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `exec "$0" keeper <&- >&- 2>&-`, w.exe}
			return w.started(cmd)
		},
		"a policy that is broken": func(w *world) int {
			file := filepath.Join(w.dir, "policy.yaml")
			require.NoError(w.t, os.WriteFile(file, []byte("max_tll: {"), 0o600))
			return w.started(w.with("GPULEASE_POLICY=" + file).program("keeper"))
		},
		"a cloud that is away": func(w *world) int {
			fault := w.sim.Inject(lambdatest.Fault{Op: "list*", Cut: lambdatest.CutBefore})
			cmd, log := w.background("keeper")
			require.Eventually(w.t, func() bool { return w.sim.Hits(fault) > 3 }, 30*time.Second, 10*time.Millisecond, "%s", log)
			w.sim.Remove(fault)
			return cmd.Process.Pid
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lambdatest.Config{})
			w.launched("--keeper=false")
			pid := meet(w)
			w.stopWithoutKey()
			// The keeper that did it is the one that met it, and not one that came after.
			if n := w.note(); n.PID != 0 {
				require.Equal(t, pid, n.PID)
			}
		})
	}
}

// started starts a keeper and waits until it guards.
func (w *world) started(cmd *exec.Cmd) (pid int) {
	w.t.Helper()
	require.NoError(w.t, cmd.Start())
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	require.Eventually(w.t, func() bool { return w.note().PID == cmd.Process.Pid }, 10*time.Second, 10*time.Millisecond)
	return cmd.Process.Pid
}

// lateText is text that is made when it is printed.
type lateText func() string

func (f lateText) String() string { return f() }

// ended reports whether a process runs no more. One that nobody has waited for is still in the list.
func ended(pid int) bool {
	state, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	return err != nil || strings.HasPrefix(string(state), "Z")
}

// The state directory is deleted under a keeper. It ends what it knows, says so
// beside where the directory was, and leaves when nothing is left.
func TestKeeperWhoseStateDirectoryIsDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	id := w.launched()
	keeper := w.note().PID
	ignored := w.sim.Inject(lambdatest.Fault{Op: lambdatest.OpTerminate, Ignore: true})
	stop := w.program("stop", id, "--wait", "1s", "--keeper=false")
	require.Error(t, stop.Run())
	require.Equal(t, exitUnconfirmed, stop.ProcessState.ExitCode())
	w.loseState()
	require.Len(t, w.sim.Running(), 1)
	w.sim.Remove(ignored)
	require.Eventually(t, func() bool { return len(w.sim.Running()) == 0 }, time.Minute, 100*time.Millisecond)
	fellBack := func() string { b, _ := os.ReadFile(w.state() + ".keeper.log"); return string(b) }
	require.Eventually(t, func() bool { return ended(keeper) }, 30*time.Second, 100*time.Millisecond, "%s", lateText(fellBack))
	require.NoDirExists(t, w.state())
	require.Contains(t, fellBack(), "the ledger was deleted or replaced")
	require.Contains(t, fellBack(), "no machine of the lost ledger is left")
	require.LessOrEqual(t, strings.Count(fellBack(), `"msg":"reconcile"`), 4, "what fails each second is not said each second")
}

// The log is kept small while the keeper runs, and what the Go runtime says when
// it dies lands in it.
func TestKeeperLogIsBoundedAndHasCrashes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	require.NoError(t, os.MkdirAll(w.state(), 0o700))
	path := filepath.Join(w.state(), "keeper.log")
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("x", keeperLogSize-50)), 0o600))
	w.launched()
	pid := w.note().PID
	require.NotZero(t, pid)
	old, err := os.Stat(path + ".old")
	require.NoError(t, err)
	require.LessOrEqual(t, old.Size(), int64(keeperLogSize))
	require.Contains(t, w.keeperLog(), `"msg":"guarding"`)
	require.NoError(t, syscall.Kill(pid, syscall.SIGABRT))
	require.Eventually(t, func() bool { return strings.Contains(w.keeperLog(), "goroutine ") }, 10*time.Second, 20*time.Millisecond)
	require.NotContains(t, w.keeperLog(), w.sim.APIKey())
}
