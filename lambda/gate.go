package lambda

import (
	"context"
	"sync"
	"time"
)

// The slots that a [Pacer] asks for.
const (
	SlotRequests = "requests" // every request needs one
	SlotLaunches = "launches" // a launch needs this one too
)

// Slot is something of which one may be taken in each period of Every.
type Slot struct {
	Name  string
	Every time.Duration
}

// Gate hands out slots to all who share an account. A [Pacer] asks it for one request at a time: the most urgent one that
// waits in its process. An implementation in a database makes the limit hold for all processes; a row
// of (account, slot name, next free time) is enough.
type Gate interface {
	// Take takes one of each slot, or none. When all are free now, it marks each as taken until now + Every and returns
	// 0. When one is not, it changes nothing and returns how long until all may be free, which is more than 0. It is
	// one atomic step for all processes. A next free time that lies further ahead than any Every or Hold can
	// have put it comes from a clock that was wrong, and should count as free.
	Take(ctx context.Context, slots ...Slot) (wait time.Duration, err error)
	// Hold makes the slot busy for at least d from now. It never makes it free earlier.
	Hold(ctx context.Context, name string, d time.Duration) error
}

// maxHold bounds how long an answer can stop all requests: a terminate must not wait on a proxy's whim.
const maxHold = 30 * time.Second

// localGate is the Gate of one process.
type localGate struct {
	now  func() time.Time
	mu   sync.Mutex
	next map[string]time.Time
}

// NewGate returns a [Gate] for one process, which several pacers may share. A nil clock is the system's.
func NewGate(now func() time.Time) Gate {
	if now == nil {
		now = time.Now
	}
	return &localGate{now: now, next: map[string]time.Time{}}
}

func (g *localGate) Take(_ context.Context, slots ...Slot) (time.Duration, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	var wait time.Duration
	for _, s := range slots {
		if d := g.next[s.Name].Sub(now); d <= max(s.Every, maxHold) {
			wait = max(wait, d)
		}
	}
	if wait > 0 {
		return wait, nil
	}
	for _, s := range slots {
		g.next[s.Name] = now.Add(s.Every)
	}
	return 0, nil
}

func (g *localGate) Hold(_ context.Context, name string, d time.Duration) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.now().Add(min(d, maxHold)); t.After(g.next[name]) {
		g.next[name] = t
	}
	return nil
}
