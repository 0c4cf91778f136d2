package lease_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// The tests whose names begin with TestIncident are about what went wrong for
// others; docs/incidents.md is their list.

// proxy stands between the cloud and us and rewrites answers.
type proxy struct {
	mu   sync.Mutex
	edit func(r *http.Request, status int, body string) (int, string)
	hits int
}

// config is a cloud behind the proxy.
func (p *proxy) config(cfg lambdatest.Config) lambdatest.Config {
	cfg.Wrap = func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			status, body := rec.Code, rec.Body.String()
			p.mu.Lock()
			edit := p.edit
			p.mu.Unlock()
			if edit != nil {
				if s, b := edit(r, status, body); s != status || b != body {
					status, body = s, b
					p.mu.Lock()
					p.hits++
					p.mu.Unlock()
				}
			}
			maps.Copy(w.Header(), rec.Header())
			w.Header().Del("Content-Length")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		})
	}
	return cfg
}

// set changes what the proxy does; nil lets everything pass.
func (p *proxy) set(edit func(r *http.Request, status int, body string) (int, string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.edit = edit
}

// edited is how many answers were changed.
func (p *proxy) edited() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hits
}

// replacing puts one text for another into the answers to calls whose path ends so.
func replacing(path, from, to string) func(*http.Request, int, string) (int, string) {
	return func(r *http.Request, status int, body string) (int, string) {
		if !strings.HasSuffix(r.URL.Path, path) {
			return status, body
		}
		return status, strings.ReplaceAll(body, from, to)
	}
}

// over lets time pass until the lease has ended.
func (k *kit) over(id lease.ID) lease.Lease {
	k.t.Helper()
	return k.untilBy(id, "over", 5*time.Second, func(l lease.Lease) bool { return l.State == lease.Ended })
}

// counted is what counts as spent: by leases, and by instances without one.
func (k *kit) counted() policy.Money {
	k.t.Helper()
	now := k.sim.Now()
	d, w, m := k.policy.p.PeriodStarts(now)
	u, err := k.db.Usage(k.t.Context(), "tester", now, lease.Periods{Day: d, Week: w, Month: m})
	if err != nil {
		k.t.Fatal(err)
	}
	return u.Account.Lifetime + u.Untracked.Lifetime
}
