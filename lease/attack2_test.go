package lease_test

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// process is one more process beside the kit's, on the same ledger unless c says otherwise.
func (k *kit) process(c lease.Config) (m *lease.Manager, end func()) {
	k.t.Helper()
	if c.Store == nil {
		c.Store = k.db
	}
	c.Store = tracked{c.Store, k}
	if c.Cloud == nil {
		c.Cloud = k.client(k.sim.APIKey())
	}
	if c.Keys == nil {
		c.Keys = k.keys
	}
	if c.Policy == nil {
		c.Policy = k.policy
	}
	c.Machine, c.Now, c.Rand, c.Principal, c.Timing, c.Logger = k.machine, k.sim.Now, rand.Reader, "tester", k.timing, k.log
	m, err := lease.New(c)
	require.NoError(k.t, err)
	end = k.run(m)
	k.t.Cleanup(end)
	return m, end
}

// leadLock is the lock of which one process has the lead.
type leadLock struct{ holder atomic.Int64 }

func (l *leadLock) as(n int64, c lease.Config) lease.Config {
	c.Lead = func(string) (bool, error) { return l.holder.CompareAndSwap(0, n) || l.holder.Load() == n, nil }
	c.Yield = func() { l.holder.CompareAndSwap(n, 0) }
	return c
}

// cutOff is a cloud that can be out of reach for one process alone.
type cutOff struct {
	cloud
	cut *atomic.Bool
}

func (c cutOff) Instances(ctx context.Context) ([]lambda.Instance, error) {
	if c.cut.Load() {
		return nil, errors.New("no route to host")
	}
	return c.cloud.Instances(ctx)
}

func (c cutOff) Terminate(ctx context.Context, ids ...string) ([]lambda.Instance, error) {
	if c.cut.Load() {
		return nil, errors.New("no route to host")
	}
	return c.cloud.Terminate(ctx, ids...)
}

// The leader has the ledger, but not the cloud: a firewall, a VPN, a sandbox. Another
// process has both, and must not stand by until the machine is past its hard stop.
func TestLeaderThatIsCutOffFromTheCloudLetsAnotherLead(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	k.halt()
	var lock leadLock
	var cut atomic.Bool
	first, _ := k.process(lock.as(1, lease.Config{Cloud: cutOff{k.client(k.sim.APIKey()), &cut}, Guard: "server 1"}))
	k.m = first
	l := k.launch(lease.LaunchRequest{TTL: 10 * time.Minute})
	l = k.untilState(l.ID, lease.Ready)
	second, _ := k.process(lock.as(2, lease.Config{Guard: "server 2"}))
	k.pass(5, time.Second)
	require.Equal(t, int64(1), lock.holder.Load())
	cut.Store(true)
	k.m = second
	for k.sim.Now().Before(l.Deadline.Add(10 * time.Minute)) {
		k.pass(1, 2*time.Second)
	}
	got := k.get(l.ID)
	require.Equal(t, lease.Ended, got.State, "%s; the leader is %d", got.Detail, lock.holder.Load())
	require.Empty(t, k.sim.Running())
}

// A process stalls on its way to an approved launch, another one launches meanwhile. The
// one that wakes up must not put its own key in the place of the one that opens the machine.
func TestProcessThatStallsBeforeAnApprovedLaunchSparesTheKey(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, askAlways)
	k.halt()
	l := k.launch(lease.LaunchRequest{TTL: time.Hour})
	require.Equal(t, lease.AwaitingApproval, l.State)
	_, err := k.m.Approve(t.Context(), l.ID, "ann")
	require.NoError(t, err)
	stalled, wake := make(chan struct{}), make(chan struct{})
	stall := sync.OnceFunc(func() { close(stalled); <-wake })
	_, end := k.process(lease.Config{Guard: "server 1", Lead: func(string) (bool, error) { return false, nil }, Crash: func(point string) {
		if point == "sighted" {
			stall()
		}
	}})
	<-stalled
	k.unwatch(nil)
	k.m, _ = k.process(lease.Config{Guard: "server 2"})
	k.untilState(l.ID, lease.Ready)
	before, err := k.keys.Load(l.ID)
	require.NoError(t, err)
	close(wake)
	time.Sleep(50 * time.Millisecond)
	end()
	after, err := k.keys.Load(l.ID)
	require.NoError(t, err)
	require.Equal(t, before.PublicKey().Marshal(), after.PublicKey().Marshal(), "the machine cannot be reached any more")
}

