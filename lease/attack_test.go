package lease_test

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/policy"
)

// pass lets virtual time go by in steps, each long enough for the loop to look.
func (k *kit) pass(steps int, step time.Duration) {
	for range steps {
		k.sim.Advance(step)
		k.breathe()
	}
}

func (k *kit) bill() policy.Money { return policy.Money(k.sim.Bill().Total) }

func (k *kit) setWrongKey(wrong bool) {
	k.machine.mu.Lock()
	defer k.machine.mu.Unlock()
	k.machine.wrongKey = wrong
}

// with goes on with a manager that has another store or clock.
func (k *kit) with(s lease.Store, now func() time.Time) {
	k.t.Helper()
	k.halt()
	key, err := lambda.ParseKey(k.sim.APIKey())
	require.NoError(k.t, err)
	c, err := lambda.New(key, lambda.WithBaseURL(k.sim.URL()), lambda.WithLimiter(lambda.NoLimit), lambda.WithNow(now),
		lambda.WithRetry(lambda.RetryPolicy{}), lambda.WithTypesCache(0), lambda.WithHTTPClient(&http.Client{Timeout: 5 * time.Second}))
	require.NoError(k.t, err)
	m, err := lease.New(lease.Config{
		Store: tracked{s, k}, Cloud: cloud{c}, Machine: k.machine, Keys: k.keys, Policy: k.policy, Now: now, Rand: rand.Reader,
		Principal: "tester", Timing: k.timing, Logger: k.log,
	})
	require.NoError(k.t, err)
	k.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = m.Close(ctx)
	})
	k.m, k.halt = m, k.run(m)
}

// The launcher is suspended after it has written that its call is on its way.
// Others take the call for lost and settle the lease; the call must not be sent
// hours later, when nobody looks for its instance any more.
func TestLauncherThatSleepsBeforeItsCall(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, func(k *kit) { k.timing.LaunchCall = 5 * time.Second })
	sleeper, marked, wake := k.doomed(func(point string) bool { return point == "launch-marked" })
	woken := make(chan error, 1)
	go func() {
		_, err := sleeper.Launch(context.Background(), lease.LaunchRequest{Type: testType})
		woken <- err
	}()
	<-marked
	k.crash = nil
	k.start(k.client(k.sim.APIKey()))
	all, err := k.db.List(t.Context(), 0)
	require.NoError(t, err)
	require.Len(t, all, 1)
	l := k.untilBy(all[0].ID, "over", 10*time.Second, func(l lease.Lease) bool { return l.State == lease.Ended })
	require.Equal(t, lease.Refused, l.Reason)
	wake()
	require.Error(t, <-woken)
	k.pass(100, 10*time.Minute)
	require.Zero(t, k.sim.LaunchCount())
	require.Equal(t, lease.Ended, k.get(l.ID).State)
	require.Empty(t, k.sim.Running())
}

// The instance appears after the time in which an instance is waited for. The
// lease has ended by then; the instance is ended as a stray, and its cost is in
// the ledger.
func TestInstanceThatAppearsTooLate(t *testing.T) {
	t.Parallel()
	t.Run("the launch had no answer", func(t *testing.T) {
		t.Parallel()
		k := newKit(t, lambdatest.Config{})
		k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpLaunch, Count: 1, Cut: lambdatest.CutAfter, LateBy: 11 * time.Minute})
		l := k.launch(lease.LaunchRequest{})
		k.untilBy(l.ID, "over", 5*time.Second, func(l lease.Lease) bool { return l.State == lease.Ended })
		k.endedWithin(2*time.Hour, l.ID)
	})
	t.Run("the launch was answered", func(t *testing.T) {
		t.Parallel()
		k := newKit(t, lambdatest.Config{})
		k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpLaunch, Count: 1, LateBy: 11 * time.Minute})
		l := k.launch(lease.LaunchRequest{})
		_, err := k.m.Stop(t.Context(), l.ID)
		require.NoError(t, err)
		k.untilBy(l.ID, "over", 5*time.Second, func(l lease.Lease) bool { return l.State == lease.Ended })
		k.endedWithin(2*time.Hour, l.ID)
	})
}

// endedWithin checks that nothing runs any more in that time, and that the ledger has no less than the bill.
func (k *kit) endedWithin(d time.Duration, id lease.ID) {
	k.t.Helper()
	for end := k.sim.Now().Add(d); k.sim.Now().Before(end); {
		k.pass(1, time.Minute)
	}
	require.Empty(k.t, k.sim.Running(), "an orphan is billed")
	require.Equal(k.t, lease.Ended, k.get(id).State)
	require.GreaterOrEqual(k.t, k.usage().Lifetime, k.bill(), "the ledger has less than the cloud's bill")
}

