package server

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	mcpserver "github.com/mark3labs/mcp-go/server"
	"golang.org/x/time/rate"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/tools"
)

// HTTP is how a server is served over HTTP. The zero value serves everybody who
// reaches it, within the default limits.
type HTTP struct {
	// Auth knows the bearer tokens. Nil, or while it requires none: everybody who
	// reaches the server may use it, as the one principal of a stdio server does.
	Auth  Auth
	OAuth *OAuth // nil: there is no issuer of tokens but us
	// Tools are a principal's own, of the same names and schemas as Config.Tools. Nil:
	// those serve all.
	Tools   func(principal string) ([]tools.Tool, error)
	Metrics http.Handler                // for /metrics, to whom has a token; nil: there are none
	Healthy func(context.Context) error // for /healthz; nil: always

	Hosts   []string // names of this server in Host, lower case, without port, beside localhost
	Origins []string // web pages that may use it, as scheme://host[:port], beside its own

	CertFile, KeyFile string // PEM; both or none

	MaxBody     int64         // bytes of a request, 0: 1 MiB
	Rate        float64       // requests a second of one principal, with bursts of ten times as many; 0: 20
	Calls       int           // calls at once of one principal, 0: 64
	Sessions    int           // of one principal, 0: 64; a further one ends the one unused for longest
	AllSessions int           // of all principals together, 0: 4096; a further one is refused, if the principal has no idle one
	SessionIdle time.Duration // 0: 30 min
	Connections int           // 0: 4096; an eighth of them may have asked for nothing yet
	HeaderTime  time.Duration // for a request's header to arrive, 0: 5 s; its body has twice that
	Quiet       time.Duration // the longest silence on a response, 0: 10 s
}

func (h HTTP) withDefaults() HTTP {
	h.MaxBody = orDefault(h.MaxBody, 1<<20)
	h.Rate = orDefault(h.Rate, 20)
	h.Calls = orDefault(h.Calls, 64)
	h.Sessions = orDefault(h.Sessions, 64)
	h.AllSessions = orDefault(h.AllSessions, 4096)
	h.SessionIdle = orDefault(h.SessionIdle, 30*time.Minute)
	h.Connections = orDefault(h.Connections, 4096)
	h.HeaderTime = orDefault(h.HeaderTime, 5*time.Second)
	h.Quiet = orDefault(h.Quiet, keepAlive)
	return h
}

// web is a server as it is served over HTTP: Streamable HTTP of all revisions at
// /mcp, and HTTP+SSE of 2024-11-05 at /sse and /message.
type web struct {
	server     *Server
	config     HTTP
	streamable *mcpserver.StreamableHTTPServer
	events     *mcpserver.SSEServer
	sessions   *sessions
	listeners  listeners
	budgets    *budgets
	routes     *http.ServeMux
	refusals   *rate.Sometimes

	toolsMu sync.Mutex
	tools   map[string]map[string]tools.Tool // by principal and name
}

func newWeb(base context.Context, s *Server, config HTTP) *web {
	config = config.withDefaults()
	w := &web{
		server: s, config: config, sessions: newSessions(base), routes: http.NewServeMux(),
		budgets: &budgets{
			perSecond: rate.Limit(config.Rate), burst: max(1, int(10*config.Rate)), calls: config.Calls, of: map[string]*budget{},
		},
		refusals: &rate.Sometimes{First: 5, Interval: time.Minute},
		tools:    map[string]map[string]tools.Tool{},
	}
	w.streamable = mcpserver.NewStreamableHTTPServer(s.mcp,
		mcpserver.WithSessionIdManagerResolver(w.sessions),
		mcpserver.WithDisableLocalhostProtection(true), // ours knows more names
		mcpserver.WithStreamableHTTPLogger(slog.New(s.log.Handler())),
	)
	w.events = mcpserver.NewSSEServer(s.mcp,
		mcpserver.WithSSEDisableLocalhostProtection(true),
		mcpserver.WithSessionIDGenerator(func(ctx context.Context, _ *http.Request) (string, error) {
			own, ok := ctx.Value(sessionKey{}).(*session)
			if !ok {
				return "", errNoSession
			}
			return own.id, nil
		}),
	)
	w.routes.HandleFunc("/healthz", w.health)
	if config.Metrics != nil {
		w.routes.HandleFunc("GET /metrics", w.known(func(to http.ResponseWriter, r *http.Request, _ caller) { config.Metrics.ServeHTTP(to, r) }))
	}
	w.routes.HandleFunc("GET "+MetadataPath, w.metadata)
	w.routes.HandleFunc("GET "+MetadataPath+"/", w.metadata)
	w.routes.HandleFunc("POST /mcp", w.known(w.postMCP))
	w.routes.HandleFunc("/mcp", w.known(w.streamMCP))
	w.routes.HandleFunc("GET /sse", w.known(w.openSSE))
	w.routes.HandleFunc("POST /message", w.known(w.postSSE))
	return w
}

