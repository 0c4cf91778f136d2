package lambda

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// The default pace. Lambda's limits are 1 s and 12 s; the rest is for the uneven time that requests take to arrive.
const (
	DefaultInterval       = 1050 * time.Millisecond
	DefaultLaunchInterval = 12500 * time.Millisecond
)

// PacerConfig sets a [Pacer]. The zero value is Lambda's limits for one process.
type PacerConfig struct {
	Interval       time.Duration // between requests; 0 is DefaultInterval
	LaunchInterval time.Duration // between launches; 0 is DefaultLaunchInterval
	Gate           Gate          // shared with other processes; nil is one of this pacer's own
	Logger         *slog.Logger  // nil logs nothing
}

// Pacer is the default [Limiter]. It lets one request go in each interval, and one launch in each launch interval. Of
// those that wait, the most urgent class goes first, and within a class the one that came first; but a
// class that was passed over four times in a row goes next, so that nothing waits for ever.
//
// When its [Gate] fails or does not answer for 3 s, launches fail with that error, and all else goes on at this process's own pace: terminating must
// not depend on a database.
type Pacer struct {
	gate    Gate
	shared  bool
	local   Gate
	request Slot
	launch  Slot
	log     *slog.Logger

	// driving is held by the one waiter that asks the gate, for whoever is next. So there is no goroutine to own.
	driving chan struct{}
	wake    chan struct{}

	nextTry [2]time.Time // by kind; belongs to the driver

	mu     sync.Mutex
	queue  [classes][]*waiter
	passed [classes]int // how often a class that waits was passed over
}

type waiter struct {
	class Class
	done  chan error // of capacity 1: the verdict
}

// patience is how often a class may be passed over.
const patience = 4

// The kinds of slot sets. Requests of one kind need not be asked for twice.
const (
	kindRequest = iota
	kindLaunch
)

func kindOf(c Class) int {
	if c == ClassLaunch {
		return kindLaunch
	}
	return kindRequest
}

// NewPacer makes a pacer.
func NewPacer(cfg PacerConfig) *Pacer {
	p := &Pacer{
		gate:    cfg.Gate,
		shared:  cfg.Gate != nil,
		local:   NewGate(time.Now),
		request: Slot{SlotRequests, cfg.Interval},
		launch:  Slot{SlotLaunches, cfg.LaunchInterval},
		log:     cfg.Logger,
		driving: make(chan struct{}, 1),
		wake:    make(chan struct{}, 1),
	}
	if p.request.Every <= 0 {
		p.request.Every = DefaultInterval
	}
	if p.launch.Every <= 0 {
		p.launch.Every = DefaultLaunchInterval
	}
	if p.gate == nil {
		p.gate = p.local
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	return p
}

// Wait returns when a request of the class may go.
func (p *Pacer) Wait(ctx context.Context, class Class) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if class >= classes {
		return fmt.Errorf("wait for a slot: unknown class %d", class)
	}
	w := &waiter{class: class, done: make(chan error, 1)}
	p.join(w)
	for {
		select {
		case err := <-w.done:
			return err
		case <-ctx.Done():
			p.leave(w)
			return ctx.Err()
		case p.driving <- struct{}{}:
			p.drive(ctx, w)
			<-p.driving
		}
	}
}

// Throttled keeps all requests back for a while, and launches for a whole interval after a launch.
func (p *Pacer) Throttled(ctx context.Context, class Class, retryAfter time.Duration) {
	d := min(max(retryAfter, 2*p.request.Every), maxHold)
	hold := func(name string, d time.Duration) {
		if err := p.gate.Hold(ctx, name, d); err != nil {
			p.log.WarnContext(ctx, "hold at the shared gate", "slot", name, "err", err)
			_ = p.local.Hold(ctx, name, d) // the local gate does not fail
		}
	}
	hold(SlotRequests, d)
	if class == ClassLaunch {
		hold(SlotLaunches, max(d, p.launch.Every))
	}
}

func (p *Pacer) join(w *waiter) {
	p.mu.Lock()
	if len(p.queue[w.class]) == 0 {
		p.passed[w.class] = 0
	}
	p.queue[w.class] = append(p.queue[w.class], w)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *Pacer) leave(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.queue[w.class], w); i >= 0 {
		p.queue[w.class] = slices.Delete(p.queue[w.class], i, i+1)
	}
}

// drive asks the gate for whoever is next until w has its verdict or ctx is done.
func (p *Pacer) drive(ctx context.Context, w *waiter) {
	for len(w.done) == 0 && ctx.Err() == nil {
		wait := p.step(ctx)
		if wait <= 0 {
			continue
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-p.wake:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// step tries once for each class that waits, the most urgent first, until one may go. It returns 0 after a verdict, else how
// long to wait.
func (p *Pacer) step(ctx context.Context) time.Duration {
	const longest = 5 * time.Second // then ask again: the gate's clock may have jumped
	wait := longest
	for _, class := range p.order() {
		kind := kindOf(class)
		lead := time.Duration(0)
		if p.shared {
			lead = head[class]
		}
		if d := time.Until(p.nextTry[kind]) + lead; d > 0 {
			wait = min(wait, d)
			continue
		}
		slots := []Slot{p.request}
		if kind == kindLaunch {
			slots = append(slots, p.launch)
		}
		d, err := p.take(ctx, slots)
		if err != nil {
			if ctx.Err() != nil {
				return 0
			}
			p.log.WarnContext(ctx, "ask the shared gate", "class", class.String(), "err", err)
			if class == ClassLaunch {
				p.settle(class, fmt.Errorf("ask the shared rate limit: %w", err))
				return 0
			}
			d, _ = p.local.Take(ctx, slots...) // the local gate does not fail
		}
		if d <= 0 {
			p.settle(class, nil)
			return 0
		}
		d = min(max(d, time.Millisecond), longest)
		p.nextTry[kind] = time.Now().Add(d)
		wait = min(wait, d+lead)
	}
	return wait
}

// take bounds the question: a database that hangs must not stop a terminate.
func (p *Pacer) take(ctx context.Context, slots []Slot) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, gatePatience)
	defer cancel()
	return p.gate.Take(ctx, slots...)
}

// gatePatience is how long a shared gate has to answer.
const gatePatience = 3 * time.Second

// head is how much later a class asks a shared gate than the moment when a slot is due: the lead that urgent requests of
// other processes get.
var head = [classes]time.Duration{
	ClassRead: 30 * time.Millisecond, ClassChange: 20 * time.Millisecond, ClassLaunch: 10 * time.Millisecond,
}

// order is the classes that have waiters, in the order in which they are to be served.
func (p *Pacer) order() []Class {
	p.mu.Lock()
	defer p.mu.Unlock()
	var order []Class
	for c := int(classes) - 1; c >= 0; c-- {
		if len(p.queue[c]) > 0 {
			order = append(order, Class(c))
		}
	}
	slices.SortStableFunc(order, func(a, b Class) int {
		return min(p.passed[b], patience)/patience - min(p.passed[a], patience)/patience
	})
	return order
}

// settle gives a verdict to the first waiter of a class. When that one has gone meanwhile, the slot is lost.
func (p *Pacer) settle(class Class, verdict error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.queue {
		// A launch that waits for its own slot is not passed over: it could not go.
		if c != int(class) && len(p.queue[c]) > 0 && time.Until(p.nextTry[kindOf(Class(c))]) <= 0 {
			p.passed[c]++
		}
	}
	p.passed[class] = 0
	if len(p.queue[class]) == 0 {
		return
	}
	w := p.queue[class][0]
	p.queue[class] = p.queue[class][1:]
	w.done <- verdict
}