// otherKey is the same account under another API key.
type otherKey struct{ cloud }

func (c otherKey) Account(context.Context) (string, error) { return "another-key", nil }

func (c otherKey) Sign(ctx context.Context, text string) (string, error) {
	return c.cloud.Sign(ctx, "another "+text)
}

// A laptop sleeps for a quarter of an hour; a colleague's process, with an API key of its
// own, takes its lease over. The laptop still has the only key to the machine, and brings
// the results home.
func TestLeaseThatIsBoundToAnotherKeyBringsItsResultsHome(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	k.halt()
	dir := t.TempDir()
	k.machine.fetch = k.brings("model.pt")
	laptop := lease.Config{Home: "laptop", Guard: "server 1"}
	m, sleep := k.process(laptop)
	k.m = m
	l := k.launch(lease.LaunchRequest{TTL: time.Hour, Results: []string{"model.pt"}, ResultsDir: dir})
	k.untilState(l.ID, lease.Ready)
	sleep()
	colleague, _ := k.process(lease.Config{Home: "desk", Guard: "server 2", Cloud: otherKey{k.client(k.sim.APIKey())}, Keys: lease.KeyDir(t.TempDir())})
	k.m = colleague
	k.pass(80, 15*time.Second)
	require.Equal(t, "another-key", k.get(l.ID).Account, "the colleague has it now")
	k.process(laptop)
	got := k.untilBy(l.ID, "over", 5*time.Second, func(l lease.Lease) bool { return l.State == lease.Ended })
	require.Equal(t, lease.Deadline, got.Reason)
	require.FileExists(t, filepath.Join(dir, "model.pt"), "%s", got.Rescue)
}

// oldNews is a store whose list of live leases can be held up.
type oldNews struct {
	lease.Store
	mu   sync.Mutex
	then func()
}

func (s *oldNews) Live(ctx context.Context) ([]lease.Lease, error) {
	live, err := s.Store.Live(ctx)
	s.mu.Lock()
	then := s.then
	s.then = nil
	s.mu.Unlock()
	if then != nil {
		then()
	}
	return live, err
}

// An extension is written between a look at the ledger and what follows from it. What
// the agent was promised holds.
func TestExtensionAtTheDeadlineIsNotEndedByOldNews(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: 10 * time.Minute})
	l = k.untilState(l.ID, lease.Ready)
	k.untilBy(l.ID, "about to end", time.Second, func(l lease.Lease) bool { return k.sim.Now().After(l.Deadline.Add(-3 * time.Second)) })
	k.halt()
	asked, write := make(chan struct{}), make(chan struct{})
	agent, err := lease.New(lease.Config{
		Store: k.db, Cloud: k.client(k.sim.APIKey()), Machine: k.machine, Keys: k.keys, Policy: k.policy, Now: k.sim.Now, Rand: rand.Reader, Timing: k.timing,
		Crash: func(point string) {
			if point == "extending" {
				close(asked)
				<-write
			}
		},
	})
	require.NoError(t, err)
	store := &oldNews{Store: k.db}
	k.m, _ = k.process(lease.Config{Store: store})
	time.Sleep(100 * time.Millisecond) // it has listed the account and is sure of the time
	extended, seen := make(chan error, 1), make(chan struct{})
	go func() {
		_, err := agent.Extend(context.Background(), l.ID, lease.Extension{More: 30 * time.Minute})
		extended <- err
	}()
	<-asked
	store.mu.Lock()
	store.then = func() {
		k.sim.Advance(l.Deadline.Sub(k.sim.Now()) + time.Second)
		close(write)
		err = <-extended
		close(seen)
	}
	store.mu.Unlock()
	<-seen
	require.NoError(t, err)
	k.pass(10, time.Second)
	got := k.get(l.ID)
	require.Equal(t, lease.Ready, got.State, "%s: %s", got.Reason, got.Detail)
	require.True(t, got.Deadline.Equal(l.Deadline.Add(30*time.Minute)))
}

