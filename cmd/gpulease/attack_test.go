//go:build unix

package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// with is the same world under other variables; "NAME=" takes one away.
func (w *world) with(kv ...string) *world {
	c := *w
	c.env = append(append([]string{}, w.env...), kv...)
	return &c
}

// hostIn is a host that has started its server in dir.
func (w *world) hostIn(dir string) *host {
	w.t.Helper()
	h := &host{t: w.t, cmd: w.program("serve"), log: &lockedBuffer{}}
	h.cmd.Stderr, h.cmd.Dir = h.log, dir
	s, err := mcp.NewClient(&mcp.Implementation{Name: "host", Version: "1"}, nil).
		Connect(context.Background(), &mcp.CommandTransport{Command: h.cmd}, nil)
	require.NoError(w.t, err, "%s", h.log)
	h.session = s
	w.t.Cleanup(func() { _ = s.Close() }) // some tests have killed it
	return h
}

// short launches a lease of a minute and returns when it is ready.
func (h *host) short() (id string, deadline time.Time) {
	h.t.Helper()
	id = h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 1}).Lease
	h.until(id, "ready")
	return id, time.Now().Add(time.Minute)
}

// suspend is Ctrl-Z in the agent host's terminal. The server keeps its locks and does nothing.
func (h *host) suspend() (wake func()) {
	h.t.Helper()
	pid := h.cmd.Process.Pid
	require.NoError(h.t, syscall.Kill(pid, syscall.SIGSTOP))
	wake = func() { _ = syscall.Kill(pid, syscall.SIGCONT) }
	h.t.Cleanup(wake) // it has to be awake to be ended
	return wake
}

// listed is what `gpulease leases --all` says.
func (w *world) listed() string {
	w.t.Helper()
	cmd := w.program("leases", "--all", "--keeper=false")
	out, err := cmd.CombinedOutput()
	if err != nil {
		require.Equal(w.t, exitUnconfirmed, cmd.ProcessState.ExitCode(), "%s", out)
	}
	return string(out)
}

var endedByDeadline = regexp.MustCompile(`ended\s+deadline`)

var keeperName = regexp.MustCompile(`keeper (\d+)`)

func (h *host) keeperPid(id string) int {
	h.t.Helper()
	m := keeperName.FindStringSubmatch(h.ok("get_lease", map[string]any{"lease_id": id}).Guard)
	if m == nil {
		return 0
	}
	pid, err := strconv.Atoi(m[1])
	require.NoError(h.t, err)
	return pid
}

// Each of these servers is lost in a way in which its deadline was not enforced once. The worlds live side by side, for each takes
// its minute.
func TestDeadlineOfAServerThatIsLost(t *testing.T) {
	t.Parallel()
	type loss struct {
		name     string
		w        *world
		deadline time.Time
	}
	var losses []loss

	// A suspended leader keeps its lock, and the keeper took that for its being at work.
	w := newWorld(t, lambdatest.Config{})
	h := w.host("--keeper=false") // so that it is the server that leads
	id, deadline := h.short()
	keeper := w.program("keeper")
	require.NoError(t, keeper.Start())
	t.Cleanup(func() {
		if t.Failed() {
			_ = keeper.Process.Kill()
		}
		_ = keeper.Wait()
	})
	require.Eventually(t, w.keeperRuns, 10*time.Second, 20*time.Millisecond)
	suspended, wake := id, h.suspend()
	losses = append(losses, loss{"suspended", w, deadline})

	// The keeper looked for a relative path in its own directory, and ran the key's command there, so it had no key.
	for _, env := range []string{"LAMBDA_API_KEY_FILE=key", "LAMBDA_API_KEY_COMMAND=cat key"} {
		w := newWorld(t, lambdatest.Config{})
		project := filepath.Join(w.dir, "project")
		require.NoError(t, os.Mkdir(project, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(project, "key"), []byte(w.sim.APIKey()), 0o600))
		h := w.with("LAMBDA_API_KEY=", env).hostIn(project)
		_, deadline := h.short()
		h.kill()
		losses = append(losses, loss{env, w, deadline})
	}

	// `gpulease stop` beside a suspended leader asked once, and waited for the leader to do the rest.
	stopped := newWorld(t, lambdatest.Config{})
	h = stopped.host("--keeper=false")
	stoppedID, _ := h.short()
	h.suspend()
	stopped.sim.Inject(lambdatest.Fault{Op: lambdatest.OpTerminate, Count: 1, Ignore: true})
	stop := stopped.program("stop", stoppedID, "--wait", "2m", "--keeper=false")
	said := &lockedBuffer{}
	stop.Stdout, stop.Stderr = said, said
	require.NoError(t, stop.Start())

	for _, l := range losses {
		for len(l.w.sim.Running()) > 0 {
			require.True(t, time.Now().Before(l.deadline.Add(30*time.Second)), "%s: the machine outlives its deadline\n%s", l.name, l.w.listed())
			time.Sleep(100 * time.Millisecond)
		}
		for list := ""; !endedByDeadline.MatchString(list); list = l.w.listed() {
			require.True(t, time.Now().Before(l.deadline.Add(time.Minute)), "%s: the end is not confirmed\n%s", l.name, list)
			time.Sleep(time.Second)
		}
	}
	require.NoError(t, stop.Wait(), "%s", said)
	require.Contains(t, said.String(), stoppedID+": ended (stopped)")
	require.Empty(t, stopped.sim.Running())

	// Who wakes up again finds its lease settled, and leaves it so.
	wake()
	a := losses[0].w.host().ok("get_lease", map[string]any{"lease_id": suspended})
	require.Equal(t, "ended", a.State)
	require.GreaterOrEqual(t, a.Cost, policy.Money(losses[0].w.sim.Bill().Total))
	require.Equal(t, 1, losses[0].w.sim.LaunchCount())
}

