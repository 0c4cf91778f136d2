package server

import (
	"context"
	"net/http"
	"sync"
)

// methodListen opens an event stream of the revision without sessions.
const methodListen = "subscriptions/listen"

// listeners are the event streams that belong to no session. Each holds one of the
// connections that all principals share, so one principal has only so many.
type listeners struct {
	mu   sync.Mutex
	open map[*listener]bool
}

type listener struct {
	principal string
	cut       context.CancelFunc
}

// add counts a stream until done is called. Its context ends with ctx, or when it is cut.
func (l *listeners) add(ctx context.Context, principal string, most int) (_ context.Context, done func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for other := range l.open {
		if other.principal == principal {
			n++
		}
	}
	if n >= most {
		return nil, nil, false
	}
	ctx, cut := context.WithCancel(ctx)
	own := &listener{principal: principal, cut: cut}
	if l.open == nil {
		l.open = map[*listener]bool{}
	}
	l.open[own] = true
	return ctx, func() {
		cut()
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.open, own)
	}, true
}

// end cuts the streams of those who may not go on.
func (l *listeners) end(may func(principal string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for own := range l.open {
		if !may(own.principal) {
			own.cut()
		}
	}
}

// listens takes a place for a request that opens such a stream; others need none. It
// answers by itself where there is none.
func (w *web) listens(to http.ResponseWriter, r *http.Request, p post, who caller) (_ *http.Request, done func(), ok bool) {
	if p.Method != methodListen {
		return r, func() {}, true
	}
	ctx, done, ok := w.listeners.add(r.Context(), who.principal, w.config.Sessions)
	if !ok {
		to.Header().Set("Retry-After", "60")
		http.Error(to, "this principal has enough event streams open (as many as --sessions); one ends when its client closes it", http.StatusTooManyRequests)
		return nil, nil, false
	}
	return r.WithContext(ctx), done, true
}
