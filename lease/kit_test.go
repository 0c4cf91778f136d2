package lease_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
)

// cloud is a *lambda.Client in the form that a manager wants.
type cloud struct{ *lambda.Client }

func (c cloud) Account(context.Context) (string, error) { return c.Client.Account(), nil }
func (c cloud) Sign(_ context.Context, text string) (string, error) {
	return c.Client.Sign(text), nil
}

// machine stands for the SSH side: a host that is there when the simulated
// cloud says that it has booted.
type machine struct {
	sim *lambdatest.Server

	mu        sync.Mutex
	health    remote.Health
	sick      func(remote.Target) bool // whose GPUs are not right
	cuda      remote.CUDA
	probed    int // how often the GPUs were made to compute
	wrongKey  bool
	private   string        // the only address at which it is reached; "" for its public one
	shown     ssh.PublicKey // its host key, where that matters
	cloudInit string
	activity  remote.Activity
	looks     int  // how often it was asked what it is doing
	blind     bool // it does not say what it is doing
	samples   remote.Samples
	jobs      []remote.Job
	run       func(id string, c remote.Command) (remote.Job, error)
	job       func(id string) (remote.Job, error)
	fetch     func(ctx context.Context, paths []string, dst string) (remote.FetchSummary, error)
	forgotten []string
	pool      *remote.Pool // forwards ports, to the machine of far
	far       remote.Target
	rotate    func(t remote.Target, record func(ssh.PublicKey) error) (ssh.PublicKey, error)
}

func (m *machine) Check(_ context.Context, t remote.Target) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wrongKey || m.shown != nil && !m.shows(t) {
		return fmt.Errorf("dial %s: %w", t.Addr, remote.ErrHostKey)
	}
	for _, i := range m.sim.Running() {
		if t.Addr == cmp.Or(m.private, i.IP)+":22" && !i.FirstHealthy.IsZero() {
			return nil
		}
	}
	return fmt.Errorf("dial %s: %w", t.Addr, remote.ErrUnreachable)
}

func (m *machine) CloudInit(context.Context, remote.Target) (remote.CloudInit, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return remote.CloudInit{State: m.cloudInit}, nil
}

func (m *machine) Health(_ context.Context, t remote.Target, gpus int) (remote.Health, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sick != nil && m.sick(t) {
		return remote.Health{Reason: "0 of 1 GPUs"}, nil
	}
	return m.health, nil
}

func (m *machine) ProbeCUDA(_ context.Context, t remote.Target, _ int) (remote.CUDA, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.probed++
	if m.cuda.Verdict == "" {
		return remote.CUDA{}, fmt.Errorf("dial %s: %w", t.Addr, remote.ErrUnreachable)
	}
	return m.cuda, nil
}

func (m *machine) Forget(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgotten = append(m.forgotten, key)
}

var errNoWork = errors.New("this machine only boots")

func (m *machine) Run(_ context.Context, _ remote.Target, id string, c remote.Command, _ time.Duration, _, _ int) (j remote.Job, o, e remote.Excerpt, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.run == nil {
		return j, o, e, errNoWork
	}
	j, err = m.run(id, c)
	return j, o, e, err
}

func (m *machine) Job(_ context.Context, _ remote.Target, id string, _ time.Duration) (remote.Job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.job == nil {
		return remote.Job{}, errNoWork
	}
	return m.job(id)
}
func (m *machine) Jobs(context.Context, remote.Target) ([]remote.Job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.jobs), nil
}

func (m *machine) Activity(_ context.Context, t remote.Target) (remote.Activity, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.looks++
	if m.blind {
		return remote.Activity{}, fmt.Errorf("dial %s: %w", t.Addr, remote.ErrUnreachable)
	}
	return m.activity, nil
}

func (m *machine) Samples(_ context.Context, t remote.Target, _ time.Duration) (remote.Samples, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.blind {
		return remote.Samples{}, fmt.Errorf("dial %s: %w", t.Addr, remote.ErrUnreachable)
	}
	return m.samples, nil
}

func (m *machine) Fetch(ctx context.Context, _ remote.Target, paths []string, dst string, _ remote.FetchOptions) (remote.FetchSummary, error) {
	m.mu.Lock()
	fetch := m.fetch
	m.mu.Unlock()
	if fetch == nil {
		return remote.FetchSummary{}, errNoWork
	}
	return fetch(ctx, paths, dst)
}

