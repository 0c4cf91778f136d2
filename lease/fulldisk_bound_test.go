package lease_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

// The disk fills up with the launch call, so that which instance it made is in no ledger. It is
// ended all the same when the lease's time is up.
func TestDiskThatIsFullFromTheLaunchOnKeepsNoMachineAlive(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	s := &fullAfterLaunch{fullStore{DB: k.db}}
	k.with(s, k.sim.Now)
	l, err := k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType, TTL: 10 * time.Minute})
	require.ErrorIs(t, err, errFull)
	require.Len(t, k.sim.Running(), 1)
	require.Empty(t, k.get(l.ID).InstanceID)
	for range 24 * 60 {
		if k.pass(1, time.Minute); len(k.sim.Running()) == 0 {
			break
		}
	}
	require.Empty(t, k.sim.Running())
	s.full.Store(false)
	k.settled(k.untilBy(l.ID, "settled", 10*time.Second, func(l lease.Lease) bool { return l.State == lease.Ended }))
}

// Nor does a stop need to know from the ledger which instance it is.
func TestStopOfAMachineThatCouldNotBeWrittenDown(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	s := &fullAfterLaunch{fullStore{DB: k.db}}
	k.with(s, k.sim.Now)
	l, err := k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType, TTL: 8 * time.Hour})
	require.ErrorIs(t, err, errFull)
	require.Len(t, k.sim.Running(), 1)
	require.Empty(t, k.get(l.ID).InstanceID)
	_, err = k.m.Stop(t.Context(), l.ID)
	require.Equal(t, lease.CodeLedgerUnavailable, lease.CodeOf(err), "%v", err)
	for range 10 {
		if k.pass(1, time.Minute); len(k.sim.Running()) == 0 {
			break
		}
	}
	require.Empty(t, k.sim.Running(), "long before its deadline")
}