// A person started a machine with the lease's SSH key. It is not the lease's for that: only the signed name says so.
func TestForeignInstanceWithOurKey(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpLaunch, Count: 1, Cut: lambdatest.CutAfter, LateBy: 3 * time.Minute})
	l := k.launch(lease.LaunchRequest{})
	c, err := k.m.Capacity(t.Context())
	require.NoError(t, err)
	foreign, err := k.sim.Launch(lambdatest.Order{Type: testType, Region: c.Offers[0].Regions[0], Name: "colleagues-training", Key: l.KeyName})
	require.NoError(t, err)
	l = k.until(l.ID, "bound", func(l lease.Lease) bool { return l.InstanceID != "" })
	require.NotEqual(t, foreign, l.InstanceID)
	_, err = k.m.Stop(t.Context(), l.ID)
	require.NoError(t, err)
	k.untilState(l.ID, lease.Ended)
	k.pass(60, time.Minute)
	running := k.sim.Running()
	require.Len(t, running, 1)
	require.Equal(t, foreign, running[0].ID)
}

// The answer to one launch call names two instances, and both are billed. A
// lease has one of them; the other one is ended.
func TestTwoInstancesForOneLaunch(t *testing.T) {
	t.Parallel()
	k := newKit(t, oddAnswer(2, func(ids []string) string { return strings.Join(ids, ",") }))
	l := k.launch(lease.LaunchRequest{TTL: 10 * time.Minute})
	require.Equal(t, 2, k.sim.LaunchCount())
	k.untilBy(l.ID, "over", 5*time.Second, func(l lease.Lease) bool { return l.State == lease.Ended })
	k.endedWithin(2*time.Hour, l.ID)
}

// The cloud refuses for hours to end a machine. What it costs counts against
// the caps as it grows, so nothing else is launched with money that is spent.
func TestOverrunLeavesNoBudgetForAnother(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	p, err := policy.Parse("policy", []byte("caps:\n  per_day: 5\n"))
	require.NoError(t, err)
	k.policy.mu.Lock()
	k.policy.p = p
	k.policy.mu.Unlock()
	l := k.launch(lease.LaunchRequest{TTL: 10 * time.Minute})
	l = k.untilState(l.ID, lease.Ready)
	k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpTerminate, Status: 500})
	l = k.until(l.ID, "its deadline", func(l lease.Lease) bool { return l.State == lease.Stopping })
	k.pass(96, 5*time.Minute)
	l = k.get(l.ID)
	require.Equal(t, lease.Stopping, l.State)
	spent := l.CostAt(k.sim.Now())
	require.Greater(t, spent, 5*policy.Dollar)
	require.GreaterOrEqual(t, k.usage().Lifetime, spent, "the caps see less than was spent")
	_, err = k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType, TTL: 10 * time.Minute})
	var refusal *lease.Error
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, lease.CodeBudgetExceeded, refusal.Code)
	require.Equal(t, 1, k.sim.LaunchCount())
}

// fullStore is a ledger that can be read but, from some moment on, not written.
type fullStore struct {
	*ledger.DB
	full atomic.Bool
}

var errFull = errors.New("no space is left for the ledger")

func (s *fullStore) Update(ctx context.Context, l lease.Lease, note string) (lease.Lease, error) {
	if s.full.Load() {
		return l, errFull
	}
	return s.DB.Update(ctx, l, note)
}

func (s *fullStore) Beat(ctx context.Context, guard string, at time.Time) error {
	if s.full.Load() {
		return errFull
	}
	return s.DB.Beat(ctx, guard, at)
}

// The decision to end the machine cannot be written. It is ended all the same,
// at its deadline and when somebody asks for it.
func TestLedgerThatCannotBeWrittenDoesNotKeepAMachineAlive(t *testing.T) {
	t.Parallel()
	for name, asked := range map[string]bool{"at its deadline": false, "by a stop": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{})
			s := &fullStore{DB: k.db}
			k.with(s, k.sim.Now)
			l := k.launch(lease.LaunchRequest{TTL: 10 * time.Minute})
			l = k.untilState(l.ID, lease.Ready)
			s.full.Store(true)
			if asked {
				_, err := k.m.Stop(t.Context(), l.ID)
				require.ErrorIs(t, err, errFull, "nobody is told that all is well")
				k.pass(2, 30*time.Second)
			} else {
				k.pass(12, time.Minute)
			}
			require.Empty(t, k.sim.Running())
			require.Equal(t, lease.Ready, k.get(l.ID).State)
			s.full.Store(false)
			k.settled(k.untilBy(l.ID, "settled", 10*time.Second, func(l lease.Lease) bool { return l.State == lease.Ended }))
		})
	}
}

