package lambda

import (
	"context"
	"sync"
	"time"
)

// flights shares reads that are the same and run at the same time.
type flights struct {
	mu sync.Mutex
	m  map[string]*flight
}

// flight is one shared read. It runs on a context of its own, which ends when the last caller has left.
type flight struct {
	set    *flights
	done   chan struct{}
	cancel context.CancelFunc
	val    any
	err    error

	// Guarded by set.mu.
	callers int
	onWire  bool
}

// depart says that the request is on the wire. A nil flight is nobody's.
func (f *flight) depart() {
	if f != nil {
		f.set.mu.Lock()
		f.onWire = true
		f.set.mu.Unlock()
	}
}

// comeBack says that the attempt failed: what comes is from a later one.
func (f *flight) comeBack() {
	if f != nil {
		f.set.mu.Lock()
		f.onWire = false
		f.set.mu.Unlock()
	}
}

// share runs read once for all callers with the same name, each of which may leave early. With fresh, a caller does not
// join a read whose request is on the wire already: it gets what the service said after the call began.
func share[T any](ctx context.Context, s *flights, name string, fresh bool, read func(context.Context, *flight) (T, error)) (T, error) {
	s.mu.Lock()
	f := s.m[name]
	if f == nil || f.callers == 0 || fresh && f.onWire {
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		f = &flight{set: s, done: make(chan struct{}), cancel: cancel}
		if s.m == nil {
			s.m = map[string]*flight{}
		}
		s.m[name] = f
		go func() {
			defer cancel()
			defer close(f.done)
			val, err := read(own, f)
			s.mu.Lock()
			defer s.mu.Unlock()
			f.val, f.err = val, err
			if s.m[name] == f {
				delete(s.m, name)
			}
		}()
	}
	f.callers++
	s.mu.Unlock()

	var zero T
	select {
	case <-f.done:
	case <-ctx.Done():
		s.mu.Lock()
		f.callers--
		last := f.callers == 0
		s.mu.Unlock()
		if last { // then the goroutine is ours to wait for
			f.cancel()
			<-f.done
		}
		return zero, ctx.Err()
	}
	if f.err != nil {
		return zero, f.err
	}
	return f.val.(T), nil
}

// cache keeps one value for a short time.
type cache struct {
	mu  sync.Mutex
	val any
	at  time.Time
}

func (c *cache) get(now time.Time, ttl time.Duration) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	if age := now.Sub(c.at); c.val == nil || age < 0 || age >= ttl {
		return nil
	}
	return c.val
}

func (c *cache) put(val any, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.val, c.at = val, at
}