// does changes what the machine is doing.
func (m *machine) does(change func(*machine)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m)
}
func (m *machine) Output(context.Context, remote.Target, string, int, int) (o, e remote.Excerpt, err error) {
	return o, e, errNoWork
}

func (m *machine) Page(context.Context, remote.Target, string, remote.Stream, int64, int, time.Duration) (remote.Page, error) {
	return remote.Page{}, errNoWork
}

func (m *machine) Mixed(context.Context, remote.Target, string, int64, int, time.Duration) (remote.Mixed, error) {
	return remote.Mixed{}, errNoWork
}

func (m *machine) Search(context.Context, remote.Target, string, remote.Stream, remote.Search) (remote.Found, error) {
	return remote.Found{}, errNoWork
}

func (m *machine) Cancel(_ context.Context, _ remote.Target, id string, _ time.Duration) (remote.Job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.jobs {
		if m.jobs[i].ID == id {
			m.jobs[i].State, m.jobs[i].Reason = remote.Exited, remote.ReasonCancelled
			return m.jobs[i], nil
		}
	}
	return remote.Job{}, remote.ErrJobNotFound
}

func (m *machine) Push(context.Context, remote.Target, string, string, remote.PushOptions) (remote.PushSummary, error) {
	return remote.PushSummary{}, errNoWork
}

func (m *machine) Forward(ctx context.Context, t remote.Target, local int, addr string) (*remote.Forward, error) {
	if m.pool == nil {
		return nil, errNoWork
	}
	far := m.far
	far.Key = t.Key
	return m.pool.Forward(ctx, far, local, addr)
}

func (m *machine) Forwards(key string) []*remote.Forward {
	if m.pool == nil {
		return nil
	}
	return m.pool.Forwards(key)
}

func (m *machine) shows(t remote.Target) bool {
	for _, key := range []ssh.PublicKey{t.HostKey, t.NextHostKey} {
		if key != nil && bytes.Equal(key.Marshal(), m.shown.Marshal()) {
			return true
		}
	}
	return false
}

func (m *machine) RotateHostKey(_ context.Context, t remote.Target, record func(ssh.PublicKey) error) (ssh.PublicKey, error) {
	if m.rotate == nil {
		return nil, remote.ErrUnsupported
	}
	return m.rotate(t, record)
}

// idleNow is a machine with one GPU that does nothing, and has done nothing yet.
func idleNow() remote.Activity {
	return remote.Activity{SinceJobEnd: -1, GPUKnown: true, GPUs: []remote.Load{{MemoryMiB: 24_000, MemoryUsedMiB: 300}}}
}

// fixedPolicy is a policy that does not come from a file.
type fixedPolicy struct {
	mu     sync.Mutex
	p      *policy.Policy
	err    error
	origin string
}

func (f *fixedPolicy) Origin() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.origin
}

func (f *fixedPolicy) Current() (*policy.Policy, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.p, f.err
}

// kit is a manager on a real ledger and a simulated cloud in virtual time.
type kit struct {
	t        *testing.T
	dir      string
	sim      *lambdatest.Server
	db       *ledger.DB
	keys     lease.KeyDir
	machine  *machine
	policy   *fixedPolicy
	crash    func(point string)
	timing   lease.Timing
	noLaunch bool
	tailnet  lease.Tailnet
	log      *slog.Logger
	store    lease.Store // what a test puts in the place of db
	m        *lease.Manager
	halt     func()      // ends the manager's loop and waits for it
	calm     atomic.Bool // when a loop last looked at the live leases, all were ready

	loopsMu sync.Mutex
	loops   []*atomic.Int64 // how often each of them has looked at the live leases
}

const testType = "gpu_1x_a10"

