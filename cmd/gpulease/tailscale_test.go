//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"
)

// inTailnet has the processes of the world find a tailnet with nobody in it, and a
// command that notes that it was run and prints a key.
func (w *world) inTailnet() {
	w.t.Helper()
	w.secretFile("authkey", aTailnetKey)
	w.programFile("tailscale", `[ "$*" = "status --json" ] && cat '`+w.path("status.json")+"'\n")
	w.tailnetSays(`{"BackendState": "Running", "Peer": null}`)
	w.env = append(w.env, "GPULEASE_TAILSCALE="+w.path("tailscale"), authKeyCommandVariable+"=echo one >>'"+w.path("taken")+"'; cat '"+w.path("authkey")+"'")
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) secretFile(name, text string) {
	w.t.Helper()
	require.NoError(w.t, os.WriteFile(w.path(name), []byte(text+"\n"), 0o600))
}

// programFile writes a script. While it is open, nothing is started that would have it
// open, too, and so keep it from being run.
func (w *world) programFile(name, script string) {
	w.t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	require.NoError(w.t, os.WriteFile(w.path(name), []byte("#!/bin/sh\n"+script), 0o755))
}

// tailnetSays has the tailscale program answer so, from one moment to the next.
func (w *world) tailnetSays(status string) {
	w.t.Helper()
	w.secretFile("status.new", status)
	require.NoError(w.t, os.Rename(w.path("status.new"), w.path("status.json")))
}

// joining has a machine join a tailnet when everybody is in place.
func (c *stage) joining(d death) *host {
	c.t.Helper()
	c.inTailnet()
	var s, dies *host
	if d.by == "keeper" {
		s = c.guarded()
	} else {
		dies, _ = c.leader(d)
	}
	x := c.arm(d.by, d.point)
	require.Eventually(c.t, func() bool { return len(c.ours()) == 1 && c.ours()[0].IP != "" }, time.Minute, 10*time.Millisecond)
	i := c.ours()[0]
	c.tailnetSays(fmt.Sprintf(`{"BackendState": "Running", "Peer": {"nodekey:1": {"HostName": %q, "TailscaleIPs": [%q], "Online": true}}}`, i.KeyNames[0], i.IP))
	if dies == nil {
		c.keeperFalls(x)
	} else {
		c.falls(x, dies)
	}
	return s
}
