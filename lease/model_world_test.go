package lease_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
)

// plant is a defect: something in the way between a manager and the world.
type plant struct {
	store  func(*process, lease.Store) lease.Store
	cloud  func(*process, lease.Cloud) lease.Cloud
	timing func(*lease.Timing)
}

// world is one sequence in virtual time: a cloud, a ledger, the processes that work
// on them, and what is known of all of them together.
type world struct {
	s      script
	plant  plant
	dir    string
	end    chan struct{} // closed when the dead may go
	log    *slog.Logger
	timing lease.Timing

	sim, other *lambdatest.Server
	ledgerID   string
	checked    *checkedStore
	policy     *policies
	machine    *machine
	locks      *locks
	calls      sync.WaitGroup
	slots      [4]*process // the last one has another API key
	born       int
	all        []*process

	mu          sync.Mutex
	found       string // the first violation
	trace       []string
	due         []appointment
	rows        map[lease.ID]lease.Lease
	order       []lease.ID
	truth       map[lease.ID]*truth
	extra       map[lease.ID]policy.Money // corrections
	attempts    map[lease.ID][]*attempt
	hidden      map[string]time.Time // until when an instance does not show
	lateAtMost  time.Duration        // the longest that a failure so far has kept one from showing
	foreign     map[string]string    // instances that are not ours, and what they are
	faults      []*fault
	faultNames  map[string]string // by id
	requests    []asking
	wrongDates  []*period           // of the cloud
	wrongClocks []*period           // of a process
	stales      []*period           // when answers denied what exists
	handed      map[string]lease.ID // by principal and idempotency key
	lastIll     time.Time
	lastFault   time.Time // when the cloud was last out of order
	ledgerIll   time.Time // until when the ledger fails
	readIll     time.Time // until when not even reading works
	frozen      time.Time // since when launches are frozen; zero: they are not
	stats       map[string]int
}

// truth is what is known about a lease beside its row.
type truth struct {
	born     time.Time
	since    time.Time // of its state
	marked   time.Time // when its launch was last marked as sent
	quoted   policy.Money
	stranger bool // adopted
	ill      bool // something went wrong while it lived
}

type appointment struct {
	at time.Time
	do func()
}

type fault struct {
	lambdatest.Fault
	id   string
	from time.Time
}

type period struct{ from, to time.Time }

// asking is a launch that somebody has asked for.
type asking struct{ lease.LaunchRequest }

// modelDir is where the ledgers are: in memory where that is possible, since a
// sequence has thousands of writes.
func modelDir(t *testing.T) string {
	t.Helper()
	if dir, err := os.MkdirTemp("/dev/shm", "gpulease-model-"); err == nil {
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		return dir
	}
	return t.TempDir()
}

// playground is what sequences share: a directory, and an empty ledger to copy.
type playground struct {
	dir   string
	blank []byte
}

func newPlayground(t *testing.T) playground {
	t.Helper()
	g := playground{dir: modelDir(t)}
	path := filepath.Join(g.dir, "blank.db")
	db, err := ledger.Open(t.Context(), path, ledger.Options{})
	if err == nil {
		err = db.Close()
	}
	if err == nil {
		g.blank, err = os.ReadFile(path)
	}
	if err != nil {
		t.Fatalf("make an empty ledger: %v", err)
	}
	return g
}

// outcome is what became of a sequence.
type outcome struct {
	violation string
	trace     []string
	stats     map[string]int
}

// play plays a sequence in a bubble of its own.
func (g playground) play(t *testing.T, s script, p plant) (out outcome) {
	t.Helper()
	dir, err := os.MkdirTemp(g.dir, "run-")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "ledger.db"), g.blank, 0o600)
	}
	if err != nil {
		t.Fatalf("prepare a sequence: %v", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(s.Setup.Hour + time.Second)
		w := newWorld(t, s, p, dir)
		w.run()
		w.close()
		out = outcome{violation: w.found, trace: w.trace, stats: w.stats}
	})
	return out
}

