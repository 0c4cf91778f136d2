//go:build unix

package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

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
		h.begin("launch_lease", launchArgs())
		c.falls(x, h)
		c.keeperFalls(found)
		return nil
	}
	x := c.arm("serve", d.point)
	h := c.server(d)
	h.begin("launch_lease", launchArgs())
	c.falls(x, h)
	return nil
}

// server is one that has a keeper beside it only where that one is to go on.
func (c *stage) server(d death) *host {
	if d.next == "keeper" {
		return c.host()
	}
	return c.host("--keeper=false")
}

// leader is a server that leads a lease that it has launched, with a keeper standing by if it
// is to go on.
func (c *stage) leader(d death, args map[string]any) (*host, string) {
	c.t.Helper()
	h := c.host("--keeper=false")
	id := h.ok("launch_lease", args).Lease
	c.acts(h.log.String)
	if d.next == "keeper" {
		c.startKeeper()
	}
	return h, id
}

// guarded is a lease with a result that the keeper alone looks after, and a server that stands by.
func (c *stage) guarded() *host {
	c.t.Helper()
	c.drives("launch", filepath.Join(c.dir, "home"), "keeper")
	c.acts(c.keeperSaid)
	return c.host("--keeper=false")
}

func (c *stage) bootingThere(d death) *host {
	if d.by == "keeper" {
		s := c.guarded()
		c.keeperFalls(c.arm("keeper", d.point))
		return s
	}
	h, _ := c.leader(d, launchArgs())
	c.falls(c.arm("serve", d.point), h)
	return nil
}

func (c *stage) stoppingThere(d death) *host {
	h, id := c.leader(d, launchArgs())
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
		c.drives("launch", filepath.Join(c.dir, "home"))
		s = c.host("--keeper=false")
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
	args := launchArgs()
	args["ttl_minutes"] = 1
	h, _ := c.leader(d, args)
	c.untilState(lease.Ready)
	x := c.arm("serve", d.point)
	c.advance(150 * time.Second)
	h.wind()
	c.falls(x, h)
	return nil
}

// idling has a lease be idle for longer than the policy allows.
func (c *stage) idling(d death) *host {
	h, _ := c.leader(d, launchArgs())
	c.untilLease("idle", func(l lease.Lease) bool { return !l.IdleSince.IsZero() })
	x := c.arm("serve", d.point)
	c.advance(90 * time.Second)
	h.wind()
	c.falls(x, h)
	return nil
}

func (c *stage) extending(d death) *host {
	h, id := c.leader(d, launchArgs())
	before := c.untilState(lease.Ready).Deadline
	c.driveFalls(c.arm(d.by, d.point), "extend", id, "call 1")
	c.drives("extend", id, "call 1") // an agent that has had no answer
	require.Equal(c.t, before.Add(10*time.Minute), c.lease().Deadline, "extended once")
	return h
}

func (c *stage) approving(d death) *host {
	if d.point == "asked" {
		return c.launching(d)
	}
	var flags []string
	if d.by != "keeper" {
		flags = append(flags, "--keeper=false")
	}
	h := c.host(flags...)
	id := h.ok("launch_lease", launchArgs()).Lease
	switch d.by {
	case "drive-approve":
		c.driveFalls(c.arm(d.by, d.point), "approve", id)
		return h
	case "keeper":
		h.kill()
		c.acts(c.keeperSaid)
		h = c.host("--keeper=false")
		x := c.arm("keeper", d.point)
		c.drives("approve", id)
		c.keeperFalls(x)
		return h
	}
	x := c.arm("serve", d.point)
	c.drives("approve", id)
	c.falls(x, h)
	return nil
}

// adopting has all local state be lost, and a process that rebuilds it from the account die.
func (c *stage) adopting(d death) *host {
	h := c.host("--keeper=false")
	h.ok("launch_lease", launchArgs())
	c.untilState(lease.Ready)
	h.kill()
	name, err := c.open().LedgerID(context.Background())
	require.NoError(c.t, err)
	require.NoError(c.t, c.db.Close())
	c.db, c.lost = nil, name
	require.NoError(c.t, os.RemoveAll(c.state()))
	c.driveFalls(c.arm(d.by, d.point), "adopt", name)
	return nil
}

func (c *stage) adoptAgain() { c.drives("adopt", c.lost) }