func (w *web) ServeHTTP(to http.ResponseWriter, r *http.Request) {
	w.hurry(to)
	h := to.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Accel-Buffering", "no") // a proxy that collects events delays them
	if w.admits(to, r) {
		w.routes.ServeHTTP(to, r)
	}
}

func (w *web) health(to http.ResponseWriter, r *http.Request) {
	if w.config.Healthy != nil {
		if err := w.config.Healthy(r.Context()); err != nil {
			http.Error(to, "not healthy; the server's log has the cause", http.StatusServiceUnavailable)
			return
		}
	}
	h := to.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	_, _ = to.Write([]byte("ok\n"))
}

// known lets requests pass of whom it knows, at their rate, and puts who it is into
// their context. With it, whatever serves them sees that principal's leases only.
func (w *web) known(next func(http.ResponseWriter, *http.Request, caller)) http.HandlerFunc {
	return func(to http.ResponseWriter, r *http.Request) {
		who, ok := w.authenticate(to, r)
		if !ok {
			return
		}
		if wait, ok := w.budgets.allow(who.principal); !ok {
			tooMany(to, wait)
			return
		}
		ctx := context.WithValue(r.Context(), callerKey{}, who)
		if who.principal != "" {
			ctx = lease.ActAs(ctx, who.principal)
		}
		next(to, r.WithContext(ctx), who)
	}
}

// postMCP is a message of a client over Streamable HTTP.
func (w *web) postMCP(to http.ResponseWriter, r *http.Request, who caller) {
	p, ok := w.body(to, r)
	if !ok {
		return
	}
	id := r.Header.Get(mcpserver.HeaderKeySessionID)
	switch {
	case p.modern(r):
		if p.Method == "notifications/cancelled" {
			// A client of this revision cancels by closing its stream. To the library all of
			// them are one session, so that a number which everybody counts from 1 would end
			// somebody else's call.
			to.WriteHeader(http.StatusAccepted)
			return
		}
	case p.Method == "initialize":
		kept := w.makeRoom(to, who)
		if kept == nil {
			return
		}
		defer kept.leave()
		r = r.WithContext(context.WithValue(r.Context(), placeKey{}, kept))
	default:
		_, done, ok := w.session(to, id, who)
		if !ok {
			return
		}
		defer done()
		if w.server.questions.answer(id, p.raw) {
			to.WriteHeader(http.StatusAccepted)
			return
		}
	}
	r, done, ok := w.listens(to, r, p, who)
	if !ok {
		return
	}
	defer done()
	w.serveStream(to, r, w.streamable)
}

// streamMCP is what else a client with a session may ask: to listen, or to end it.
func (w *web) streamMCP(to http.ResponseWriter, r *http.Request, who caller) {
	if (post{}).modern(r) || (r.Method != http.MethodGet && r.Method != http.MethodDelete) {
		to.Header().Set("Allow", http.MethodPost)
		http.Error(to, "only POST", http.StatusMethodNotAllowed)
		return
	}
	own, done, ok := w.session(to, r.Header.Get(mcpserver.HeaderKeySessionID), who)
	if !ok {
		return
	}
	defer done()
	if r.Method == http.MethodGet {
		deaf, ok := w.sessions.listen(own)
		if !ok {
			http.Error(to, "this session has enough event streams open", http.StatusTooManyRequests)
			return
		}
		defer deaf()
		takeTime(to)
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(own.ctx, cancel)()
		r = r.WithContext(ctx)
	}
	w.serveStream(to, r, w.streamable)
}

// session is the one that the request names. It answers by itself where there is
// none of this principal.
func (w *web) session(to http.ResponseWriter, id string, who caller) (*session, func(), bool) {
	if id == "" {
		http.Error(to, "the header Mcp-Session-Id is missing; initialize begins a session", http.StatusBadRequest)
		return nil, nil, false
	}
	s, done, ok := w.sessions.use(id, who.principal)
	if !ok {
		http.Error(to, "there is no such session; initialize begins a new one", http.StatusNotFound)
	}
	return s, done, ok
}