func newWorld(t *testing.T, s script, p plant, dir string) *world {
	t.Helper()
	c := s.Setup
	config := lambdatest.Config{
		Now: time.Now, BootTime: c.Boot, TerminateTime: c.End, Linger: c.Linger, Newer: c.Newer, TerminateOnce: c.Once, Seed: c.Seed + 1,
		APIKey: "secret_sim_ours." + strings.Repeat("a", 32),
	}
	w := &world{
		s: s, plant: p, dir: dir, end: make(chan struct{}), policy: &policies{all: map[string]*policy.Policy{}}, locks: &locks{held: map[string]*process{}},
		rows: map[lease.ID]lease.Lease{}, truth: map[lease.ID]*truth{}, extra: map[lease.ID]policy.Money{}, attempts: map[lease.ID][]*attempt{},
		hidden: map[string]time.Time{}, foreign: map[string]string{}, handed: map[string]lease.ID{}, faultNames: map[string]string{}, lastIll: time.Now(), stats: map[string]int{},
	}
	if os.Getenv("GPULEASE_MODEL_LOG") != "" {
		w.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	var err error
	if w.sim, err = lambdatest.New(config); err != nil {
		t.Fatal(err)
	}
	config.APIKey = "secret_sim_other." + strings.Repeat("b", 32)
	if w.other, err = lambdatest.New(config); err != nil {
		t.Fatal(err)
	}
	db, err := ledger.Open(context.Background(), filepath.Join(dir, "ledger.db"), ledger.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	w.checked = &checkedStore{DB: db, w: w, beats: map[string]time.Time{}}
	if w.ledgerID, err = db.LedgerID(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.machine = &machine{sim: w.sim, health: remote.Health{Healthy: true, Simulated: true}, cloudInit: remote.CloudInitDone, activity: idleNow()}
	w.machine.fetch = func(context.Context, []string, string) (remote.FetchSummary, error) {
		return remote.FetchSummary{}, nil
	}
	w.policy.change(func(p *policy.Policy) {
		p.MaxTTL, p.DefaultTTL, p.MaxLeases = 2*time.Hour, 20*time.Minute, c.Leases
		p.Caps = policy.Caps{PerLease: 25 * policy.Dollar, PerDay: c.PerDay, Lifetime: c.Lifetime}
		p.ApproveAbove, p.IdleMode, p.IdleTimeout, p.CountUntracked = c.Ask, c.Idle, 15*time.Minute, c.Untracked
	})
	w.timing = lease.Timing{Tick: time.Second, Poll: 5 * time.Second, SSHRetry: 5 * time.Second}
	if c.Coarse {
		w.timing = lease.Timing{Tick: 10 * time.Second, Poll: 15 * time.Second, SSHRetry: 10 * time.Second}
	}
	if p.timing != nil {
		p.timing(&w.timing)
	}
	return w
}

// close lets everybody go home.
func (w *world) close() {
	for _, p := range w.all {
		p.cancel()
	}
	close(w.end)
	w.calls.Wait()
	w.countHits()
	for _, p := range w.all {
		p.finish()
	}
	if err := w.checked.DB.Close(); err != nil {
		w.mu.Lock()
		w.violate("close the ledger: %v", err)
		w.mu.Unlock()
	}
	_ = w.sim.Close()
	_ = w.other.Close()
}

// countHits counts the faults that have fired for some call.
func (w *world) countHits() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.sim.Requests() {
		for _, id := range r.Faults {
			if name := w.faultNames[id]; name != "" {
				w.count("hit " + name)
			}
		}
	}
}

// note adds a line to the story of the sequence.
func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tell(format, args...)
}

// tell, violate and count need w.mu.
func (w *world) tell(format string, args ...any) {
	w.trace = append(w.trace, time.Now().UTC().Format("02 15:04:05.000 ")+fmt.Sprintf(format, args...))
}

func (w *world) violate(format string, args ...any) {
	w.tell("VIOLATION: "+format, args...)
	if w.found == "" {
		w.found = fmt.Sprintf(format, args...)
	}
}

func (w *world) count(what string) { w.stats[what]++ }

func (w *world) reached(point string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count("point " + point)
}

func (w *world) broken() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.found != ""
}

// ill says that something was out of order just now.
func (w *world) ill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lastIll = time.Now()
}

// later makes an appointment.
func (w *world) later(d time.Duration, do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.due = append(w.due, appointment{time.Now().Add(d), do})
}

// pass lets time go by, keeps appointments and looks at everything now and then.
func (w *world) pass(d time.Duration) {
	const look = 20 * time.Second
	until := time.Now().Add(d)
	for !w.broken() {
		w.keep()
		w.check()
		left := time.Until(until)
		if left <= 0 {
			return
		}
		time.Sleep(min(left, look))
	}
}

func (w *world) keep() {
	w.mu.Lock()
	now := time.Now()
	var ripe []appointment
	w.due = slices.DeleteFunc(w.due, func(a appointment) bool {
		if a.at.After(now) {
			return false
		}
		ripe = append(ripe, a)
		return true
	})
	w.mu.Unlock()
	for _, a := range ripe {
		a.do()
	}
}

// start makes a process in a slot, unless one lives there.
func (w *world) start(slot int) *process {
	if p := w.slots[slot]; p != nil {
		if alive, _ := p.state(); alive {
			return p
		}
	}
	w.born++
	home := "a"
	if slot == 2 {
		home = "b"
	}
	p := w.newProcess(fmt.Sprintf("%d%s", w.born, home), home, slot == 3)
	w.slots[slot] = p
	w.all = append(w.all, p)
	w.note("process %s starts", p.name)
	return p
}

// someone is a process with our key that is alive, the wanted one if possible.
func (w *world) someone(who int) *process {
	for i := range 3 {
		if p := w.slots[(who+i)%3]; p != nil {
			if alive, _ := p.state(); alive {
				return p
			}
		}
	}
	return nil
}

// call lets a process do something for an agent or a person, who waits 45 s.
func (w *world) call(p *process, what string, do func(ctx context.Context, m *lease.Manager) error) {
	w.calls.Go(func() {
		if p.step() != nil {
			return
		}
		ctx, cancel := context.WithTimeout(p.ctx, 45*time.Second)
		defer cancel()
		err := do(ctx, p.m)
		if alive, _ := p.state(); alive {
			w.note("%s: %s: %v", p.name, what, err)
		}
	})
}