func TestManyRequestsAtOnceDoNotFloodAPerson(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, askAlways)
	var wait sync.WaitGroup
	for range 40 {
		wait.Go(func() { _, _ = k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType}) })
	}
	wait.Wait()
	live, err := k.db.Live(t.Context())
	require.NoError(t, err)
	require.LessOrEqual(t, len(live), 10)
	require.NotEmpty(t, live)
}

// An instance has been counted as spending since it was first seen. Its adoption, where
// nobody knows when it was launched, does not make that less.
func TestAdoptionForgetsNothingThatWasCounted(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	k.change(func(p *policy.Policy) { p.MaxTTL, p.Caps.PerLease = 24*time.Hour, 0; p.Caps.PerDay = 0 })
	l := k.launch(lease.LaunchRequest{TTL: time.Hour})
	k.untilState(l.ID, lease.Ready)
	k.halt()
	m, db := k.another()
	lifetime := func() policy.Money {
		u, err := db.Usage(t.Context(), "tester", k.sim.Now(), lease.Periods{})
		require.NoError(t, err)
		return u.Account.Lifetime + u.Untracked.Lifetime
	}
	k.change(func(p *policy.Policy) { p.MaxTTL, p.Types.Deny = time.Hour, []string{"*"} })
	for range 12 {
		_, err := m.Launch(t.Context(), lease.LaunchRequest{Type: testType})
		require.Error(t, err) // it only looks
		k.sim.Advance(30 * time.Minute)
	}
	require.Equal(t, 1, k.sim.LaunchCount())
	before := lifetime()
	require.Greater(t, before, policy.Cents(129).For(5*time.Hour))
	k.sim.Inject(lambdatest.Fault{Op: "getAuditEvents", Status: 403})
	old, err := k.db.LedgerID(t.Context())
	require.NoError(t, err)
	got, err := m.Adopt(t.Context(), old)
	require.NoError(t, err)
	require.Len(t, got, 1)
	unseen := policy.Cents(129).For(time.Minute) // it ran for a second or two before the first look
	require.GreaterOrEqual(t, got[0].CostAt(k.sim.Now())+unseen, k.bill(), got[0].Detail)
	require.GreaterOrEqual(t, lifetime(), before, got[0].Detail)
}

// The cloud answers a launch with the id of somebody else's machine.
func TestLaunchThatIsAnsweredWithAForeignMachine(t *testing.T) {
	t.Parallel()
	p := &proxy{}
	k := newKit(t, p.config(lambdatest.Config{}))
	foreign := k.foreign("by-hand")
	k.sim.Advance(5 * time.Minute)
	p.set(func(r *http.Request, status int, body string) (int, string) {
		if !strings.HasSuffix(r.URL.Path, "/launch") {
			return status, body
		}
		return status, `{"data":{"instance_ids":["` + foreign + `"]}}`
	})
	l := k.launch(lease.LaunchRequest{TTL: 10 * time.Minute})
	k.pass(60, 15*time.Second)
	k.over(l.ID)
	running := k.sim.Running()
	require.Len(t, running, 1)
	require.Equal(t, foreign, running[0].ID, "what is not ours is never ended")
}

// The API key is changed while a request waits for approval, and one that was reserved and
// never sent. Neither waits for ever, nor holds up the caps.
func TestRequestsUnderAKeyThatIsGoneExpire(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, askAlways)
	k.halt()
	waits := k.launch(lease.LaunchRequest{})
	k.change(func(p *policy.Policy) { p.ApproveAbove = 0 })
	dead := make(chan lease.ID, 1)
	launcher, end := k.process(lease.Config{Guard: "server 1", Lead: func(string) (bool, error) { return false, nil }, Crash: func(point string) {
		if point == "reserved" {
			live, err := k.db.Live(context.Background())
			if err == nil {
				dead <- live[len(live)-1].ID
			}
			select {}
		}
	}})
	go func() { _, _ = launcher.Launch(context.Background(), lease.LaunchRequest{Type: testType}) }()
	unsent := <-dead
	end()
	k.m, _ = k.process(lease.Config{Guard: "server 2", Cloud: otherKey{k.client(k.sim.APIKey())}})
	k.pass(80, time.Minute)
	require.Equal(t, lease.Expired, k.get(waits.ID).Reason)
	require.Equal(t, lease.Cancelled, k.get(unsent).Reason)
	require.Zero(t, k.usage().Lifetime)
	require.Zero(t, k.sim.LaunchCount())
}
