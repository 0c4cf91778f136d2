//go:build unix

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

func init() { children["agent-host"] = agentHost }

// agentHost is an agent host as a process: an MCP client that starts its server, launches, and says
// which process the server is. It ends when it is killed.
func agentHost([]string) int {
	err := func() error {
		server := exec.Command(os.Args[0], "serve")
		server.Stderr = os.Stderr
		ctx := context.Background()
		s, err := mcp.NewClient(&mcp.Implementation{Name: "host", Version: "1"}, nil).Connect(ctx, &mcp.CommandTransport{Command: server}, nil)
		if err != nil {
			return err
		}
		res, err := s.CallTool(ctx, &mcp.CallToolParams{Name: "launch_lease", Arguments: map[string]any{"type": testType, "ttl_minutes": 1}})
		if err != nil {
			return err
		}
		if res.IsError {
			return fmt.Errorf("launch_lease: %v", res.Content[0])
		}
		fmt.Println(server.Process.Pid)
		_, err = io.Copy(io.Discard, os.Stdin) // the test holds the other end
		return errors.Join(err, s.Close())
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// hostProcess is an agentHost and its server.
type hostProcess struct {
	cmd    *exec.Cmd
	server int
}

// launchByHost returns when the host has launched.
func (c *stage) launchByHost() hostProcess {
	c.t.Helper()
	h := hostProcess{cmd: c.program("agent-host")}
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the server is in the host's group, as in a terminal
	log := &lockedBuffer{}
	h.cmd.Stderr = log
	_, err := h.cmd.StdinPipe()
	require.NoError(c.t, err)
	out, err := h.cmd.StdoutPipe()
	require.NoError(c.t, err)
	require.NoError(c.t, h.cmd.Start())
	c.t.Cleanup(func() { _ = syscall.Kill(-h.cmd.Process.Pid, syscall.SIGKILL) })
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(c.t, err, "%s", log)
	h.server, err = strconv.Atoi(strings.TrimSpace(line))
	require.NoError(c.t, err)
	return h
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

// keepers are the keepers that have been seen in the ledger.
func (c *stage) keepers() (pids []int) {
	c.t.Helper()
	guards, err := c.open().Guards(c.t.Context())
	require.NoError(c.t, err)
	for _, g := range guards {
		if pid, ok := strings.CutPrefix(g.Name, lease.GuardKeeper+" "); ok {
			n, err := strconv.Atoi(pid)
			require.NoError(c.t, err)
			pids = append(pids, n)
		}
	}
	return pids
}

// The process of the agent host is killed with kill -9 one second after the launch.
func TestHostIsKilledOneSecondAfterTheLaunch(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup // as parallel subtests they would begin after all others, and be waited for alone
	for _, how := range []string{"alone", "with its server", "with its server and the keeper"} {
		all.Go(func() {
			t.Run(how, func(t *testing.T) {
				c := newStage(newWorld(t, lambdatest.Config{}))
				h := c.launchByHost()
				require.Len(t, c.ours(), 1)
				launched := c.ours()[0].LaunchedAt
				require.True(t, c.keeperRuns())
				time.Sleep(time.Until(launched.Add(time.Second))) // the moment of the kill
				target := h.cmd.Process.Pid
				if how != "alone" {
					target = -target // the whole group
				}
				require.NoError(t, syscall.Kill(target, syscall.SIGKILL))
				require.Error(t, h.cmd.Wait())
				killed := time.Since(launched)
				require.Less(t, killed, 5*time.Second)
				require.Eventually(t, func() bool { return !alive(h.server) }, 20*time.Second, 10*time.Millisecond, "the server ends with its host")
				if how == "with its server and the keeper" {
					for _, pid := range c.keepers() {
						require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
					}
					require.Eventually(t, func() bool { return !c.keeperRuns() }, 10*time.Second, 10*time.Millisecond)
					c.reapedAtItsHardStop()
					return
				}
				require.True(t, c.keeperRuns(), "the keeper outlives them")
				l := c.untilLease("ended", func(l lease.Lease) bool { return l.State == lease.Ended })
				require.Equal(t, lease.Deadline, l.Reason)
				i := c.ours()[0]
				require.False(t, i.StopCalledAt.Before(l.Deadline), "it had all of its time")
				require.False(t, i.TerminatedAt.After(l.Deadline.Add(time.Minute)), "it is gone by its deadline plus 60 s")
				t.Logf("killed %s after the launch; gone %s after the deadline", killed.Round(time.Millisecond), i.TerminatedAt.Sub(l.Deadline).Round(time.Millisecond))
				c.verdict()
				require.Eventually(t, func() bool { return !c.keeperRuns() }, 15*time.Second, 20*time.Millisecond, "the keeper ends when nothing lives")
			})
		})
	}
	all.Wait()
}

// reapedAtItsHardStop ends a lease that nobody looks after any more from an empty
// state directory, as another computer would.
func (c *stage) reapedAtItsHardStop() {
	c.t.Helper()
	empty := filepath.Join(c.dir, "another computer")
	require.NoError(c.t, os.Mkdir(empty, 0o700))
	reap := func() string {
		cmd := c.with("HOME="+empty, "GPULEASE_STATE_DIR="+filepath.Join(empty, "state")).program("reap")
		out, err := cmd.CombinedOutput()
		require.NoError(c.t, err, "%s", out)
		return string(out)
	}
	hardStop := c.lease().HardStop
	c.sim.Advance(hardStop.Sub(c.sim.Now()) - 10*time.Minute)
	reap()
	require.Len(c.t, c.sim.Running(), 3, "it is not due yet")

	c.sim.Advance(hardStop.Sub(c.sim.Now()) + time.Second)
	said := reap()
	i := c.ours()[0]
	require.NotZero(c.t, i.TerminatedAt, "%s", said)
	require.False(c.t, i.TerminatedAt.After(hardStop.Add(time.Minute)))
	running := c.sim.Running()
	require.Len(c.t, running, 2)
	for _, r := range running {
		require.Contains(c.t, c.others, r.ID, "what is not due, and what only looks like ours, runs on")
	}
	left, err := os.ReadDir(empty)
	require.NoError(c.t, err)
	require.Empty(c.t, left, "it needs nothing and leaves nothing")

	// Whoever comes back to the old ledger finds out, and settles what was billed.
	h := c.host("--keeper=false")
	h.wind()
	l := c.untilState(lease.Ended)
	bill, ok := c.sim.Bill().Of(i.ID)
	require.True(c.t, ok)
	require.GreaterOrEqual(c.t, int64(l.Cost), bill.MicroDollars)
	require.NoError(c.t, c.open().Verify(c.t.Context()))
}
