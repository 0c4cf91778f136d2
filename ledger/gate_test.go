package ledger_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/ledger"
)

// clock is a wall clock that tests set.
type clock struct{ ns atomic.Int64 }

func newClock() *clock               { c := &clock{}; c.ns.Store(noon.UnixNano()); return c }
func (c *clock) Now() time.Time      { return time.Unix(0, c.ns.Load()).UTC() }
func (c *clock) add(d time.Duration) { c.ns.Add(int64(d)) }

func openAt(t testing.TB, path string, c *clock) *ledger.DB {
	t.Helper()
	db, err := ledger.Open(t.Context(), path, ledger.Options{Now: c.Now})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

var (
	requests = lambda.Slot{Name: lambda.SlotRequests, Every: time.Second}
	launches = lambda.Slot{Name: lambda.SlotLaunches, Every: 12 * time.Second}
)

func TestGateIsSharedByProcesses(t *testing.T) {
	onBoth(t, func(t *testing.T, b backend) {
		path, c := b.fresh(t), newClock()
		a, other := openAt(t, path, c).Gate("acct"), openAt(t, path, c).Gate("acct")
		take := func(g *ledger.Gate, slots ...lambda.Slot) time.Duration {
			d, err := g.Take(t.Context(), slots...)
			require.NoError(t, err)
			return d
		}
		require.Zero(t, take(a, requests, launches))
		require.Equal(t, time.Second, take(other, requests))
		require.Equal(t, 12*time.Second, take(other, requests, launches))
		require.Zero(t, take(openAt(t, path, c).Gate("another account"), requests))
		c.add(time.Second)
		require.Equal(t, 11*time.Second, take(other, requests, launches), "one that is busy")
		require.Zero(t, take(other, requests), "and none of the others was taken for it")
		require.NoError(t, a.Hold(t.Context(), lambda.SlotRequests, 5*time.Second))
		require.NoError(t, a.Hold(t.Context(), lambda.SlotRequests, 2*time.Second), "never earlier")
		require.Equal(t, 5*time.Second, take(other, requests))
		require.NoError(t, a.Hold(t.Context(), lambda.SlotRequests, time.Hour))
		require.Equal(t, 30*time.Second, take(other, requests), "never for longer than that")
	})
}

func TestGateForgetsAWrongClock(t *testing.T) {
	onBoth(t, func(t *testing.T, b backend) {
		path, right, wrong := b.fresh(t), newClock(), newClock()
		wrong.add(365 * 24 * time.Hour)
		future, present := openAt(t, path, wrong).Gate("a"), openAt(t, path, right).Gate("a")
		d, err := future.Take(t.Context(), requests, launches)
		require.NoError(t, err)
		require.Zero(t, d)
		d, err = present.Take(t.Context(), requests, launches)
		require.NoError(t, err)
		require.Zero(t, d)
		d, err = present.Take(t.Context(), requests)
		require.NoError(t, err)
		require.Equal(t, time.Second, d)
	})
}

func TestGateLetsOneThrough(t *testing.T) {
	onBoth(t, func(t *testing.T, b backend) {
		path, c := b.fresh(t), newClock()
		var through atomic.Int32
		var wg sync.WaitGroup
		for range 4 {
			g := openAt(t, path, c).Gate("a")
			for range 4 {
				wg.Go(func() {
					d, err := g.Take(t.Context(), requests)
					assert.NoError(t, err)
					if d == 0 {
						through.Add(1)
					}
				})
			}
		}
		wg.Wait()
		require.EqualValues(t, 1, through.Load())
	})
}

// The gate in the ledger does what the gate of one process does.
func TestGateIsLikeTheLocalOne(t *testing.T) {
	onBoth(t, func(t *testing.T, b backend) {
		path := b.fresh(t)
		rapid.Check(t, func(r *rapid.T) {
			c := newClock()
			db, err := ledger.Open(t.Context(), path, ledger.Options{Now: c.Now})
			require.NoError(r, err)
			require.NoError(r, db.Unsynced(t.Context()))
			defer func() { require.NoError(r, db.Close()) }()
			account := string(newID())
			ours, local := db.Gate(account), lambda.NewGate(c.Now)
			for range rapid.IntRange(1, 20).Draw(r, "steps") {
				c.add(time.Duration(rapid.IntRange(0, 15_000).Draw(r, "ms")) * time.Millisecond)
				if rapid.Bool().Draw(r, "hold") {
					name := rapid.SampledFrom([]string{lambda.SlotRequests, lambda.SlotLaunches}).Draw(r, "slot")
					d := time.Duration(rapid.IntRange(0, 40_000).Draw(r, "for")) * time.Millisecond
					require.NoError(r, ours.Hold(t.Context(), name, d))
					require.NoError(r, local.Hold(t.Context(), name, d))
					continue
				}
				slots := rapid.SampledFrom([][]lambda.Slot{{requests}, {launches}, {requests, launches}}).Draw(r, "slots")
				got, err := ours.Take(t.Context(), slots...)
				require.NoError(r, err)
				want, err := local.Take(t.Context(), slots...)
				require.NoError(r, err)
				require.Equal(r, want, got)
			}
		})
	})
}
