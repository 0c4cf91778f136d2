package lease_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

// fullGate is the shared rate limit in a ledger that may be full.
type fullGate struct {
	lambda.Gate
	s *fullStore
}

func (g fullGate) Take(ctx context.Context, slots ...lambda.Slot) (time.Duration, error) {
	if g.s.full.Load() {
		return 0, errFull
	}
	return g.Gate.Take(ctx, slots...)
}

// The disk of the ledger fills up between the reservation and the launch call.
// It is said that nothing was launched, and why; the reservation is given back
// once there is room again.
func TestDiskThatFillsAfterTheReservation(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"reserved", "key-added", "launch-marked"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{})
			k.halt()
			s := &fullStore{DB: k.db}
			k.store = s
			k.crash = func(point string) {
				if point == at {
					s.full.Store(true)
				}
			}
			k.start(k.client(k.sim.APIKey(), lambda.WithLimiter(lambda.NewPacer(lambda.PacerConfig{
				Interval: time.Millisecond, LaunchInterval: time.Millisecond, Gate: fullGate{lambda.NewGate(nil), s},
			}))))
			_, err := k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType})
			require.Equal(t, lease.CodeLedgerUnavailable, lease.CodeOf(err), "%v", err)
			require.ErrorIs(t, err, errFull)
			require.Regexp(t, "so nothing was (launched|sent to the cloud); its reservation is given back when the ledger can be written again", err.Error())
			require.Zero(t, k.sim.LaunchCount())
			require.NotZero(t, k.usage().Day, "nothing was written, so it is still held")

			s.full.Store(false)
			all, err := k.db.List(t.Context(), 0)
			require.NoError(t, err)
			require.Len(t, all, 1)
			require.Eventually(t, func() bool { return k.get(all[0].ID).State == lease.Ended }, time.Minute, 5*time.Millisecond)
			l := k.get(all[0].ID)
			require.Equal(t, lease.Cancelled, l.Reason)
			require.Zero(t, k.usage().Day)
			k.settled(l)
		})
	}
}
