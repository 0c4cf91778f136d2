package lease_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

// A process dies between settling a lease and removing its keys, while another lease lives on
// in other hands. The keys are gone soon, not at the next hourly sweep or when nothing lives any more.
func TestKeysOfALeaseWhoseSettlerDiedGoSoon(t *testing.T) {
	t.Parallel()
	for _, only := range []bool{false, true} {
		name := map[bool]string{false: "another lease lives", true: "nothing lives"}[only]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{})
			k.halt()
			var lock leadLock
			var armed atomic.Bool
			dead, died := make(chan struct{}), make(chan struct{})
			die := sync.OnceFunc(func() { close(died) })
			first, _ := k.process(lock.as(1, lease.Config{Guard: "server 1", Crash: func(point string) {
				if point == "settled" && armed.Load() {
					die()
					<-dead
				}
			}}))
			t.Cleanup(func() { close(dead) }) // before its end is waited for
			k.m = first
			lives := 0
			if !only {
				lives = 1
				k.untilState(k.launch(lease.LaunchRequest{TTL: 4 * time.Hour}).ID, lease.Ready)
			}
			l := k.untilState(k.launch(lease.LaunchRequest{TTL: 4 * time.Hour}).ID, lease.Ready)
			k.m, _ = k.process(lock.as(2, lease.Config{Guard: "server 2"}))
			k.pass(12, 5*time.Second) // it is beyond its own beginning
			armed.Store(true)
			_, err := k.m.Stop(t.Context(), l.ID)
			require.NoError(t, err)
			for settled := false; !settled; {
				select {
				case <-died:
					settled = true
				default:
					k.pass(1, 2*time.Second)
				}
			}
			require.Equal(t, lease.Ended, k.get(l.ID).State)
			require.Len(t, k.sim.Keys(), lives+1, "its key is still there")
			lock.holder.Store(0)
			k.pass(24, 5*time.Second)
			require.Len(t, k.sim.Keys(), lives)
			_, err = k.keys.Load(l.ID)
			require.Error(t, err)
			if lives > 0 {
				require.NotEmpty(t, k.sim.Running(), "the other lease goes on")
			}
		})
	}
}