func newKit(t *testing.T, cfg lambdatest.Config, change ...func(*kit)) *kit {
	t.Helper()
	cfg.Virtual = true
	if cfg.BootTime == 0 {
		cfg.BootTime = time.Minute
	}
	if cfg.TerminateTime == 0 {
		cfg.TerminateTime = 30 * time.Second
	}
	sim := lambdatest.Start(t, cfg)
	dir := t.TempDir()
	k := &kit{
		t: t, dir: dir, sim: sim, keys: lease.KeyDir(filepath.Join(dir, "keys")),
		machine: &machine{sim: sim, health: remote.Health{Healthy: true, Simulated: true}, cloudInit: remote.CloudInitDone, activity: idleNow()},
		policy:  &fixedPolicy{p: policy.Default()},
		timing:  lease.Timing{Tick: 2 * time.Millisecond, SSHRetry: 2 * time.Millisecond, LaunchCall: 2 * time.Second},
	}
	k.policy.p.IdleMode = policy.IdleOff // most tests let time pass without doing anything
	if testing.Verbose() {
		k.log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	var err error
	k.db, err = ledger.Open(t.Context(), filepath.Join(dir, "ledger.db"), ledger.Options{Now: sim.Now, Rand: rand.Reader})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, k.db.Close()) })
	for _, f := range change {
		f(k)
	}
	k.start(k.client(sim.APIKey()))
	t.Cleanup(func() { k.halt() })
	return k
}

func (k *kit) client(apiKey string, more ...lambda.Option) cloud {
	key, err := lambda.ParseKey(apiKey)
	require.NoError(k.t, err)
	c, err := lambda.New(key, append([]lambda.Option{lambda.WithBaseURL(k.sim.URL()), lambda.WithLimiter(lambda.NoLimit), lambda.WithNow(k.sim.Now),
		lambda.WithRetry(lambda.RetryPolicy{}), lambda.WithTypesCache(0), lambda.WithHTTPClient(&http.Client{Timeout: 5 * time.Second})}, more...)...)
	require.NoError(k.t, err)
	return cloud{c}
}

// start makes a manager as a new process would and lets it reconcile.
func (k *kit) start(c lease.Cloud) {
	var store lease.Store = k.db
	if k.store != nil {
		store = k.store
	}
	m, err := lease.New(lease.Config{
		Store: tracked{store, k}, Cloud: c, Machine: k.machine, Keys: k.keys, Policy: k.policy, Now: k.sim.Now, Rand: rand.Reader,
		Begun: lease.JobDir(filepath.Join(k.dir, "jobs")), Principal: "tester", Timing: k.timing, Crash: k.crash, Logger: k.log, NoLaunch: k.noLaunch, Tailnet: k.tailnet,
	})
	require.NoError(k.t, err)
	k.m = m
	k.t.Cleanup(func() { // a launch goes on beyond its call
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = m.Close(ctx)
	})
	k.halt = k.run(m)
}

// run runs the loop of a manager, whose store is tracked, until it is told to halt.
func (k *kit) run(m *lease.Manager) (halt func()) {
	looks := &atomic.Int64{}
	k.loopsMu.Lock()
	k.loops = append(k.loops, looks)
	k.loopsMu.Unlock()
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), loop{}, looks))
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	return sync.OnceFunc(func() {
		k.unwatch(looks)
		cancel()
		require.NoError(k.t, <-done)
	})
}

// unwatch makes breathe wait no more for a loop, or, without one, for any that runs.
func (k *kit) unwatch(looks *atomic.Int64) {
	k.loopsMu.Lock()
	defer k.loopsMu.Unlock()
	k.loops = slices.DeleteFunc(k.loops, func(l *atomic.Int64) bool { return looks == nil || l == looks })
}

// tracked is the ledger, which counts how often a manager's loop reads the live leases: at
// least once in a pass, and at most three times.
type tracked struct {
	lease.Store
	k *kit
}

// loop is what the context of a manager's loop has its count under.
type loop struct{}

func (w tracked) Live(ctx context.Context) ([]lease.Lease, error) {
	live, err := w.Store.Live(ctx)
	if looks, ok := ctx.Value(loop{}).(*atomic.Int64); ok {
		w.k.calm.Store(err == nil && !slices.ContainsFunc(live, func(l lease.Lease) bool { return l.State != lease.Ready }))
		looks.Add(1)
	}
	return live, err
}

