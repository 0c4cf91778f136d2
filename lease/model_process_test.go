package lease_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

// errDead is what a process that has died would get, at the end of the sequence,
// from everything that it waits for. Nobody sees it.
var errDead = errors.New("this process is dead")

// process is a manager with its loop. Whatever it does to the world goes through
// step, where it can die or be suspended; between two steps there is only CPU.
type process struct {
	w      *world
	name   string
	home   string
	wrong  bool // it has another API key
	m      *lease.Manager
	ctx    context.Context
	cancel context.CancelFunc
	ran    chan struct{}
	offset atomic.Int64 // of its clock

	mu      sync.Mutex
	rng     *rand.Rand
	dead    bool
	hold    chan struct{} // closed when it goes on; nil while it runs
	stalled time.Time     // when it last stood still
	trap    map[string]move
	moment  time.Time // of the latest step
	steps   int       // at that moment
}

// spin is how many steps at one moment are a loop without a pause.
const spin = 3000

func (p *process) now() time.Time { return time.Now().Add(time.Duration(p.offset.Load())) }

// step is a moment at which the process may find itself dead or suspended.
func (p *process) step() error {
	for {
		p.mu.Lock()
		if now := time.Now(); now.After(p.moment) {
			p.moment, p.steps = now, 0
		}
		p.steps++
		spins := p.steps == spin
		p.dead = p.dead || spins
		dead, hold := p.dead, p.hold
		p.mu.Unlock()
		if spins {
			p.w.spins(p)
		}
		switch {
		case dead:
			<-p.w.end
			return errDead
		case hold == nil:
			return nil
		}
		select {
		case <-hold:
		case <-p.w.end:
			return errDead
		}
	}
}

func (p *process) kill() {
	p.mu.Lock()
	p.dead = true
	p.mu.Unlock()
	p.w.ill()
}

func (p *process) suspend(d time.Duration) {
	p.mu.Lock()
	if p.hold == nil {
		p.hold = make(chan struct{})
	}
	p.mu.Unlock()
	p.w.ill()
	p.w.later(d, p.resume)
}

func (p *process) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hold != nil {
		close(p.hold)
		p.hold, p.stalled = nil, time.Now()
	}
}

// state reports whether the process can act now.
func (p *process) state() (alive, suspended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.dead, p.hold != nil
}

// stalledWithin reports whether the process stood still in the last d.
func (p *process) stalledWithin(d time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hold != nil || time.Since(p.stalled) <= d
}

func (p *process) chance(n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return n > 0 && p.rng.IntN(n) == 0
}

func (p *process) random(d time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Duration(p.rng.Int64N(int64(d)))
}

// crash is Config.Crash: it springs the traps, and now and then takes its time.
func (p *process) crash(point string) {
	p.w.reached(point)
	p.mu.Lock()
	trap, sprung := p.trap[point]
	delete(p.trap, point)
	p.mu.Unlock()
	if sprung {
		p.w.note("%s: %s %s", p.name, trap.Do, point)
		switch trap.Do {
		case "kill at":
			p.kill()
			if trap.D > 0 {
				p.w.later(trap.D, func() { p.w.start(trap.Who) })
			}
		case "suspend at":
			p.suspend(trap.D)
		case "freeze at": // somebody freezes from elsewhere
			_ = p.w.checked.Freeze(context.Background(), lease.Freeze{At: time.Now(), By: "ann"})
			p.w.later(trap.D, p.w.thaw)
		}
	}
	if p.chance(p.w.s.Setup.Dawdle) {
		time.Sleep(p.random(40 * time.Second))
		p.mu.Lock()
		p.stalled = time.Now()
		p.mu.Unlock()
	}
	_ = p.step() // the next call of the dead one fails
}

// locks are what only one process can have at a time, until it dies.
type locks struct {
	mu   sync.Mutex
	held map[string]*process
}

func (l *locks) try(name string, p *process) (bool, error) {
	if err := p.step(); err != nil {
		return false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.held[name]; h != nil && h != p {
		if alive, _ := h.state(); alive {
			return false, nil
		}
	}
	l.held[name] = p
	return true, nil
}

func (l *locks) give(prefix string, p *process) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, h := range l.held {
		if h == p && name[:len(prefix)] == prefix {
			delete(l.held, name)
		}
	}
}

// lockedReader makes a seeded source of randomness safe for many goroutines.
type lockedReader struct {
	mu sync.Mutex
	r  io.Reader
}

func (l *lockedReader) Read(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(b)
}

