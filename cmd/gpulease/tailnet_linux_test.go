package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

// tailnetWorld is a world with a tailnet: who connects to 127.0.0.2 there comes out at
// the machine as 127.0.0.3, and the account's firewall lets only that in.
type tailnetWorld struct {
	*world
	heard []string // every answer and every output
}

const (
	tailnetAddr = "127.0.0.2"
	tailnetEnd  = "127.0.0.3"
	noPublicSSH = "no public ssh"
)

func newTailnetWorld(t *testing.T) *tailnetWorld {
	t.Helper()
	w := &tailnetWorld{world: newWorld(t, lambdatest.Config{})}
	w.under("network: {tailscale_tags: [gpulease], firewall_ruleset: " + noPublicSSH + "}\n")
	w.closeFirewall()
	w.inTailnet()
	w.env = append(w.env, paceVariable+"=20ms")
	return w
}

// closeFirewall leaves the tailnet as the only way to the SSH port of a machine.
func (w *tailnetWorld) closeFirewall() {
	w.t.Helper()
	key, err := lambda.ParseKey(w.sim.APIKey())
	require.NoError(w.t, err)
	c, err := lambda.New(key, lambda.WithBaseURL(w.sim.URL()), lambda.WithLimiter(lambda.NoLimit))
	require.NoError(w.t, err)
	_, err = c.SetFirewallRules(w.t.Context(), nil)
	require.NoError(w.t, err)
	_, err = c.CreateFirewallRuleset(w.t.Context(), noPublicSSH, "us-east-1", []lambda.FirewallRule{
		{Protocol: lambda.ProtocolTCP, PortRange: &lambda.PortRange{22, 22}, SourceNetwork: tailnetEnd},
	})
	require.NoError(w.t, err)
}

// join has the instance appear in the tailnet.
func (w *tailnetWorld) join(i lambdatest.Instance) {
	w.t.Helper()
	port := strconv.Itoa(w.sim.SSHPort())
	from, err := net.Listen("tcp", net.JoinHostPort(tailnetAddr, port))
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var over sync.WaitGroup
	w.t.Cleanup(func() { cancel(); _ = from.Close(); over.Wait() })
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(tailnetEnd)}}
	over.Go(func() {
		for {
			near, err := from.Accept()
			if err != nil {
				return
			}
			over.Go(func() {
				defer near.Close()
				far, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(i.IP, port))
				if err != nil {
					return
				}
				defer far.Close()
				stop := context.AfterFunc(ctx, func() { _, _ = near.Close(), far.Close() })
				defer stop()
				over.Go(func() { _, _ = io.Copy(far, near); _, _ = near.Close(), far.Close() })
				_, _ = io.Copy(near, far)
			})
		}
	})
	w.tailnetSays(fmt.Sprintf(`{"BackendState": "Running", "Self": {"Online": true}, "Peer": {
		"nodekey:1": {"HostName": "desk", "DNSName": "desk.tail1.ts.net.", "TailscaleIPs": ["100.64.0.1"], "Online": true},
		"nodekey:2": {"HostName": %q, "DNSName": %q, "TailscaleIPs": ["fd7a:115c:a1e0::2", %q], "Online": true}}}`,
		i.KeyNames[0], i.KeyNames[0]+".tail1.ts.net.", tailnetAddr))
}

// greets reports whether an SSH server answers there.
func greets(t *testing.T, addr string) bool {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
	n, _ := io.ReadFull(c, make([]byte, len("SSH-2.0-")))
	return n > 0
}

func (w *tailnetWorld) hear(h *host, tool string, args map[string]any) said {
	w.t.Helper()
	a, text := h.call(tool, args)
	w.heard = append(w.heard, string(a.Raw), text)
	require.Empty(w.t, text)
	return a
}

func (w *tailnetWorld) run(args ...string) string {
	w.t.Helper()
	out, err := w.program(args...).CombinedOutput()
	w.heard = append(w.heard, string(out))
	require.NoError(w.t, err, "%v: %s", args, out)
	return string(out)
}

