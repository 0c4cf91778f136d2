package lease

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
)

// Config is what a [Manager] is made of. Everything but the timings, Logger and
// Lead is required.
type Config struct {
	Store   Store
	Cloud   Cloud
	Machine Machine
	Keys    Keys
	Policy  PolicySource

	// Begun remembers which repeatable calls have started jobs; nil is nothing.
	Begun Begun

	Now  func() time.Time
	Rand io.Reader

	Principal   string // who this process asks for
	SSHUser     string // login name on the machines, default "ubuntu"
	SSHPort     int    // default 22
	ImageFamily string // pinned at each launch, default "lambda-stack-24-04"

	// Lead tries to become the one process that reconciles the account's leases of
	// this ledger. It returns false while another one leads. Default: always.
	Lead func(account string) (bool, error)
	// Yield gives the lead back, for a process that cannot act.
	Yield func()
	// Home names the state directory: its processes share the private keys of the
	// leases that were launched from there, and nobody else can reach those machines.
	Home string
	// Host tries to become the one process of its home that works on the machines:
	// waits for them, watches whether they are used, brings results home. Default: always.
	Host func() (bool, error)
	// Guard names this process in the ledger's list of guards, for instance
	// "server 4711".
	Guard string

	// EnsureGuard makes sure, before a launch call is sent, that something outlives
	// this process and ends the lease at its deadline. Where it fails, a policy
	// with require_guard refuses the launch. Nil: this process is the guard.
	EnsureGuard func(ctx context.Context) error

	// Tailnet is what machines join where the policy names tags for it. Nil: such a
	// policy launches nothing here.
	Tailnet Tailnet

	// MayAsk reports whether a principal may still ask for anything here: nothing is
	// launched again for one whose token was revoked. Nil: all may.
	MayAsk func(principal string) bool

	// NoLaunch leaves what was approved to other processes: this one is about to end,
	// and starts nobody who would guard it.
	NoLaunch bool

	Timing Timing
	Logger *slog.Logger
	// Crash is called with the name of each step at which a process may die; nil
	// outside of tests.
	Crash func(point string)
}

// Timing holds the waits of the lease logic. The zero value of each field means
// its default.
type Timing struct {
	Tick          time.Duration // between two looks at the ledger, default 1 s
	Poll          time.Duration // between two listings while something is under way, default 5 s
	IdlePoll      time.Duration // between two listings while leases only run, default 30 s
	BootOne       time.Duration // boot allowance with at most one GPU, default 15 min
	BootMany      time.Duration // boot allowance with more GPUs, default 30 min
	StopAllowance time.Duration // default 12 min: reconcile interval, termination, an outage of the API
	Settle        time.Duration // how long an unlisted instance may still appear, default 10 min
	LaunchCall    time.Duration // timeout of the launch call with its wait for a turn, default 2 min
	SSHRetry      time.Duration // between two tries to reach a booting machine, default 2 s
	StopRetry     time.Duration // between two terminate calls for one lease, default 15 s, growing to 2 min
	Unhealthy     time.Duration // how long a booting instance may be called unhealthy, default 1 min
	Vanish        time.Duration // how long an instance in use may be missing from listings, default 1 min
	Sample        time.Duration // between two looks at what a machine is doing, default 30 s
	Farewell      time.Duration // how long jobs may take to end at the deadline before the machine is ended, default 15 s
	Rescue        time.Duration // how long the same may take where results are to be brought home, default 5 min
}

func (t Timing) withDefaults() Timing {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&t.Tick, time.Second)
	def(&t.Poll, 5*time.Second)
	def(&t.IdlePoll, 30*time.Second)
	def(&t.BootOne, 15*time.Minute)
	def(&t.BootMany, 30*time.Minute)
	def(&t.StopAllowance, 12*time.Minute)
	def(&t.Settle, 10*time.Minute)
	def(&t.LaunchCall, 2*time.Minute)
	def(&t.SSHRetry, 2*time.Second)
	def(&t.StopRetry, 15*time.Second)
	def(&t.Unhealthy, time.Minute)
	def(&t.Vanish, time.Minute)
	def(&t.Sample, 30*time.Second)
	def(&t.Farewell, 15*time.Second)
	def(&t.Rescue, 5*time.Minute)
	return t
}

// boot is the boot allowance for a machine with that many GPUs: eight of them
// were seen to take 25 minutes.
func (t Timing) boot(gpus int) time.Duration {
	if gpus > 1 {
		return t.BootMany
	}
	return t.BootOne
}

// Manager offers what an agent asks for. Its methods may be called from any
// number of goroutines. Run has to be running for leases to move on.
type Manager struct {
	Config
	log *slog.Logger

	clock    *wallClock
	launches sync.WaitGroup // launch calls under way; Close waits for them
	wake     chan struct{}  // tells the reconciler that there is something new
	closing  chan struct{}  // closed by Close

	mu         sync.Mutex
	tasks      map[string]bool // what is being done to a machine, one of each kind for a lease
	stops      map[ID]stopTry
	used       map[ID]time.Time // when a use was last written down
	again      map[ID]*again    // launches by this process that may be tried once more
	uses       map[ID]seenUse   // what the machines' GPUs were last known to have done
	unsettled  map[ID]unsettled // launches that came to nothing, whose reservations could not be given back
	forwarding map[ID]bool      // leases of which this process forwards ports
	closed     bool
}