// breathe lets the loops and their calls run between two moments: what is left of one pass
// and a whole one, or, where one hangs, a while.
func (k *kit) breathe() {
	enough, patience := int64(5), 50*time.Millisecond
	if raceEnabled { // where a pass takes long, what is asked for is there after fewer
		enough, patience = 3, 200*time.Millisecond
	}
	k.loopsMu.Lock()
	loops := slices.Clone(k.loops)
	k.loopsMu.Unlock()
	from := make([]int64, len(loops))
	for i, looks := range loops {
		from[i] = looks.Load()
	}
	waits := func() bool {
		for i, looks := range loops {
			if looks.Load() < from[i]+enough {
				return true
			}
		}
		return len(loops) == 0
	}
	for limit := time.Now().Add(patience); waits() && time.Now().Before(limit); {
		time.Sleep(time.Millisecond)
	}
}

// restart is the death of the process and the start of the next one.
func (k *kit) restart() {
	k.t.Helper()
	k.halt()
	k.crash = nil
	k.start(k.client(k.sim.APIKey()))
}

func (k *kit) launch(r lease.LaunchRequest) lease.Lease {
	k.t.Helper()
	if r.Type == "" {
		r.Type = testType
	}
	l, err := k.m.Launch(k.t.Context(), r)
	require.NoError(k.t, err)
	return l
}

func (k *kit) get(id lease.ID) lease.Lease {
	k.t.Helper()
	l, err := k.m.Get(k.t.Context(), id)
	require.NoError(k.t, err)
	return l
}

// stride is how far virtual time goes in one step while leases only run and no deadline is near.
// Then the manager asks the cloud and the machines every 30 s only, so half of that hides nothing.
const stride = 15 * time.Second

// strides reports whether nothing but running is going on.
func (k *kit) strides(l lease.Lease) bool {
	return l.State == lease.Ready && k.calm.Load() && l.Deadline.Sub(k.sim.Now()) > 3*time.Minute
}

// until lets virtual time pass, a few seconds at each look, until ok says so.
func (k *kit) until(id lease.ID, what string, ok func(lease.Lease) bool) lease.Lease {
	k.t.Helper()
	return k.untilBy(id, what, 4*time.Second, ok)
}

func (k *kit) untilBy(id lease.ID, what string, step time.Duration, ok func(lease.Lease) bool) lease.Lease {
	k.t.Helper()
	limit := time.Now().Add(5 * time.Minute)
	for {
		l := k.get(id)
		if ok(l) {
			return l
		}
		if time.Now().After(limit) {
			require.Failf(k.t, "waited in vain", "%s: the lease is %s (%s %s), seen %s, missing %d", what, l.State, l.Reason, l.Detail, l.SeenAt, l.Missing)
		}
		if k.strides(l) {
			k.sim.Advance(max(step, stride))
		} else {
			k.sim.Advance(step)
		}
		k.breathe()
	}
}

func (k *kit) untilState(id lease.ID, s lease.State) lease.Lease {
	k.t.Helper()
	return k.until(id, "state "+string(s), func(l lease.Lease) bool { return l.State == s })
}

// settled checks what has to hold of every lease that has ended: nothing runs,
// nothing is reserved, nothing is left behind, and the ledger has no less than
// the cloud bills, nor more than its rounding.
func (k *kit) settled(l lease.Lease) {
	k.t.Helper()
	require.Equal(k.t, lease.Ended, l.State)
	require.Zero(k.t, l.Reserved)
	require.Empty(k.t, k.sim.Running())
	bill := policy.Money(k.sim.Bill().Total)
	require.GreaterOrEqual(k.t, l.Cost, bill, "the ledger has less than the cloud's bill")
	require.Eventually(k.t, func() bool { return len(k.sim.Keys()) == 0 }, 5*time.Second, 5*time.Millisecond, "the SSH key stays in the account")
	require.Eventually(k.t, func() bool { _, err := k.keys.Load(l.ID); return err != nil }, 5*time.Second, 5*time.Millisecond, "the private key stays on disk")
}

func (k *kit) usage() policy.Totals {
	k.t.Helper()
	now := k.sim.Now()
	d, w, m := k.policy.p.PeriodStarts(now)
	u, err := k.db.Usage(k.t.Context(), "tester", now, lease.Periods{Day: d, Week: w, Month: m})
	require.NoError(k.t, err)
	return u.Account
}