// One answer of the cloud has a date that is a day ahead. A single answer proves nothing about the time.
func TestOneWrongDate(t *testing.T) {
	t.Parallel()
	t.Run("of a listing", func(t *testing.T) {
		t.Parallel()
		k := newKit(t, lambdatest.Config{})
		l := k.launch(lease.LaunchRequest{TTL: 4 * time.Hour})
		k.untilState(l.ID, lease.Ready)
		id := k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpListInstances, Count: 1, ClockSkew: 24 * time.Hour})
		k.pass(100, time.Second)
		require.Equal(t, 1, k.sim.Hits(id))
		require.Equal(t, lease.Ready, k.get(l.ID).State)
	})
	t.Run("before a launch", func(t *testing.T) {
		t.Parallel()
		k := newKit(t, lambdatest.Config{})
		k.setWrongKey(true) // it never becomes ready
		id := k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpListTypes, Count: 1, ClockSkew: 24 * time.Hour})
		l := k.launch(lease.LaunchRequest{TTL: time.Hour})
		require.Equal(t, 1, k.sim.Hits(id))
		require.WithinDuration(t, k.sim.Now(), l.CreatedAt, time.Minute)
		l = k.untilBy(l.ID, "over", 20*time.Second, func(l lease.Lease) bool { return l.State == lease.Ended })
		require.Equal(t, lease.NeverReady, l.Reason, "the boot allowance is enforced")
		k.settled(l)
	})
	t.Run("of a stop that failed", func(t *testing.T) {
		t.Parallel()
		k := newKit(t, lambdatest.Config{})
		l := k.launch(lease.LaunchRequest{TTL: 4 * time.Hour})
		k.untilState(l.ID, lease.Ready)
		k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpTerminate, Count: 2, Status: 500, ClockSkew: 24 * time.Hour})
		_, err := k.m.Stop(t.Context(), l.ID)
		require.NoError(t, err)
		asked := k.sim.Now()
		l = k.untilBy(l.ID, "over", 5*time.Second, func(l lease.Lease) bool { return l.State == lease.Ended })
		require.Less(t, l.EndedAt.Sub(asked), time.Hour)
		k.settled(l) // it was tried again soon, not a day later
	})
}

// Somebody sets this computer's clock while the machine boots. The deadline is
// the TTL after it became ready, by the true time.
func TestClockThatIsSetDuringTheBoot(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{5 * time.Hour, -5 * time.Hour} {
		t.Run(jump.String(), func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{})
			var off atomic.Int64
			k.with(k.db, func() time.Time { return k.sim.Now().Add(time.Duration(off.Load())) })
			k.setWrongKey(true)
			l := k.launch(lease.LaunchRequest{TTL: time.Hour})
			k.until(l.ID, "an address", func(l lease.Lease) bool { return strings.Contains(l.Detail, "host key") })
			// The listing that would tell the true time is slow.
			k.sim.Inject(lambdatest.Fault{Op: "list*", Delay: 200 * time.Millisecond, Count: 1})
			off.Store(int64(jump))
			k.setWrongKey(false)
			l = k.until(l.ID, "no longer booting", func(l lease.Lease) bool { return l.State != lease.Booting })
			if l.State == lease.Ready {
				require.WithinDuration(t, k.sim.Now().Add(time.Hour), l.Deadline, 5*time.Minute)
			}
			k.settled(k.untilBy(l.ID, "over", 20*time.Second, func(l lease.Lease) bool { return l.State == lease.Ended }))
		})
	}
}

// A laptop sleeps while its machine boots and finds it ready five hours later.
// Its boot allowance is over, and what was reserved is spent.
func TestSleepDuringTheBoot(t *testing.T) {
	t.Parallel()
	for range 3 {
		k := newKit(t, lambdatest.Config{})
		k.setWrongKey(true)
		l := k.launch(lease.LaunchRequest{TTL: time.Hour})
		k.until(l.ID, "an address", func(l lease.Lease) bool { return strings.Contains(l.Detail, "host key") })
		k.sim.Inject(lambdatest.Fault{Op: "list*", Delay: 100 * time.Millisecond, Count: 1}) // the network after a wake
		k.sim.Advance(5 * time.Hour)
		k.setWrongKey(false)
		l = k.until(l.ID, "over", func(l lease.Lease) bool {
			require.NotEqual(t, lease.Ready, l.State)
			return l.State == lease.Ended
		})
		require.Equal(t, lease.NeverReady, l.Reason)
		k.settled(l)
	}
}