// A server without a key took the lead and could do nothing with it, so no lease of the others became ready or was ended.
func TestServerWithoutAKeyDoesNotLead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	idle := w.with("LAMBDA_API_KEY=").host()
	require.Empty(t, idle.ok("list_leases", nil).Leases)
	h := w.host("--keeper=false")
	id := h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 5}).Lease
	require.Len(t, idle.ok("list_leases", nil).Leases, 1)
	require.Equal(t, "ready", h.until(id, "ready").State)
	w.stop(h, id)
}

// A keeper that died was missed only at the next launch.
func TestKeeperThatIsKilledIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	h := w.host()
	id := h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 5}).Lease
	pid := h.keeperPid(id)
	require.NotZero(t, pid)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	began := time.Now()
	require.Eventually(t, func() bool { next := h.keeperPid(id); return next != 0 && next != pid }, 30*time.Second, 100*time.Millisecond)
	require.True(t, w.keeperRuns())
	require.Less(t, time.Since(began), 15*time.Second)
	w.stop(h, id)
}

// A keeper leaves when nothing lives. A lease that was launched in its last moments took it for its guard.
func TestLaunchWhileTheKeeperIsLeaving(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	h := w.host()
	end := func(id string) {
		h.ok("stop_lease", map[string]any{"lease_id": id})
		h.until(id, "ended")
	}
	last := h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 5}).Lease
	for i := range 2 {
		end(last)
		time.Sleep(time.Duration(i) * 600 * time.Millisecond) // the moment of the launch, not a wait for something
		last = h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 5}).Lease
		// It may be the old keeper, which then has to stay, or a new one.
		var since time.Time
		limit := time.Now().Add(keeperStarts)
		for since.IsZero() || time.Since(since) < 1500*time.Millisecond {
			switch {
			case !w.keeperRuns():
				since = time.Time{}
			case since.IsZero():
				since = time.Now()
			}
			require.True(t, time.Now().Before(limit), "round %d: no keeper stays", i)
			time.Sleep(20 * time.Millisecond)
		}
	}
	end(last)
}

// SQLite goes on writing to a ledger that was deleted. The lease was launched, and no other process could see it.
func TestDeletedStateDirectoryMeansNoLaunch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	h := w.host()
	require.Empty(t, h.ok("list_leases", nil).Leases)
	w.loseState()
	for range 2 {
		h.refused(lease.CodeLedgerUnavailable, "launch_lease", map[string]any{"type": testType, "ttl_minutes": 5})
	}
	require.Zero(t, w.sim.LaunchCount())
	require.Empty(t, w.sim.Keys())
	// A server that starts now makes a new ledger.
	require.Empty(t, w.host().ok("list_leases", nil).Leases)
}

func TestNoAPIKeyIsLeftAnywhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	key := w.sim.APIKey()
	file := filepath.Join(w.dir, "key")
	require.NoError(t, os.WriteFile(file, []byte(key), 0o600))
	h := w.with("LAMBDA_API_KEY=", "LAMBDA_API_KEY_FILE="+file, "GPULEASE_LOG_LEVEL=debug").host()
	// A proxy that repeats what it was sent.
	w.sim.Inject(lambdatest.Fault{Op: lambdatest.OpTerminate, Count: 1, Status: 500, Code: "global/internal-error", Message: "bad header Authorization: Bearer " + key})
	var answers strings.Builder
	call := func(tool string, args map[string]any) said {
		a, text := h.call(tool, args)
		fmt.Fprintf(&answers, "%s\n%s\n", a.Raw, text)
		return a
	}
	id := call("launch_lease", map[string]any{"type": testType, "ttl_minutes": 5, "purpose": "to look for the key"}).Lease
	h.until(id, "ready")
	a := call("run_command", map[string]any{"lease_id": id, "command": "env; head -c 200000 /dev/urandom | od -x; cat ~/.ssh/*; echo done", "wait_seconds": 30})
	require.NotNil(t, a.Exit)
	call("stop_lease", map[string]any{"lease_id": id})
	call("get_lease", map[string]any{"lease_id": id})
	h.until(id, "ended")
	call("list_leases", map[string]any{"include_ended": true})
	require.NoError(t, h.session.Close())
	require.NotEmpty(t, h.log.String())
	require.NotContains(t, h.log.String(), key)
	require.NotContains(t, answers.String(), key)

	looked := map[string]bool{}
	require.NoError(t, filepath.WalkDir(w.state(), func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		if os.IsNotExist(err) {
			return nil // the keeper has just tidied it away
		}
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, "others may use %s", path)
		if !d.IsDir() {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NotContains(t, string(b), key, path)
			looked[d.Name()] = true
		}
		return nil
	}))
	require.True(t, looked["ledger.db"] && looked["keeper.log"], "%v", looked)
}