// newProcess starts a manager as a program would.
func (w *world) newProcess(name, home string, wrong bool) *process {
	var seed [32]byte
	copy(seed[:], name)
	seed[30], seed[31] = byte(w.s.Setup.Seed>>8), byte(w.s.Setup.Seed)
	source := rand.NewChaCha8(seed)
	p := &process{w: w, name: name, home: home, wrong: wrong, ran: make(chan struct{}), trap: map[string]move{}, rng: rand.New(rand.NewChaCha8(seed))}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	sim := w.sim
	if wrong {
		sim = w.other
	}
	var store lease.Store = w.checked
	var account lease.Cloud = cloud{p.client(sim)}
	var keys lease.Keys = lease.KeyDir(filepath.Join(w.dir, "keys-"+home))
	timing := w.timing
	if w.plant.store != nil {
		store = w.plant.store(p, store)
	}
	if w.plant.cloud != nil {
		account = w.plant.cloud(p, account)
	}
	m, err := lease.New(lease.Config{
		Store: &edgeStore{Store: store, p: p}, Cloud: account, Machine: edgeMachine{w.machine, p}, Keys: edgeKeys{keys, p}, Policy: w.policy,
		Now: p.now, Rand: &lockedReader{r: source}, Principal: "ann", Home: home, Guard: "server " + name, Timing: timing,
		Lead:  func(account string) (bool, error) { return w.locks.try("lead "+account, p) },
		Yield: func() { w.locks.give("lead ", p) },
		Host:  func() (bool, error) { return w.locks.try("host "+home, p) },
		Crash: p.crash, Logger: w.log,
	})
	if err != nil {
		panic(err)
	}
	p.m = m
	go func() {
		defer close(p.ran)
		time.Sleep(p.random(time.Second)) // so that ticks of two do not fall together
		_ = m.Run(p.ctx)
	}()
	return p
}

func (p *process) client(sim *lambdatest.Server) *lambda.Client {
	key, err := lambda.ParseKey(sim.APIKey())
	if err != nil {
		panic(err)
	}
	retry := lambda.DefaultRetry
	retry.Jitter = 0 // its chance is not ours
	c, err := lambda.New(key, lambda.WithBaseURL(sim.URL()), lambda.WithPlainHTTP(), lambda.WithLimiter(lambda.NoLimit), lambda.WithNow(p.now),
		lambda.WithRetry(retry), lambda.WithHTTPClient(&http.Client{Transport: &edgeTransport{p: p, sim: sim}}))
	if err != nil {
		panic(err)
	}
	return c
}

// finish ends a process in order, at the end of the sequence.
func (p *process) finish() {
	p.cancel()
	<-p.ran
	_ = p.m.Close(context.Background())
}

// edgeKeys and edgeMachine are a process's hands: they do not move when it is dead.
type edgeKeys struct {
	lease.Keys
	p *process
}

func (k edgeKeys) Save(id lease.ID, pem []byte) error {
	if err := k.p.step(); err != nil {
		return err
	}
	return k.Keys.Save(id, pem)
}

func (k edgeKeys) Delete(id lease.ID) error {
	if err := k.p.step(); err != nil {
		return err
	}
	return k.Keys.Delete(id)
}

type edgeMachine struct {
	*machine
	p *process
}

// reach is the way to a machine.
func (m edgeMachine) reach(ctx context.Context) error {
	if err := m.p.step(); err != nil {
		return err
	}
	if err := pause(ctx, m.p.random(2*time.Second)); err != nil {
		return err
	}
	return m.p.step()
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func (m edgeMachine) Check(ctx context.Context, t remote.Target) error {
	if err := m.reach(ctx); err != nil {
		return err
	}
	return m.machine.Check(ctx, t)
}

func (m edgeMachine) Health(ctx context.Context, t remote.Target, gpus int) (remote.Health, error) {
	if err := m.Check(ctx, t); err != nil {
		return remote.Health{}, err
	}
	return m.machine.Health(ctx, t, gpus)
}

func (m edgeMachine) Samples(ctx context.Context, t remote.Target, window time.Duration) (remote.Samples, error) {
	if err := m.Check(ctx, t); err != nil {
		return remote.Samples{}, err
	}
	return m.machine.Samples(ctx, t, window)
}

func (m edgeMachine) Activity(ctx context.Context, t remote.Target) (remote.Activity, error) {
	if err := m.Check(ctx, t); err != nil {
		return remote.Activity{}, err
	}
	return m.machine.Activity(ctx, t)
}

func (m edgeMachine) Jobs(ctx context.Context, t remote.Target) ([]remote.Job, error) {
	if err := m.Check(ctx, t); err != nil {
		return nil, err
	}
	return m.machine.Jobs(ctx, t)
}

func (m edgeMachine) Fetch(ctx context.Context, t remote.Target, paths []string, dst string, o remote.FetchOptions) (remote.FetchSummary, error) {
	if err := m.Check(ctx, t); err != nil {
		return remote.FetchSummary{}, err
	}
	return m.machine.Fetch(ctx, t, paths, dst, o)
}

func (m edgeMachine) Forget(string) {}
