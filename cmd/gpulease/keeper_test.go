//go:build unix

package main

import (
	"errors"
	"fmt"
	"io"
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

// installed is a world whose gpulease lies in a directory of its own, as the
// given version. Another install puts another file in its place.
func (w *world) installed(dir, version string) *world {
	w.t.Helper()
	dir = filepath.Join(w.dir, dir)
	require.NoError(w.t, os.MkdirAll(dir, 0o700))
	c := *w
	c.exe = filepath.Join(dir, "gpulease")
	from, err := os.Open(os.Args[0])
	require.NoError(w.t, err)
	defer from.Close()
	// A child that another test starts meanwhile would hold it open for writing, and it could not be run.
	syscall.ForkLock.RLock()
	to, err := os.OpenFile(c.exe+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o700)
	if err == nil {
		_, err = io.Copy(to, from)
		err = errors.Join(err, to.Close())
	}
	syscall.ForkLock.RUnlock()
	require.NoError(w.t, err)
	require.NoError(w.t, os.WriteFile(c.exe+".version", []byte(version), 0o600))
	require.NoError(w.t, os.Rename(c.exe+".new", c.exe))
	return &c
}

func (w *world) note() keeperNote {
	n, _ := (&settings{stateDir: w.state()}).keeperNote()
	return n
}

// keeperIs waits until a keeper of that version holds the lock.
func (w *world) keeperIs(version string) keeperNote {
	w.t.Helper()
	require.Eventually(w.t, func() bool { return w.note().Build.Version == version && w.keeperRuns() }, 30*time.Second, 20*time.Millisecond,
		"the keeper is %+v, not %s", w.note(), version)
	return w.note()
}

func (w *world) keeperLog() string {
	b, _ := os.ReadFile(filepath.Join(w.state(), "keeper.log"))
	return string(b)
}

// background is a gpulease process with what it has said to standard error.
func (w *world) background(args ...string) (*exec.Cmd, *lockedBuffer) {
	w.t.Helper()
	cmd, log := w.program(args...), &lockedBuffer{}
	cmd.Stderr = log
	require.NoError(w.t, cmd.Start())
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	return cmd, log
}

// ends waits until a process ends by itself and returns how.
func (w *world) ends(cmd *exec.Cmd, log *lockedBuffer) error {
	w.t.Helper()
	late := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() }) // it may have ended
	err := cmd.Wait()
	require.True(w.t, late.Stop(), "it does not end\n%s", log)
	return err
}

// stopWithoutKey ends all leases by a process that has no key, so that the keeper
// has to have one.
func (w *world) stopWithoutKey() {
	w.t.Helper()
	out, err := w.with("LAMBDA_API_KEY=", "LAMBDA_API_KEY_COMMAND=").program("stop", "--all", "--keeper=false").CombinedOutput()
	require.NoError(w.t, err, "%s\n%s", out, w.keeperLog())
	require.Empty(w.t, w.sim.Running())
}

// launched is a lease whose server was killed.
func (w *world) launched(args ...string) string {
	w.t.Helper()
	h := w.host(args...)
	id := h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 30}).Lease
	h.kill()
	return id
}

