//go:build unix

package main

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

func quick() lambdatest.Config {
	return lambdatest.Config{BootTime: 200 * time.Millisecond, TerminateTime: 100 * time.Millisecond}
}

// Two processes end the same lease at the same time, and one of them is killed in the middle of it.
func TestOneOfTwoThatStopIsKilled(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"serve", "stop"} {
		for _, point := range []string{"stop-written", "terminating", "terminate-sent", "terminate-noted", "settling"} {
			if by == "stop" && point == "settling" {
				continue // the leader settles
			}
			t.Run(by+" at "+point, func(t *testing.T) {
				t.Parallel()
				c := newStage(impatient(t, quick()))
				one, other := c.host("--keeper=false"), c.host("--keeper=false")
				id := one.ok("launch_lease", launchArgs()).Lease
				c.untilState(lease.Ready)
				x := c.arm(by, point)
				stop := map[string]any{"lease_id": id}
				if by == "stop" {
					cmd := c.program("stop", id)
					require.NoError(t, cmd.Start())
					x.sprung(one.log.String)
					require.Error(t, cmd.Wait())
					c.noteDeath()
					other.begin("stop_lease", stop)
				} else {
					one.begin("stop_lease", stop)
					other.begin("stop_lease", stop)
					x.sprung(func() string { return one.log.String() + other.log.String() })
					c.noteDeath()
				}
				require.Equal(t, lease.Stopped, c.untilState(lease.Ended).Reason)
				c.verdict()
			})
		}
	}
}

// A server that leads is suspended in the middle of a launch of its own. Another takes over. The first one wakes
// up when all is over, or half of it.
func TestLeaderIsSuspendedDuringItsOwnLaunch(t *testing.T) {
	t.Parallel()
	// Not after its call: there a suspended process may hold the ledger's turn to write.
	start := func(t *testing.T, point string) (c *stage, wake func(), answer chan lease.Code) {
		c = newStage(impatient(t, quick()))
		// It leads before it comes to that point.
		c.sim.Inject(lambdatest.Fault{Op: lambdatest.OpAddKey, Count: 1, Delay: 3 * time.Second})
		asleep := c.host("--keeper=false")
		x := c.set("serve", point, "suspend")
		wake = func() { _ = syscall.Kill(asleep.cmd.Process.Pid, syscall.SIGCONT) }
		t.Cleanup(wake)
		answer = make(chan lease.Code, 1)
		go func() {
			_, refusal, err := asleep.ask("launch_lease", launchArgs())
			if err != nil {
				refusal = lease.Code(err.Error())
			}
			answer <- refusal
		}()
		x.sprung(asleep.log.String)
		require.Contains(t, asleep.log.String(), `"as":"leader`)
		return c, wake, answer
	}

	t.Run("before its call", func(t *testing.T) {
		c, wake, answer := start(t, "launch-marked")
		marked := time.Now()
		c.advance(16 * time.Minute)
		h := c.host("--keeper=false")
		h.wind()
		l := c.untilState(lease.Ended)
		require.Zero(t, l.Cost)
		// It has been asleep for longer than a call may lie about; the moment of the waking.
		time.Sleep(time.Until(marked.Add(31 * time.Second)))
		wake()
		require.NotEmpty(t, <-answer, "the launch did not happen, and it says so")
		require.Empty(t, c.ours(), "no call was sent after it had been given up")
		c.verdict()
	})
}

// The lid is closed for 20 s, ten of them after the deadline: everything sleeps but the cloud.
func TestLaptopSleepsOverADeadline(t *testing.T) {
	t.Parallel()
	c := newStage(newWorld(t, quick()))
	h := c.host()
	args := launchArgs()
	args["ttl_minutes"] = 1
	h.ok("launch_lease", args)
	l := c.untilState(lease.Ready)
	pids := append(c.keepers(), h.cmd.Process.Pid)
	require.Len(t, pids, 2)
	signal := func(s syscall.Signal) {
		for _, pid := range pids {
			_ = syscall.Kill(pid, s)
		}
	}
	t.Cleanup(func() { signal(syscall.SIGCONT) })

	time.Sleep(time.Until(l.Deadline.Add(-10 * time.Second))) // the moment of the lid
	signal(syscall.SIGSTOP)
	time.Sleep(time.Until(l.Deadline.Add(10 * time.Second)))
	require.Len(t, c.sim.Running(), 3, "it slept")
	signal(syscall.SIGCONT)
	woken := c.sim.Now()
	l = c.untilState(lease.Ended)
	require.Equal(t, lease.Deadline, l.Reason)
	late := c.ours()[0].StopCalledAt.Sub(woken)
	require.Less(t, late, 20*time.Second, "at once, but for the jobs' farewell")
	t.Logf("ended %s after the waking", late.Round(time.Millisecond))
	c.verdict()
}