// The machine is reached through the tailnet by every process and in every way, never by
// its public address, which the firewall closes; and the key to the tailnet is nowhere
// but in what the cloud was sent.
func TestMachineInATailnet(t *testing.T) {
	t.Parallel()
	w := newTailnetWorld(t)
	project := filepath.Join(w.dir, "project")
	require.NoError(t, os.MkdirAll(filepath.Join(project, "src"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(project, "src", "a"), []byte("a"), 0o600))
	h := w.host("--root", project, "--log-level", "debug")

	// An answer that repeats what was sent does not give the key away.
	w.sim.Inject(lambdatest.Fault{Op: lambdatest.OpLaunch, Count: 1, Status: http.StatusBadRequest, Code: lambdatest.CodeInvalidParameters, Message: "user_data: not liked: " + aTailnetKey})
	_, text := h.call("launch_lease", map[string]any{"type": testType, "ttl_minutes": 5})
	require.Contains(t, text, "not liked: [redacted]")
	w.heard = append(w.heard, text)

	w.hear(h, "launch_lease", map[string]any{"type": testType, "ttl_minutes": 5, "dry_run": true})
	require.Equal(t, 1, w.taken(), "a quote takes no key")
	id := w.hear(h, "launch_lease", map[string]any{"type": testType, "ttl_minutes": 30, "results": []string{"out"}}).Lease
	require.Equal(t, 2, w.taken(), "each launch takes a key of its own")
	h.untilDetail(id, "waiting for the machine to join the tailnet")

	i := w.sim.Running()[0]
	require.Equal(t, "us-east-1", i.Region)
	require.Len(t, i.Rulesets, 1)
	require.Contains(t, w.sim.UserData(i.ID), aTailnetKey)
	require.Contains(t, w.sim.UserData(i.ID), "--advertise-tags=tag:gpulease ")
	public := net.JoinHostPort(i.IP, strconv.Itoa(w.sim.SSHPort()))
	require.Eventually(t, func() bool { return w.sim.Machine(i.ID) != nil }, time.Minute, 10*time.Millisecond)
	require.False(t, greets(t, public), "the firewall closes the public way")

	w.join(i)
	h.until(id, "ready")
	require.True(t, greets(t, net.JoinHostPort(tailnetAddr, strconv.Itoa(w.sim.SSHPort()))))
	w.hear(h, "sync_files", map[string]any{"lease_id": id, "local_dir": "src", "remote_dir": "src"})
	a := w.hear(h, "run_command", map[string]any{"lease_id": id, "wait_seconds": 30, "command": "mkdir out && cat src/a >out/result && cat src/a"})
	require.Equal(t, "a", a.Stdout)

	// Who comes later need not ask: neither another server, nor a person.
	w.tailnetSays(`{"BackendState": "Stopped"}`)
	h.kill()
	next := w.host("--root", project)
	a = w.hear(next, "run_command", map[string]any{"lease_id": id, "wait_seconds": 30, "command": "echo again"})
	require.Equal(t, "again\n", a.Stdout)
	require.Regexp(t, `(?m)^\s*HostName `+tailnetAddr+`$`, w.run("ssh", "--config", id))
	require.Equal(t, "by hand\n", w.run("ssh", id, "--", "echo by hand"))
	_, text = next.call("launch_lease", map[string]any{"type": testType, "ttl_minutes": 5})
	require.True(t, strings.HasPrefix(text, "error "+string(lease.CodeSSHUnreachable)+": "), "%s", text)
	require.Contains(t, text, `"Stopped"`)
	w.heard = append(w.heard, text)

	w.heard = append(w.heard, string(w.stop(next, id).Raw))
	result, err := os.ReadFile(filepath.Join(project, "results", id, "out", "result"))
	require.NoError(t, err)
	require.Equal(t, "a", string(result), "results come home through the tailnet")

	for tool, args := range map[string]map[string]any{"get_lease": {"lease_id": id}, "list_leases": {}, "spend_report": {}, "list_capacity": {}} {
		w.hear(next, tool, args)
	}
	w.run("leases", "--json", "--all")
	w.run("audit")
	w.run("policy", "show")
	w.heard = append(w.heard, h.log.String(), next.log.String())
	require.Equal(t, 2, w.taken())
	w.keyIsNowhere()
}

// A keeper has all that it takes to launch what a person approves when nobody else is there.
func TestKeeperLaunchesIntoATailnet(t *testing.T) {
	t.Parallel()
	w := newTailnetWorld(t)
	w.under("approve_above: 0\nnetwork: {tailscale_tags: [gpulease], firewall_ruleset: " + noPublicSSH + "}\n")
	h := w.host()
	id := w.hear(h, "launch_lease", map[string]any{"type": testType, "ttl_minutes": 5}).Lease
	h.kill()
	w.run("approve", "--yes", id)
	require.Eventually(t, func() bool { return len(w.sim.Running()) == 1 }, time.Minute, 50*time.Millisecond)
	i := w.sim.Running()[0]
	require.Contains(t, w.sim.UserData(i.ID), aTailnetKey)
	require.Len(t, i.Rulesets, 1)
	w.join(i)
	for limit := time.Now().Add(time.Minute); !strings.Contains(w.run("leases"), "ready"); time.Sleep(100 * time.Millisecond) {
		require.True(t, time.Now().Before(limit), "the keeper does not get it ready")
	}
	w.run("stop", id)
	w.keyIsNowhere()
}

// untilDetail waits for a phase of the boot.
func (h *host) untilDetail(id, detail string) {
	h.t.Helper()
	limit := time.Now().Add(time.Minute)
	for {
		a := h.ok("get_lease", map[string]any{"lease_id": id, "wait_seconds": 1})
		if a.Detail == detail {
			return
		}
		require.True(h.t, time.Now().Before(limit), "the lease is %s (%s), not %q\n%s", a.State, a.Detail, detail, h.log)
	}
}

// taken is how many keys were taken.
func (w *tailnetWorld) taken() int {
	w.t.Helper()
	text, err := os.ReadFile(w.path("taken"))
	require.NoError(w.t, err)
	return strings.Count(string(text), "one\n")
}

// keyIsNowhere looks for the key in everything that was said and in every file but its
// own and those of the simulated cloud.
func (w *tailnetWorld) keyIsNowhere() {
	w.t.Helper()
	for _, text := range w.heard {
		require.NotContains(w.t, text, aTailnetKey)
	}
	files := 0
	require.NoError(w.t, filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case os.IsNotExist(err):
			return nil // the keeper works beside us
		case err != nil:
			return err
		case d.IsDir() && path == w.path("cloud"):
			return filepath.SkipDir
		case !d.Type().IsRegular() || path == w.path("authkey"):
			return nil
		}
		text, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil
		}
		files++
		require.False(w.t, bytes.Contains(text, []byte(aTailnetKey)), "the key is in %s", path)
		return err
	}))
	require.FileExists(w.t, filepath.Join(w.state(), "ledger.db"))
	require.FileExists(w.t, filepath.Join(w.state(), "keeper.log"))
	require.Greater(w.t, files, 5)
}
