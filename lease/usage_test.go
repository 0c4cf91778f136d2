package lease_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

func watched(looks, percent int) remote.Samples {
	since := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return remote.Samples{Count: looks, Since: since, Until: since.Add(time.Duration(looks-1) * 15 * time.Second), GPUKnown: looks, GPUBusyPercent: percent}
}

func TestTheReceiptSaysHowMuchTheGPUsHaveWorked(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func(*kit, lease.ID)
		want string
	}{
		"AStopLooksOnceMore": {func(k *kit, id lease.ID) {
			k.machine.does(func(m *machine) { m.samples = watched(168, 38) })
			k.sim.Advance(40 * time.Second)
			_, err := k.m.Stop(t.Context(), id)
			require.NoError(t, err)
		}, "GPU busy 38% of 42 min"},
		"ADarkMachineHasWhatWasSeenBefore": {func(k *kit, id lease.ID) {
			k.machine.does(func(m *machine) { m.blind = true })
			k.sim.Advance(40 * time.Second)
			_, err := k.m.Stop(t.Context(), id)
			require.NoError(t, err)
		}, "GPU busy 50% of 20 min"},
		"SoHasAStopByANewProcess": {func(k *kit, id lease.ID) {
			k.restart()
			k.machine.does(func(m *machine) { m.blind = true })
			_, err := k.m.Stop(t.Context(), id)
			require.NoError(t, err)
		}, "GPU busy 50% of 20 min"},
		"AtTheDeadlineNobodyAsks": {func(k *kit, id lease.ID) {
			k.untilBy(id, "the deadline", time.Minute, func(l lease.Lease) bool { return l.State != lease.Ready })
		}, "GPU busy 50% of 20 min"},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKit(t, lambdatest.Config{}, func(k *kit) { k.machine.samples = watched(80, 50) })
			l := k.untilState(k.launch(lease.LaunchRequest{}).ID, lease.Ready)
			k.until(l.ID, "the first look", func(l lease.Lease) bool { return l.GPUWatched > 0 })
			tt.end(k, l.ID)
			l = k.untilState(l.ID, lease.Ended)
			require.Equal(t, tt.want, l.GPUUse().String())
			k.settled(l)
		})
	}
}

func TestLooksAtTheGPUsHardlySwellTheHistory(t *testing.T) {
	k := newKit(t, lambdatest.Config{}, func(k *kit) { k.machine.samples = watched(4, 100) })
	l := k.untilState(k.launch(lease.LaunchRequest{}).ID, lease.Ready)
	first := k.until(l.ID, "the first look", func(l lease.Lease) bool { return l.GPUWatched > 0 })
	for looks := 4; looks <= 120; looks += 4 { // half an hour
		k.machine.does(func(m *machine) { m.samples = watched(looks, 100) })
		k.sim.Advance(time.Minute)
		k.breathe()
	}
	last := k.get(l.ID)
	require.Greater(t, last.GPUWatched, 15*time.Minute)
	require.Less(t, last.Version-first.Version, int64(14), "two looks were written, and that it is listed each five minutes")
}

func TestWhatNobodySawIsNotSaid(t *testing.T) {
	require.Empty(t, lease.Lease{}.GPUUse().String())
	require.Equal(t, "GPU busy 0% of 45 s", lease.GPUUse{Watched: 45 * time.Second}.String())
	k := newKit(t, lambdatest.Config{}, func(k *kit) { k.machine.samples = remote.Samples{Count: 40, GPUBusyPercent: remote.Unknown} })
	l := k.untilState(k.launch(lease.LaunchRequest{}).ID, lease.Ready)
	k.sim.Advance(3 * time.Minute)
	k.breathe()
	_, err := k.m.Stop(t.Context(), l.ID)
	require.NoError(t, err)
	require.Empty(t, k.untilState(l.ID, lease.Ended).GPUUse().String())
}
