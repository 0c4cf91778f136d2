package server

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/gpulease/gpulease/lease"
)

// Auth knows who a bearer token belongs to. Its methods are called for each
// request, from many goroutines.
type Auth interface {
	// Required reports whether a request needs a token. Once it did, it must not
	// stop to do so while the server runs.
	Required() (bool, error)
	// Authenticate is the principal of a token; ok is false for nobody's. It returns
	// ErrScope for one that was not given for this server's use.
	Authenticate(ctx context.Context, token string) (principal string, ok bool, err error)
	// Has reports whether a principal may go on: streams are open for long.
	Has(principal string) (bool, error)
}

// ErrScope: a token of an external issuer lacks the scope that is needed here.
var ErrScope = errors.New("the token lacks the scope")

// OAuth tells clients where they get a token.
type OAuth struct {
	Metadata    any    // of the protected resource (RFC 9728), as JSON
	MetadataURL string // where clients find it
	Scope       string // that a token needs, "" for none
}

// MetadataPath is where the metadata is served, whatever path follows.
const MetadataPath = "/.well-known/oauth-protected-resource"

// challenge is what a client is told that has no good token, and why.
func (w *web) challenge(code string) string {
	text := `Bearer realm="gpulease"`
	if code != "" {
		text += `, error="` + code + `"`
	}
	if o := w.config.OAuth; o != nil {
		text += `, resource_metadata="` + o.MetadataURL + `"`
		if o.Scope != "" {
			text += `, scope="` + o.Scope + `"`
		}
	}
	return text
}

// metadata says to everybody where a token is to be had.
func (w *web) metadata(to http.ResponseWriter, _ *http.Request) {
	if w.config.OAuth == nil {
		http.Error(to, "this server has tokens of its own only", http.StatusNotFound)
		return
	}
	to.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(to).Encode(w.config.OAuth.Metadata) // a client that is gone
}

// caller is who a request over HTTP comes from.
type caller struct {
	principal string // "" where no token is needed
}

type callerKey struct{}

// authenticate finds out who asks. It answers by itself where nobody does who may.
func (w *web) authenticate(to http.ResponseWriter, r *http.Request) (caller, bool) {
	if w.config.Auth == nil {
		return caller{}, true
	}
	needed, err := w.config.Auth.Required()
	if err == nil && !needed {
		return caller{}, true
	}
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	problem := ""
	if err == nil && strings.EqualFold(scheme, "Bearer") && secret != "" {
		principal, ok, err := w.config.Auth.Authenticate(r.Context(), strings.TrimSpace(secret))
		switch {
		case errors.Is(err, ErrScope):
			to.Header().Set("WWW-Authenticate", w.challenge("insufficient_scope"))
			http.Error(to, "the token lacks the scope that is needed here", http.StatusForbidden)
			return caller{}, false
		case err != nil:
			return w.unreadable(to, err)
		case ok && principal != "":
			return caller{principal}, true
		}
		problem = "invalid_token"
		w.refusals.Do(func() { w.server.log.Warn("a bearer token that nobody has was refused", "from", r.RemoteAddr) })
	}
	if err != nil {
		return w.unreadable(to, err)
	}
	to.Header().Set("WWW-Authenticate", w.challenge(problem))
	text := "a bearer token is needed: gpulease token create NAME makes one"
	if problem != "" {
		text = "this bearer token is not known here, or has ended: gpulease token create NAME --replace makes a new one"
	}
	http.Error(to, text, http.StatusUnauthorized)
	return caller{}, false
}

// unreadable lets nobody in while it cannot be told who may.
func (w *web) unreadable(to http.ResponseWriter, err error) (caller, bool) {
	w.refusals.Do(func() { w.server.log.Error("who may come in cannot be told", "err", w.server.redact(err.Error())) })
	http.Error(to, "who may come in cannot be told; the server's log has the cause", http.StatusServiceUnavailable)
	return caller{}, false
}

// budgets bound what one principal asks of the server.
type budgets struct {
	perSecond rate.Limit
	burst     int
	calls     int // at once

	mu sync.Mutex
	of map[string]*budget // by principal
}

type budget struct {
	requests *rate.Limiter
	running  int
}

func (b *budgets) get(principal string) *budget {
	own := b.of[principal]
	if own == nil {
		own = &budget{requests: rate.NewLimiter(b.perSecond, b.burst)}
		b.of[principal] = own
	}
	return own
}

// allow takes one request from the principal's rate, or says how long to wait.
func (b *budgets) allow(principal string) (wait time.Duration, ok bool) {
	b.mu.Lock()
	own := b.get(principal).requests
	b.mu.Unlock()
	r := own.Reserve()
	if wait = r.Delay(); wait > 0 {
		r.Cancel()
		return wait, false
	}
	return 0, true
}

// enter counts a call of the principal's until done is called.
func (b *budgets) enter(principal string) (done func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	own := b.get(principal)
	if own.running >= b.calls {
		return nil, &lease.Error{
			Code: lease.CodeRateLimited, Message: "too many calls of yours run at once: " + strconv.Itoa(b.calls), Retryable: true,
			Next: "wait for some of them to be answered, then call again; nothing was done",
		}
	}
	own.running++
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		own.running--
	}, nil
}

// forget drops what is kept of principals who are gone and run nothing.
func (b *budgets) forget(may func(principal string) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.of, func(principal string, own *budget) bool { return own.running == 0 && !may(principal) })
}

// tooMany answers a request over the rate.
func tooMany(to http.ResponseWriter, wait time.Duration) {
	to.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
	http.Error(to, "too many requests of this principal", http.StatusTooManyRequests)
}
