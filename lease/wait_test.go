package lease_test

import (
	"context"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

// unconnected is a ledger on a server: after the first reading it must be connected to anew, which times out so many times.
type unconnected struct {
	lease.Store
	read, times atomic.Int64
}

func (u *unconnected) Get(ctx context.Context, id lease.ID) (lease.Lease, error) {
	if u.read.Add(1) > 1 && u.times.Add(-1) >= 0 {
		return lease.Lease{}, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
	}
	return u.Store.Get(ctx, id)
}

// A dial learns of the end of the wait a moment before its context does. The wait is over then, and nothing has failed.
func TestWaitThatIsOverWhileItConnectsToTheLedger(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{})
	k.halt()
	store := &unconnected{Store: k.db}
	k.with(store, k.sim.Now)
	k.halt()
	never := func(lease.Lease) bool { return false }

	store.read.Store(0)
	store.times.Store(1)
	got, err := k.m.Wait(t.Context(), l.ID, 300*time.Millisecond, never)
	require.NoError(t, err)
	require.Equal(t, l.ID, got.ID)
	require.LessOrEqual(t, store.times.Load(), int64(0), "it was met")

	store.read.Store(0)
	store.times.Store(1 << 20)
	_, err = k.m.Wait(t.Context(), l.ID, time.Hour, never)
	require.Equal(t, lease.CodeLedgerUnavailable, lease.CodeOf(err), "%v", err)
}
