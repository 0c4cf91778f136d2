//go:build unix

package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

// What went wrong for others, where it takes real processes; docs/incidents.md is the list.

// Dozens of servers of hosts that were long gone were found running. This server's input stays
// open, as it does where something else has inherited it; only its parent is gone.
func TestIncidentServersOutlivedTheirHosts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	host := exec.Command("sh", "-c", `"$0" serve; exit $?`, os.Args[0]) // a shell that stays, as its parent
	host.Env, host.Stderr = w.env, io.Discard
	in, err := host.StdinPipe()
	require.NoError(t, err)
	defer in.Close()
	out, err := host.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, host.Start())
	_, err = in.Write([]byte(`{"jsonrpc":"2.0","id":1,"method":"ping"}` + "\n"))
	require.NoError(t, err)
	answer := make([]byte, 1)
	_, err = io.ReadFull(out, answer)
	require.NoError(t, err, "the server lives")
	require.NoError(t, host.Process.Kill())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, out) // its end is the server's: nobody else has it
	}()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		require.FailNow(t, "the server outlives its host")
	}
	_ = host.Wait()
}

// Many sessions, each with a server of its own, all launched what a cap allows once. All of them
// are killed then: the watchdog must not be in any of them.
func TestIncidentManyServersSpentAsOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	var hosts []*host
	for range 5 {
		hosts = append(hosts, w.host())
	}
	texts := make(chan string, len(hosts))
	for _, h := range hosts {
		go func() {
			_, text := h.call("launch_lease", map[string]any{"type": testType, "ttl_minutes": 1})
			texts <- text
		}()
	}
	allowed := 0
	for range hosts {
		text := <-texts
		if text == "" {
			allowed++
			continue
		}
		require.Contains(t, text, "max_leases")
	}
	require.Equal(t, 2, allowed, "two leases at once, over all servers")
	require.Equal(t, 2, w.sim.LaunchCount())
	for _, h := range hosts {
		require.Len(t, h.ok("list_leases", nil).Leases, 2, "each server sees all of them")
	}
	require.True(t, w.keeperRuns())
	for _, h := range hosts {
		h.kill()
	}
	require.Len(t, w.sim.Running(), 2)
	require.Eventually(t, func() bool { return len(w.sim.Running()) == 0 }, 2*time.Minute, 100*time.Millisecond, "one keeper ends them all")
	require.Eventually(t, func() bool { return strings.Count(w.listed(), "deadline") == 2 }, time.Minute, time.Second, "and confirms it")
}

// A machine came back to life when nobody looked any more: the watchdog had gone because, as far
// as it knew, nothing lived.
func TestIncidentWatchdogLeftBeforeTheMachineWasGone(t *testing.T) {
	t.Parallel()
	var lies atomic.Int32
	w := newWorld(t, lambdatest.Config{Wrap: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "/instances") || lies.Add(-1) != 0 {
				h.ServeHTTP(rw, r)
				return
			}
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			_, _ = io.WriteString(rw, strings.ReplaceAll(rec.Body.String(), `"active"`, `"terminated"`))
		})
	}})
	h := w.host()
	id := h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 30}).Lease
	h.until(id, "ready")
	h.kill()
	ignored := w.sim.Inject(lambdatest.Fault{Op: lambdatest.OpTerminate, Count: 1, Ignore: true})
	lies.Store(1)
	require.Eventually(t, func() bool { return w.sim.Hits(ignored) == 1 }, time.Minute, 50*time.Millisecond, "the lease has ended, and its machine is found")
	require.Len(t, w.sim.Running(), 1)
	require.True(t, w.keeperRuns(), "the keeper stays")
	require.Eventually(t, func() bool { return len(w.sim.Running()) == 0 }, time.Minute, 50*time.Millisecond)
	require.Eventually(t, func() bool { return !w.keeperRuns() }, time.Minute, 50*time.Millisecond, "and goes when the machine is gone")
	a := w.host().ok("get_lease", map[string]any{"lease_id": id})
	require.Equal(t, string(lease.Gone), a.Reason)
}
