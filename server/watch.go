package server

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

const (
	defaultWatchEvery = 5 * time.Second
	maxWatched        = 20 // resources of one subscriber
	listPage          = "" // stands for the list of resources among their URIs
)

// watches look at what clients have subscribed to and tell them of changes. The library
// takes subscriptions and tells of none: over HTTP it drops those of 2026-07-28. Nothing
// is looked at that nobody asked for, and everything is looked at as the one who asked.
type watches struct {
	s       *Server
	running sync.WaitGroup

	mu sync.Mutex
	of map[string]*watch // by session, of the older revisions
}

// watch is one subscriber.
type watch struct {
	s      *Server
	notify func(method string, params map[string]any) error

	mu    sync.Mutex
	known map[string]string // what was seen last, by URI
}

// lifeKey holds a context that lasts as long as a client over stdio.
type lifeKey struct{}

func (w *watches) hook(hooks *mcpserver.Hooks) {
	hooks.AddBeforeSubscriptionsListen(func(ctx context.Context, id any, req *mcp.SubscriptionsListenRequest) {
		w.listen(ctx, id, req.Params.Notifications)
	})
	hooks.AddAfterSubscribe(func(ctx context.Context, _ any, req *mcp.SubscribeRequest, _ *mcp.EmptyResult) {
		w.session(ctx, func(own *watch) { own.add(ctx, req.Params.URI) })
	})
	hooks.AddAfterUnsubscribe(func(ctx context.Context, _ any, req *mcp.UnsubscribeRequest, _ *mcp.EmptyResult) {
		w.session(ctx, func(own *watch) { own.remove(req.Params.URI) })
	})
}

// listen is a subscription of 2026-07-28, which lasts as long as its request.
func (w *watches) listen(ctx context.Context, id any, want mcp.SubscriptionFilter) {
	direct, ok := ctx.Value(notifierKey{}).(notifier)
	if !ok {
		return
	}
	own := &watch{s: w.s, known: map[string]string{}, notify: func(method string, params map[string]any) error {
		params["_meta"] = map[string]any{mcp.MetaKeySubscriptionID: id}
		return direct.notify(method, params)
	}}
	if want.ResourcesListChanged {
		own.add(ctx, listPage)
	}
	for _, uri := range want.ResourceSubscriptions {
		own.add(ctx, uri)
	}
	if len(own.known) > 0 {
		w.running.Go(func() { own.run(ctx, nil) })
	}
}

// listed begins to watch the list for a client of an older revision that has read it.
func (w *watches) listed(ctx context.Context) {
	if info := mcpserver.RequestProtocolInfoFromContext(ctx); info != nil && info.Modern {
		return
	}
	w.session(ctx, func(own *watch) { own.add(ctx, listPage) })
}

// session gives the watch of the session that ctx belongs to, if it is one that can be
// told anything.
func (w *watches) session(ctx context.Context, use func(*watch)) {
	session := mcpserver.ClientSessionFromContext(ctx)
	if session == nil {
		return
	}
	id := session.SessionID()
	life := w.s.lifeOf(ctx, id)
	if life == nil {
		return
	}
	w.mu.Lock()
	own := w.of[id]
	if own == nil {
		own = &watch{s: w.s, known: map[string]string{}, notify: func(method string, params map[string]any) error {
			return w.s.mcp.SendNotificationToSpecificClient(id, method, params)
		}}
		w.of[id] = own
		// As whoever asks, and not only as long as this request.
		as, cancel := context.WithCancel(context.WithoutCancel(ctx))
		w.running.Go(func() {
			defer cancel()
			defer context.AfterFunc(life, cancel)()
			own.run(as, func() { w.mu.Lock(); defer w.mu.Unlock(); delete(w.of, id) })
		})
	}
	w.mu.Unlock()
	use(own)
}

// lifeOf is the context that ends with a session, nil for none.
func (s *Server) lifeOf(ctx context.Context, id string) context.Context {
	if life, ok := ctx.Value(lifeKey{}).(context.Context); ok {
		return life
	}
	web := s.web.Load()
	if web == nil {
		return nil
	}
	web.sessions.mu.Lock()
	defer web.sessions.mu.Unlock()
	if own := web.sessions.all[id]; own != nil {
		return own.ctx
	}
	return nil
}

// wait gives the watches of a server that has ended their time to end.
func (w *watches) wait(limit time.Duration) {
	done := make(chan struct{})
	go func() { defer close(done); w.running.Wait() }()
	select {
	case <-done:
	case <-time.After(limit):
		w.s.log.Error("watches of resources still run at the end and are left behind")
	}
}

func (o *watch) add(ctx context.Context, uri string) {
	version := o.s.version(ctx, uri)
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.known[uri]; !known && len(o.known) < maxWatched {
		o.known[uri] = version
	}
}

func (o *watch) remove(uri string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.known, uri)
}

func (o *watch) run(ctx context.Context, over func()) {
	if over != nil {
		defer over()
	}
	tick := time.NewTicker(o.s.config.WatchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if !o.s.mayHear(ctx) {
				return
			}
			o.look(ctx)
		}
	}
}

// mayHear reports whether whoever asked may still be told: a token may have been revoked.
func (s *Server) mayHear(ctx context.Context) bool {
	web := s.web.Load()
	who, ok := ctx.Value(callerKey{}).(caller)
	return web == nil || (ok && web.mayGoOn(who.principal))
}

func (o *watch) look(ctx context.Context) {
	o.mu.Lock()
	before := maps.Clone(o.known)
	o.mu.Unlock()
	for uri, old := range before {
		now := o.s.version(ctx, uri)
		if now == old || ctx.Err() != nil {
			continue
		}
		o.mu.Lock()
		_, still := o.known[uri]
		if still {
			o.known[uri] = now
		}
		o.mu.Unlock()
		if !still {
			continue
		}
		method, params := mcp.MethodNotificationResourceUpdated, map[string]any{"uri": uri}
		if uri == listPage {
			method, params = mcp.MethodNotificationResourcesListChanged, map[string]any{}
		}
		if err := o.notify(method, params); err != nil {
			o.s.log.Debug("word of a change lost", "err", err)
		}
	}
}

// version is equal as long as a resource has not changed for whoever asks. What cannot
// be seen, or is not there, has one, too.
func (s *Server) version(ctx context.Context, uri string) string {
	ctx, cancel := context.WithTimeout(ctx, s.config.CallTimeout/4)
	defer cancel()
	if uri == listPage {
		live, err := s.live(ctx)
		return fmt.Sprint(live, err)
	}
	r, values, ok := s.resourceOf(uri)
	if !ok || r.Version == nil {
		return ""
	}
	v, err := r.Version(ctx, values)
	return fmt.Sprint(v, err)
}