// New checks the configuration and makes a Manager. It does no I/O.
func New(c Config) (*Manager, error) {
	switch {
	case c.Store == nil, c.Cloud == nil, c.Machine == nil, c.Keys == nil, c.Policy == nil:
		return nil, errors.New("new lease manager: store, cloud, machine, keys and policy are required")
	case c.Now == nil, c.Rand == nil:
		return nil, errors.New("new lease manager: a clock and a source of randomness are required")
	}
	if c.SSHUser == "" {
		c.SSHUser = "ubuntu"
	}
	if c.SSHPort == 0 {
		c.SSHPort = 22
	}
	if c.ImageFamily == "" {
		c.ImageFamily = "lambda-stack-24-04"
	}
	if c.Principal == "" {
		c.Principal = "default"
	}
	if c.Lead == nil {
		c.Lead = func(string) (bool, error) { return true, nil }
	}
	if c.Yield == nil {
		c.Yield = func() {}
	}
	if c.Host == nil {
		c.Host = func() (bool, error) { return true, nil }
	}
	if c.Guard == "" {
		c.Guard = "server"
	}
	if c.EnsureGuard == nil {
		c.EnsureGuard = func(context.Context) error { return nil }
	}
	if c.Begun == nil {
		c.Begun = noBegun{}
	}
	if c.Tailnet == nil {
		c.Tailnet = noTailnet{}
	}
	if c.MayAsk == nil {
		c.MayAsk = func(string) bool { return true }
	}
	if c.Crash == nil {
		c.Crash = func(string) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Timing = c.Timing.withDefaults()
	return &Manager{
		Config: c, log: c.Logger, wake: make(chan struct{}, 1), closing: make(chan struct{}),
		clock: &wallClock{now: c.Now, cloud: c.Cloud, fresh: 2 * c.Timing.IdlePoll},
		tasks: map[string]bool{}, stops: map[ID]stopTry{}, used: map[ID]time.Time{}, uses: map[ID]seenUse{}, again: map[ID]*again{}, unsettled: map[ID]unsettled{}, forwarding: map[ID]bool{},
	}, nil
}

// Close waits for launch calls under way, at most as long as such a call can
// take: a launch is never abandoned halfway while we can still learn its
// outcome. Leases stay as they are.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	if !m.closed {
		m.closed = true
		close(m.closing)
	}
	m.mu.Unlock()
	done := make(chan struct{})
	go func() { m.launches.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close the lease manager: a launch is still under way: %w", ctx.Err())
	}
}

func (m *Manager) isClosed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed
}

func (m *Manager) nudge() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// nudgeUnless nudges where something was written. What failed is tried again at the
// next tick: a nudge would make that a loop without a pause.
func (m *Manager) nudgeUnless(err *error) {
	if *err == nil {
		m.nudge()
	}
}

// policyNow is the policy in force; without one nothing is launched.
func (m *Manager) policyNow() (*policy.Policy, error) {
	p, err := m.Policy.Current()
	if err != nil {
		return nil, &Error{
			Code: CodePolicyDenied, Message: "the policy file cannot be used, so nothing is launched or extended", Why: err.Error(),
			Next: "a person has to mend the policy file at the place named; running leases go on", Err: err,
		}
	}
	return p, nil
}

// target is how to reach the lease's machine.
func (m *Manager) target(l Lease) (remote.Target, error) {
	if l.HostKey == "" {
		return remote.Target{}, &Error{
			Code: CodeSSHUnreachable, Message: "this lease was adopted from the account, and its keys are lost: nothing can be run on its machine", LeaseID: l.ID,
			Next: "stop_lease, and launch_lease for a machine that can be used",
		}
	}
	if l.InTailnet() && l.host() == "" {
		return remote.Target{}, &Error{
			Code: CodeLeaseNotReady, Message: "the machine has not joined the tailnet, where alone it is reached", LeaseID: l.ID, Retryable: true,
			Next: "get_lease shows when it is ready",
		}
	}
	signer, err := m.Keys.Load(l.ID)
	if err != nil {
		return remote.Target{}, &Error{
			Code: CodeSSHUnreachable, Message: "the private key of this lease is not here", Why: err.Error(), LeaseID: l.ID,
			Next: "use the machine from where it was launched, or stop_lease", Err: err,
		}
	}
	t := remote.Target{Key: string(l.ID), Addr: net.JoinHostPort(l.host(), strconv.Itoa(m.SSHPort)), User: m.SSHUser, Signer: signer}
	t.HostKey, err = parseHostKey(l.HostKey)
	if err == nil && l.NextHostKey != "" {
		t.NextHostKey, err = parseHostKey(l.NextHostKey)
	}
	if err != nil {
		return remote.Target{}, &Error{Code: CodeInternal, Message: "the pinned host key of this lease cannot be read", LeaseID: l.ID, Err: err}
	}
	return t, nil
}