// Hosts with different programs share a state directory. The keeper is replaced
// by a newer one, once, and never by an older one or by one that is merely
// different, however long they all run.
func TestKeepersOfDifferentProgramsDoNotTakeTurns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	start := func(version string) *host { return w.installed(version, version).host() }
	h := start("v1.4.0")
	id := h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 5}).Lease
	first := w.keeperIs("v1.4.0")

	var seen []string
	last, gap, gone := keeperNote{}, time.Duration(0), time.Now()
	watch := func(until func() bool, limit time.Duration) {
		end := time.Now().Add(limit)
		for !until() && time.Now().Before(end) {
			if !w.keeperRuns() {
				gap = max(gap, time.Since(gone))
			} else {
				gone = time.Now()
			}
			if n := w.note(); n.PID != 0 && n != last {
				last = n
				seen = append(seen, n.Build.Version)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	start("v1.3.9")
	start("dev")
	start("v1.4.0-dirty")
	start("v1.5.0")
	watch(func() bool { return len(seen) > 1 }, 30*time.Second)
	require.Equal(t, []string{"v1.4.0", "v1.5.0"}, seen, w.keeperLog())
	second := last
	require.Eventually(t, func() bool { return ended(first.PID) }, 10*time.Second, 20*time.Millisecond, "the older keeper ends")

	watch(func() bool { return false }, 11*time.Second) // every server has looked twice
	require.Equal(t, []string{"v1.4.0", "v1.5.0"}, seen, w.keeperLog())
	require.Equal(t, second, w.note())
	t.Logf("the longest time without a keeper was %s", gap)
	require.Less(t, gap, 3*time.Second, "no lease is without a keeper for long")
	require.Equal(t, 1, strings.Count(w.keeperLog(), "leaving for a newer keeper"), w.keeperLog())
	require.Equal(t, "ready", h.until(id, "ready").State)
	w.stopWithoutKey()
}

// A newer program that could not do the older one's work leaves it alone.
func TestKeeperIsNotReplacedByOneThatCannotGuard(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	w.installed("old", "v1.0.0").launched()
	before := w.keeperIs("v1.0.0")
	newer := w.installed("new", "v2.0.0")
	for _, env := range []string{"LAMBDA_API_KEY=", "LAMBDA_API_KEY=secret_other_0123456789abcdef0123456789abcdef"} {
		cmd, log := newer.with(env).background("keeper")
		require.NoError(t, w.ends(cmd, log), "%s", log)
		require.Contains(t, log.String(), "an older keeper goes on")
	}
	require.Equal(t, before, w.note())
	require.True(t, w.keeperRuns())

	// Who asks and does not come is not waited for.
	require.NoError(t, writeNote(filepath.Join(w.state(), "keeper.leave"), leaveNote{PID: before.PID, Since: before.Since, By: build{Version: "v3.0.0"}, ByPID: 1}))
	require.Eventually(t, func() bool { return w.note().PID == before.PID && w.note().Since.After(before.Since) }, 20*time.Second, 20*time.Millisecond, "%s", w.keeperLog())
	require.Contains(t, w.keeperLog(), "nobody has taken over")
	w.stopWithoutKey()
}

// An upgrade replaces the keeper's file. It goes on as the new program, with the
// key that nobody could give it any more, unless the new program does not work.
func TestKeeperGoesOnAsTheProgramThatReplacesIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	key := filepath.Join(w.dir, "key")
	require.NoError(t, os.WriteFile(key, []byte(w.sim.APIKey()), 0o600))
	old := w.installed("bin", "v1.0.0").with("LAMBDA_API_KEY=", "LAMBDA_API_KEY_COMMAND=cat '"+key+"'")
	old.launched()
	before := w.keeperIs("v1.0.0")
	require.NoError(t, os.Remove(key))

	broken := old.exe + ".new"
	require.NoError(t, os.WriteFile(broken, []byte("#!/bin/sh\ncat\necho broken; exit 1\n"), 0o700))
	require.NoError(t, os.Rename(broken, old.exe))
	require.Eventually(t, func() bool { return strings.Contains(w.keeperLog(), "the new program cannot do the work") }, 20*time.Second, 20*time.Millisecond)
	require.Contains(t, w.keeperLog(), `[redacted]broken`)
	require.NotContains(t, w.keeperLog(), w.sim.APIKey())
	require.Equal(t, before, w.note())

	w.installed("bin", "v1.1.0")
	after := w.keeperIs("v1.1.0")
	require.Equal(t, before.PID, after.PID)
	w.stopWithoutKey()
}

func TestCommandsStartAMissingKeeper(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	id := w.launched("--keeper=false")
	require.False(t, w.keeperRuns())

	code, _, errs := cli(t, w.withKey(""), "leases")
	require.Zero(t, code)
	require.True(t, strings.HasPrefix(errs, "gpulease: no keeper runs for 1 live lease: "), errs)
	require.Contains(t, errs, "there is no key to start one with")
	require.Equal(t, 1, strings.Count(errs, "\n"))
	_, _, errs = cli(t, w.withKey("secret_other_0123456789abcdef0123456789abcdef"), "leases")
	require.Contains(t, errs, "launched with another API key")
	require.False(t, w.keeperRuns())

	started := func(args ...string) string {
		cmd := w.program(args...)
		said := &lockedBuffer{}
		cmd.Stderr = said
		_, err := cmd.Output()
		require.True(t, err == nil || cmd.ProcessState.ExitCode() == exitUnconfirmed, "%v %s", err, said)
		return said.String()
	}
	require.Equal(t, "gpulease: no keeper was running for 1 live lease; one has been started\n", started("leases"))
	require.True(t, w.keeperRuns())
	require.Empty(t, started("leases"))

	require.NoError(t, syscall.Kill(w.note().PID, syscall.SIGKILL))
	require.Eventually(t, func() bool { return !w.keeperRuns() }, 10*time.Second, 10*time.Millisecond)
	w.sim.Inject(lambdatest.Fault{Op: lambdatest.OpTerminate, Count: 2, Status: 500})
	require.Contains(t, started("stop", id, "--wait", "1s"), "gpulease: no keeper was running; one has been started\n")
	require.Eventually(t, func() bool { return len(w.sim.Running()) == 0 }, 30*time.Second, 50*time.Millisecond, "it goes on where the command gave up")
}

// As a service the keeper is there before the first lease and after the last, and
// is still the only one.
func TestKeeperThatStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	first, log := w.background("keeper", "--stay")
	require.Eventually(t, func() bool { return w.note().PID == first.Process.Pid }, 10*time.Second, 10*time.Millisecond, "%s", log)
	second, _ := w.background("keeper", "--stay")
	third, log3 := w.background("keeper")
	require.NoError(t, w.ends(third, log3), "one without --stay is not needed")

	h := w.host()
	id := h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 5}).Lease
	require.Contains(t, h.until(id, "ready").Guard, "keeper "+strconv.Itoa(first.Process.Pid))
	require.NoError(t, first.Process.Kill())
	require.Eventually(t, func() bool { return w.note().PID == second.Process.Pid || w.note().PID != first.Process.Pid }, 10*time.Second, 10*time.Millisecond)
	w.stop(h, id)
	require.Eventually(t, func() bool { return w.note().PID == second.Process.Pid }, 20*time.Second, 10*time.Millisecond, "a service waits for its turn")

	code, out, errs := cli(t, w.env, "keeper", "status")
	require.Zero(t, code, errs)
	require.Contains(t, out, fmt.Sprintf("pid %d, stays (a service)", second.Process.Pid))
	require.Contains(t, out, "0 live leases")
	require.NoError(t, second.Process.Signal(syscall.SIGTERM))
	require.NoError(t, second.Wait())
	require.False(t, w.keeperRuns())
	_, out, _ = cli(t, w.env, "keeper", "status")
	require.Equal(t, "no keeper runs; no lease is alive\n", out)
}

// Without a key it guards nothing, so it must not look as if it did.
func TestKeeperWithoutAKeyDoesNotHoldThePlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	w.launched("--keeper=false")
	for _, args := range [][]string{{"keeper"}, {"keeper", "--stay"}} {
		cmd, log := w.with("LAMBDA_API_KEY=").background(args...)
		require.Error(t, w.ends(cmd, log))
		require.Equal(t, 1, cmd.ProcessState.ExitCode())
		require.Contains(t, log.String(), "nothing is guarded")
		require.False(t, w.keeperRuns())
	}
}