// openSSE is the one event stream of a client of 2024-11-05. Its session ends with it.
func (w *web) openSSE(to http.ResponseWriter, r *http.Request, who caller) {
	kept := w.makeRoom(to, who)
	if kept == nil {
		return
	}
	own := w.sessions.add(who.principal, kept)
	defer w.sessions.remove(own.id)
	_, done, ok := w.sessions.use(own.id, who.principal)
	if !ok {
		return
	}
	defer done()
	takeTime(to)
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), sessionKey{}, own))
	defer cancel()
	defer context.AfterFunc(own.ctx, cancel)()
	w.serveStream(to, r.WithContext(ctx), w.events.SSEHandler())
}

// postSSE is a message of such a client, whose answer comes on its event stream.
func (w *web) postSSE(to http.ResponseWriter, r *http.Request, who caller) {
	own, done, ok := w.sessions.use(r.URL.Query().Get("sessionId"), who.principal)
	if !ok {
		http.Error(to, "there is no such session; GET /sse begins one", http.StatusNotFound)
		return
	}
	defer done()
	p, ok := w.body(to, r)
	if !ok {
		return
	}
	if p.Method == methodListen { // nothing would count these
		http.Error(to, "this revision listens on the stream that it has; "+methodListen+" is for /mcp", http.StatusBadRequest)
		return
	}
	w.events.MessageHandler().ServeHTTP(to, r.WithContext(context.WithValue(r.Context(), sessionKey{}, own)))
}

type sessionKey struct{}

func (w *web) serveStream(to http.ResponseWriter, r *http.Request, h http.Handler) {
	s := newStream(to, r, w.config.Quiet)
	defer s.finish()
	if r.Method == http.MethodPost {
		r = r.WithContext(context.WithValue(r.Context(), notifierKey{}, notifier(s)))
	}
	h.ServeHTTP(s, r)
}

// makeRoom ends sessions of a principal until another one has a place. It answers by
// itself where there is none.
func (w *web) makeRoom(to http.ResponseWriter, who caller) *place {
	surplus, kept := w.sessions.room(who.principal, w.config.Sessions, w.config.AllSessions)
	for _, id := range surplus {
		w.endSession(id)
	}
	if kept == nil {
		w.refusals.Do(func() {
			w.server.log.Warn("a session was refused: there are as many as there may be", "sessions", w.config.AllSessions)
		})
		to.Header().Set("Retry-After", "60")
		http.Error(to, fmt.Sprintf("this server has all the sessions that it may have (%d, --max-sessions); one ends when its client ends it, or after %s without use",
			w.config.AllSessions, w.config.SessionIdle), http.StatusServiceUnavailable)
	}
	return kept
}

// endSession ends a session as its client would, for that the library forgets it, too.
func (w *web) endSession(id string) {
	w.sessions.remove(id)
	r := &http.Request{
		Method: http.MethodDelete, URL: &url.URL{Path: "/mcp"}, Header: http.Header{mcpserver.HeaderKeySessionID: {id}}, Body: http.NoBody,
	}
	w.streamable.ServeHTTP(nowhere{http.Header{}}, r)
}

// nowhere is the way back of a request that nobody made.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n nowhere) WriteHeader(int)             {}

func (w *web) forgetTools() {
	w.toolsMu.Lock()
	defer w.toolsMu.Unlock()
	maps.DeleteFunc(w.tools, func(principal string, _ map[string]tools.Tool) bool { return !w.mayGoOn(principal) })
}

// toolsOf are a principal's own tools by name. They are made once.
func (w *web) toolsOf(principal string) (map[string]tools.Tool, error) {
	w.toolsMu.Lock()
	defer w.toolsMu.Unlock()
	if own := w.tools[principal]; own != nil {
		return own, nil
	}
	all, err := w.config.Tools(principal)
	if err != nil {
		return nil, fmt.Errorf("make the tools of %s: %w", strings.ToValidUTF8(principal, "?"), err)
	}
	own := make(map[string]tools.Tool, len(all))
	for _, t := range all {
		own[t.Name] = t
	}
	w.tools[principal] = own
	return own, nil
}
