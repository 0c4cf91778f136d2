package lease_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// counted is the ledger, which counts what is read of it outside of the loop.
type counted struct {
	lease.Store
	usage, guards, live atomic.Int64
}

func (c *counted) Usage(ctx context.Context, principal string, now time.Time, p lease.Periods) (policy.Usage, error) {
	c.usage.Add(1)
	return c.Store.Usage(ctx, principal, now, p)
}

func (c *counted) Guards(ctx context.Context) ([]lease.Guard, error) {
	c.guards.Add(1)
	return c.Store.Guards(ctx)
}

func (c *counted) Live(ctx context.Context) ([]lease.Lease, error) {
	c.live.Add(1)
	return c.Store.Live(ctx)
}

func TestStatusesOfManyLeasesReadTheLedgerOnce(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, func(k *kit) { k.policy.p.MaxLeases = 3 })
	for range 3 {
		k.launch(lease.LaunchRequest{})
	}
	k.halt()
	store := &counted{Store: k.db}
	k.with(store, k.sim.Now)
	k.halt()
	leases, err := k.m.List(t.Context(), true, 0)
	require.NoError(t, err)
	require.Len(t, leases, 3)
	var single []lease.Status
	for _, l := range leases {
		single = append(single, k.m.Status(t.Context(), l))
	}
	store.usage.Store(0)
	store.guards.Store(0)
	store.live.Store(0)
	require.Equal(t, single, k.m.Statuses(t.Context(), leases))
	require.Equal(t, []int64{1, 1, 1}, []int64{store.usage.Load(), store.guards.Load(), store.live.Load()})
}
