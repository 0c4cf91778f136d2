package remote

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

type patienceKey struct{}

// Impatient gives ctx to calls for whose answer somebody waits. A call with it that hears nothing at all from the
// machine fails about d after it began, where others go on for Config.ReconnectFor. One that has heard from it goes on like them when its
// connection breaks. It does not bound how long the machine may take for its answer.
func Impatient(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, patienceKey{}, d)
}

// silence watches over a call that may be impatient; the zero patience is for those that are not.
type silence struct {
	patience time.Duration
	begun    time.Time
	broken   atomic.Bool // the machine has been heard since
}

func (p *Pool) silence(ctx context.Context) *silence {
	d, _ := ctx.Value(patienceKey{}).(time.Duration)
	return &silence{patience: d, begun: p.config.Now()}
}

// kept reports whether the call has heard nothing yet and must not try for ever.
func (s *silence) kept() bool { return s.patience > 0 && !s.broken.Load() }

// over reports whether the call has had no answer for as long as it has patience.
func (s *silence) over(now time.Time) bool { return s.kept() && now.Sub(s.begun) >= s.patience }

// note breaks the silence if the machine has been heard on n.
func (s *silence) note(n *conn) {
	if n.heard.Load() > s.begun.UnixNano() {
		s.broken.Store(true)
	}
}

// connect is Pool.connect for as long as the call has patience.
func (s *silence) connect(ctx context.Context, p *Pool, t Target) (*conn, error) {
	if !s.kept() {
		return p.connect(ctx, t)
	}
	bounded, cancel := context.WithTimeout(ctx, s.patience-p.config.Now().Sub(s.begun))
	defer cancel()
	n, err := p.connect(bounded, t)
	switch {
	case err == nil:
		s.note(n) // it was made for this call
	case ctx.Err() == nil && bounded.Err() != nil:
		err = fmt.Errorf("connect to %s: %w: no answer within %s", t.Addr, ErrUnreachable, s.patience)
	}
	return n, err
}

// watch has the machine asked for a sign of life if the call on n takes longer than a moment. A connection that is
// dark is closed then, which ends the call on it, unless files are under way: they can hold up the answer. The caller calls stop when the call
// has ended, and whatever was heard by then counts.
func (s *silence) watch(n *conn) (stop func()) {
	if !s.kept() {
		return func() {}
	}
	over := make(chan struct{})
	n.spawn(func() {
		timer := time.NewTimer(s.patience / 6)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-over:
			return
		case <-n.gone:
			return
		}
		if n.ping(s.patience / 3) {
			s.broken.Store(true) // whatever the clock says: it may have been set back
		}
		if s.note(n); s.kept() && n.busy.Load() == 0 {
			n.close()
		}
	})
	return func() {
		close(over)
		s.note(n)
	}
}
