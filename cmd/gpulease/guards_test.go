//go:build unix

package main

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

// A launch and the loop see to a keeper at the same moment. One is started, and one says so.
func TestAKeeperIsStartedOnce(t *testing.T) {
	t.Setenv(asProgram, "1") // of the keeper that this process starts
	w := newWorld(t, lambdatest.Config{})
	h := w.host()
	id := h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 30}).Lease
	h.until(id, "ready")
	require.NoError(t, h.session.Close())

	s := newSettings(w.env)
	s.flags(pflag.NewFlagSet("test", pflag.ContinueOnError))
	require.NoError(t, s.check())
	log := &lockedBuffer{}
	a, err := s.open(t.Context(), lease.GuardServer, log)
	require.NoError(t, err)
	defer func() { require.NoError(t, a.close()) }()
	_, err = a.account.Account(t.Context()) // the keeper gets the key that is known
	require.NoError(t, err)
	guards, err := a.store.Guards(t.Context())
	require.NoError(t, err)
	i := slices.IndexFunc(guards, isFreshKeeper)
	require.GreaterOrEqual(t, i, 0)
	pid, err := strconv.Atoi(strings.TrimPrefix(guards[i].Name, lease.GuardKeeper+" "))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	require.Eventually(t, func() bool { return !w.keeperRuns() }, 20*time.Second, 10*time.Millisecond)
	require.NoError(t, a.store.Beat(t.Context(), guards[i].Name, time.Time{}))

	var started atomic.Int32
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			one, err := s.ensureKeeper(t.Context(), a)
			assert.NoError(t, err)
			if one {
				started.Add(1)
			}
		})
	}
	group.Wait()
	require.EqualValues(t, 1, started.Load())
	require.NotContains(t, w.says(0, "leases"), "one has been started")
}

// A server that has ended guards nothing, and nobody is told that it does.
func TestAServerThatHasEndedIsNoGuard(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	h := w.host()
	id := h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 30}).Lease
	h.until(id, "ready")
	name := lease.GuardServer + " " + strconv.Itoa(h.cmd.Process.Pid)
	other := w.host()
	require.Eventually(t, func() bool {
		return strings.Contains(string(other.ok("get_lease", map[string]any{"lease_id": id}).Raw), name)
	}, 30*time.Second, 50*time.Millisecond, "it is a guard while it runs")
	require.NoError(t, h.session.Close())
	require.NotContains(t, string(other.ok("get_lease", map[string]any{"lease_id": id}).Raw), name)
	w.stop(other, id)
}
