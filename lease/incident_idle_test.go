package lease_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
)

// contested is a ledger in which somebody else is faster, for as long as it says so, when it is
// to be written that a machine is idle.
type contested struct {
	*ledger.DB
	on   atomic.Bool
	lost atomic.Int32
}

func (c *contested) Update(ctx context.Context, l lease.Lease, note string) (lease.Lease, error) {
	if note == "idle" && c.on.Load() {
		c.lost.Add(1)
		return l, lease.ErrConflict
	}
	return c.DB.Update(ctx, l, note)
}

// Machines in use were ended as idle for hours in which nobody had looked. Here a laptop sleeps
// for two hours, and right after it wakes its first look cannot be dated or written down.
func TestIncidentTimeThatNobodyWatchedCountedAsIdle(t *testing.T) {
	t.Parallel()
	t.Run("the cloud does not answer at first", func(t *testing.T) {
		k, l := idleKit(t)
		k.alive(l.ID, 20*time.Minute)
		require.False(t, k.get(l.ID).IdleSince.IsZero())
		k.halt()
		k.sim.Advance(2 * time.Hour)
		id := k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpListInstances, Status: 503, Until: 3 * time.Minute})
		k.start(k.client(k.sim.APIKey()))
		k.alive(l.ID, 25*time.Minute)
		require.Positive(t, k.sim.Hits(id))
		k.over(l.ID)
	})
	t.Run("somebody else writes the lease at that moment", func(t *testing.T) {
		k, l := idleKit(t)
		s := &contested{DB: k.db}
		k.with(s, k.sim.Now)
		k.alive(l.ID, 20*time.Minute)
		require.False(t, k.get(l.ID).IdleSince.IsZero())
		s.on.Store(true)
		k.sim.Advance(2 * time.Hour)
		require.Eventually(t, func() bool { k.pass(1, time.Second); return s.lost.Load() > 0 }, 10*time.Second, time.Millisecond)
		s.on.Store(false)
		k.alive(l.ID, 25*time.Minute)
		k.over(l.ID)
	})
}
