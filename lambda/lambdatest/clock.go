package lambdatest

import (
	"context"
	"sync"
	"time"
)

// clock is the simulator's time: a source plus what Advance has added.
type clock struct {
	mu      sync.Mutex
	source  func() time.Time
	virtual bool
	offset  time.Duration
	changed chan struct{} // closed and replaced at each advance
}

func newClock(source func() time.Time, virtual bool) *clock {
	if virtual {
		// A whole second, so that Date headers and stored times agree.
		start := source().Truncate(time.Second)
		source = func() time.Time { return start }
	}
	return &clock{source: source, virtual: virtual, changed: make(chan struct{})}
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.source().Add(c.offset).UTC().Round(0)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *clock) change() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// sleep waits until the simulator's clock has moved by d. A negative d waits
// for the context alone.
func (c *clock) sleep(ctx context.Context, d time.Duration) error {
	if d < 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	until := c.now().Add(d)
	for {
		changed := c.change() // before the comparison, so that no advance is missed
		left := until.Sub(c.now())
		if left <= 0 {
			return ctx.Err()
		}
		var fire <-chan time.Time
		var timer *time.Timer
		if !c.virtual {
			timer = time.NewTimer(left)
			fire = timer.C
		}
		select {
		case <-ctx.Done():
		case <-fire:
		case <-changed:
		}
		if timer != nil {
			timer.Stop()
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}
