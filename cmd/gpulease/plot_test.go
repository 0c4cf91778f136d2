//go:build unix

package main

import (
	"context"
	"os"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

// launching has a server, or the keeper, die on the way through a launch.
func (c *stage) launching(d death) *host {
	c.t.Helper()
	if d.by == "keeper" { // it finds what a server has launched
		x := c.arm("serve", "launch-sent")
		found := c.arm("keeper", d.point)
		h := c.host()
		h.begin("launch_lease", c.args)
		c.falls(x, h)
		c.keeperFalls(found)
		return nil
	}
	x := c.arm("serve", d.point)
	var h *host
	if d.next == "keeper" {
		h = c.host()
	} else {
		h = c.server()
	}
	h.begin("launch_lease", c.args)
	c.falls(x, h)
	return nil
}

// leader is a server that leads a lease that it has launched, with a keeper standing by if it
// is to go on.
func (c *stage) leader(d death) (*host, string) {
	c.t.Helper()
	h := c.server()
	id := h.ok("launch_lease", c.args).Lease
	c.acts(h.log.String)
	if d.next == "keeper" {
		c.startKeeper()
	}
	return h, id
}

// guarded is a lease with a result that the keeper alone looks after, and a server that stands by.
func (c *stage) guarded() *host {
	c.t.Helper()
	c.args["results"] = []string{"out"}
	h := c.host("--root", c.project())
	h.ok("launch_lease", c.args)
	h.kill()
	c.acts(c.keeperSaid)
	return c.server()
}

// bootingThere has a machine come up only when everybody is in place: it boots for longer than that takes.
func (c *stage) bootingThere(d death) *host {
	var s, dies *host
	if d.by == "keeper" {
		s = c.guarded()
	} else {
		dies, _ = c.leader(d)
	}
	x := c.arm(d.by, d.point)
	if d.point == "seen" { // that is while it boots
		defer c.skip(longBoot)
	} else {
		c.skip(longBoot)
	}
	if dies == nil {
		c.keeperFalls(x)
	} else {
		c.falls(x, dies)
	}
	return s
}

// longBoot is less than what the program takes for a wrong clock.
const longBoot = 50 * time.Second

func (c *stage) stoppingThere(d death) *host {
	h, id := c.leader(d)
	c.untilState(lease.Ready)
	x := c.arm("serve", d.point)
	h.begin("stop_lease", map[string]any{"lease_id": id})
	c.falls(x, h)
	return nil
}

// bringingHome is the stop of a lease that has results.
func (c *stage) bringingHome(d death) *host {
	var s *host
	if d.by == "keeper" {
		s = c.guarded()
	} else {
		c.args["results"] = []string{"out"}
		s, _ = c.leader(d)
	}
	l := c.untilState(lease.Ready)
	s.ok("run_command", map[string]any{"lease_id": string(l.ID), "command": "echo 42 > out", "cwd": ".", "wait_seconds": 20})
	x := c.arm(d.by, d.point)
	s.begin("stop_lease", map[string]any{"lease_id": string(l.ID)})
	if d.by == "keeper" {
		c.keeperFalls(x)
		return s
	}
	c.falls(x, s)
	return nil
}

// naming is a stop that says only then what is to be brought home.
func (c *stage) naming(d death) *host {
	h, id := c.leader(d)
	c.untilState(lease.Ready)
	h.ok("run_command", map[string]any{"lease_id": id, "command": "echo 42 > out", "cwd": ".", "wait_seconds": 20})
	x := c.arm(d.by, d.point)
	h.begin("stop_lease", stopArgs(d, id))
	c.falls(x, h)
	return nil
}

// preempted is an end that nobody here has asked for.
func (c *stage) preempted(d death) *host {
	s := c.guarded()
	x := c.arm("keeper", d.point)
	l := c.untilLease("an instance", func(l lease.Lease) bool { return l.InstanceID != "" })
	require.NoError(c.t, c.sim.Become(l.InstanceID, lambdatest.Preempted))
	c.keeperFalls(x)
	return s
}

// wind makes a server follow the cloud's clock at once: it learns the time from answers, and asks
// for some before a launch.
func (h *host) wind() {
	for range 2 {
		h.begin("launch_lease", map[string]any{"type": testType, "ttl_minutes": 481}) // more than max_ttl
	}
}

// overdue has a lease come to its deadline.
func (c *stage) overdue(d death) *host {
	c.args["ttl_minutes"] = 1
	h, _ := c.leader(d)
	c.untilState(lease.Ready)
	x := c.arm("serve", d.point)
	c.advance(150 * time.Second)
	h.wind()
	c.falls(x, h)
	return nil
}

// idling has a lease be idle for longer than the policy allows.
func (c *stage) idling(d death) *host {
	h, _ := c.leader(d)
	c.untilLease("idle", func(l lease.Lease) bool { return !l.IdleSince.IsZero() })
	x := c.arm("serve", d.point)
	c.advance(90 * time.Second)
	h.wind()
	c.falls(x, h)
	return nil
}

// extending is a call of an agent that has a name, as hosts give it, and that is made again.
func (c *stage) extending(d death) *host {
	h, id := c.leader(d)
	before := c.untilState(lease.Ready).Deadline
	call := callParams("extend_lease", map[string]any{"lease_id": id, "minutes": 10})
	call.Meta = mcp.Meta{"claudecode/toolUseId": "toolu_1"}
	x := c.arm(d.by, d.point)
	h.beginCall(call)
	c.falls(x, h)
	s := c.server()
	res, err := s.session.CallTool(c.t.Context(), call)
	require.NoError(c.t, err)
	require.False(c.t, res.IsError, "%v", res.Content)
	require.Equal(c.t, before.Add(10*time.Minute), c.lease().Deadline, "extended once")
	return s
}

func (c *stage) approving(d death) *host {
	if d.point == "asked" {
		return c.launching(d)
	}
	var h *host
	if d.by == "keeper" {
		h = c.host()
	} else {
		h = c.server()
	}
	id := h.ok("launch_lease", c.args).Lease
	yes := []string{"approve", id, "--yes"}
	switch d.by {
	case "approve":
		c.commandFalls(c.arm(d.by, d.point), yes...)
		return h
	case "keeper":
		h.kill()
		c.acts(c.keeperSaid)
		h = c.server()
		x := c.arm("keeper", d.point)
		c.runs(yes...)
		c.keeperFalls(x)
		return h
	}
	c.acts(h.log.String) // the person's command starts a keeper, which stands by then
	x := c.arm("serve", d.point)
	c.runs(yes...)
	c.falls(x, h)
	return nil
}

// adopting has all local state be lost, and a process that rebuilds it from the account die.
func (c *stage) adopting(d death) *host {
	h := c.server()
	h.ok("launch_lease", c.args)
	c.untilState(lease.Ready)
	h.kill()
	name, err := c.open().LedgerID(context.Background())
	require.NoError(c.t, err)
	require.NoError(c.t, c.db.Close())
	c.db = nil
	require.NoError(c.t, os.RemoveAll(c.state()))
	adopt := []string{"reap", "--adopt", "--from-ledger", name}
	c.commandFalls(c.arm(d.by, d.point), adopt...)
	c.runs(adopt...)
	return nil
}