// The price rose at the launch, and the machine runs on for some minutes
// because ending it fails. It is settled at the price that the cloud charges.
func TestRisenPriceIsSettledInFull(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]lambdatest.Fault{
		"terminate fails":      {Op: lambdatest.OpTerminate, Status: 503, Count: 12},
		"stuck in terminating": {Op: lambdatest.OpTerminate, Stuck: 20 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{BootTime: time.Millisecond})
			k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpLaunch, PriceCents: 999})
			k.sim.Inject(fault)
			l := k.launch(lease.LaunchRequest{})
			l = k.untilBy(l.ID, "over", 5*time.Second, func(l lease.Lease) bool { return l.State == lease.Ended })
			require.Equal(t, lease.OverBudget, l.Reason)
			k.settled(l)
		})
	}
}

// A listing takes 44 seconds, and the machine ends in the middle of it. It may
// have been billed until the answer came, so that is what is settled.
func TestEndDuringASlowListing(t *testing.T) {
	t.Parallel()
	for name, byUs := range map[string]bool{"by itself": false, "after a stop": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var k *kit
			var slow atomic.Bool
			var kill atomic.Pointer[string]
			cfg := lambdatest.Config{TerminateTime: -1}
			if byUs {
				cfg.TerminateTime = 2 * time.Minute
			}
			cfg.Wrap = func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.HasSuffix(r.URL.Path, "/instances") {
						id := kill.Swap(nil)
						if id != nil || slow.Load() {
							k.sim.Advance(44 * time.Second)
						}
						if id != nil {
							_ = k.sim.Terminate(*id)
						}
					}
					h.ServeHTTP(w, r)
				})
			}
			k = newKit(t, cfg)
			for range 4 {
				before := k.bill()
				l := k.launch(lease.LaunchRequest{})
				l = k.untilState(l.ID, lease.Ready)
				if byUs {
					slow.Store(true)
					_, err := k.m.Stop(t.Context(), l.ID)
					require.NoError(t, err)
				} else {
					kill.Store(&l.InstanceID)
				}
				l = k.untilBy(l.ID, "over", 7*time.Second, func(l lease.Lease) bool { return l.State == lease.Ended })
				slow.Store(false)
				require.GreaterOrEqual(t, l.Cost, k.bill()-before, "settled below the bill")
				k.sim.Advance(61 * time.Minute) // out of the way of the next one's settlement
			}
		})
	}
}

// A replica of the cloud's database that is behind does not know the instance:
// two listings lack it, and asking for it by its id gives a 404.
func TestStaleAnswersDoNotEndALeaseInUse(t *testing.T) {
	t.Parallel()
	for name, notFound := range map[string]lambdatest.Fault{
		"404":         {Op: lambdatest.OpGetInstance, Count: 1, Code: lambdatest.CodeNotFound, Status: 404},
		"its own 404": {Op: lambdatest.OpGetInstance, Count: 1, Code: "global/object-does-not-exist"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{})
			l := k.launch(lease.LaunchRequest{TTL: 4 * time.Hour})
			k.untilState(l.ID, lease.Ready)
			id := k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpListInstances, Count: 2, Omit: "*"})
			k.sim.Inject(notFound)
			k.untilBy(l.ID, "both were seen", 10*time.Second, func(lease.Lease) bool { return k.sim.Hits(id) == 2 })
			k.pass(30, 10*time.Second)
			l = k.get(l.ID)
			require.Equal(t, lease.Ready, l.State)
			require.Zero(t, l.Missing)
		})
	}
}

// The stale answers went on for so long that the lease was given up. Its
// instance is still there when they end: it is ended, and what it cost is added.
func TestLeaseThatStaleAnswersHaveEnded(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: 4 * time.Hour})
	k.untilState(l.ID, lease.Ready)
	stale := k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpListInstances, Omit: "*"})
	gone := k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpGetInstance, Code: "global/object-does-not-exist"})
	l = k.untilBy(l.ID, "given up", 5*time.Second, func(l lease.Lease) bool { return l.State == lease.Ended })
	require.Equal(t, lease.Gone, l.Reason)
	require.Len(t, k.sim.Running(), 1)
	k.sim.Remove(stale)
	k.sim.Remove(gone)
	k.endedWithin(2*time.Hour, l.ID)
}
