package server

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	mcpserver "github.com/mark3labs/mcp-go/server"
)

// session is a client's of a revision that has them. It belongs to the principal who
// began it; for all others it does not exist.
type session struct {
	id        string
	principal string
	ctx       context.Context // its event streams and the calls on them end with it
	end       context.CancelFunc

	// Of the table's mutex.
	seen time.Time
	open int // requests and streams under way
	ears int // of them, event streams
}

// sessions is the table of them. The library's own takes every well-formed name for
// one, and asks nobody whose it is.
type sessions struct {
	base   context.Context
	mu     sync.Mutex
	all    map[string]*session
	coming map[string]int // those that begin, by principal
}

// place is kept for a session that begins.
type place struct {
	table     *sessions
	principal string
	given     bool // up, or to the session
}

type placeKey struct{}

// leave gives the place up, where no session has come. Calling it again is fine.
func (p *place) leave() {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	p.give()
}

func (p *place) give() {
	if p == nil || p.given {
		return
	}
	p.given = true
	if p.table.coming[p.principal]--; p.table.coming[p.principal] == 0 {
		delete(p.table.coming, p.principal)
	}
}

// maxStreams is how many event streams one session may have open.
const maxStreams = 4

func newSessions(base context.Context) *sessions {
	return &sessions{base: base, all: map[string]*session{}, coming: map[string]int{}}
}

// add begins a session in its place; nil: none was kept for it.
func (t *sessions) add(principal string, kept *place) *session {
	ctx, end := context.WithCancel(t.base)
	s := &session{id: rand.Text(), principal: principal, ctx: ctx, end: end, seen: time.Now()}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all[s.id] = s
	kept.give()
	return s
}

// use takes a session for a request, until done is called.
func (t *sessions) use(id, principal string) (s *session, done func(), ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s = t.all[id]
	if s == nil || s.principal != principal {
		return nil, nil, false
	}
	s.open++
	return s, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		s.open--
		s.seen = time.Now()
	}, true
}

// listen counts an event stream of a session until done is called.
func (t *sessions) listen(s *session) (done func(), ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.ears >= maxStreams {
		return nil, false
	}
	s.ears++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		s.ears--
	}, true
}

// remove forgets a session and ends what is open in it.
func (t *sessions) remove(id string) {
	t.mu.Lock()
	s := t.all[id]
	delete(t.all, id)
	t.mu.Unlock()
	if s != nil {
		s.end()
	}
}

// room keeps a place for a session that begins, among most of its principal and all of
// everybody; it is nil where there is none. surplus are those that its principal has to lose for
// it: first those that nothing is open in, then those unused for longest. So a client
// that never says goodbye locks nobody out. Where all are taken, only an idle one of the
// same principal makes room: nobody loses a session to another.
func (t *sessions) room(principal string, most, all int) (surplus []string, kept *place) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var own []*session
	for _, s := range t.all {
		if s.principal == principal {
			own = append(own, s)
		}
	}
	slices.SortFunc(own, func(a, b *session) int {
		if (a.open == 0) != (b.open == 0) {
			if a.open == 0 {
				return -1
			}
			return 1
		}
		return a.seen.Compare(b.seen)
	})
	for len(own) > 0 && (len(own)+t.coming[principal] >= most || (t.taken()-len(surplus) >= all && own[0].open == 0)) {
		surplus, own = append(surplus, own[0].id), own[1:]
	}
	if t.taken()-len(surplus) >= all {
		return surplus, nil
	}
	t.coming[principal]++
	return surplus, &place{table: t, principal: principal}
}

// taken is how many there are, with those that begin.
func (t *sessions) taken() int {
	n := len(t.all)
	for _, coming := range t.coming {
		n += coming
	}
	return n
}

// over are the sessions that were not used for so long, and those of principals who
// may not go on.
func (t *sessions) over(now time.Time, idle time.Duration, may func(principal string) bool) (ids []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, s := range t.all {
		if (s.open == 0 && now.Sub(s.seen) > idle) || !may(s.principal) {
			ids = append(ids, id)
		}
	}
	return ids
}

// Sessions is how many a server has over HTTP.
func (s *Server) Sessions() int {
	w := s.web.Load()
	if w == nil {
		return 0
	}
	w.sessions.mu.Lock()
	defer w.sessions.mu.Unlock()
	return len(w.sessions.all)
}

// manager is the table as the library asks it, for one request.
type manager struct {
	table     *sessions
	principal string
	any       bool // it asks for itself and not for a request
	kept      *place
}

// ResolveSessionIdManager has its name from the library.
func (t *sessions) ResolveSessionIdManager(r *http.Request) mcpserver.SessionIdManager {
	m := manager{table: t, any: r == nil}
	if r != nil {
		who, _ := r.Context().Value(callerKey{}).(caller)
		m.principal = who.principal
		m.kept, _ = r.Context().Value(placeKey{}).(*place)
	}
	return m
}

func (m manager) Generate() string { return m.table.add(m.principal, m.kept).id }

var errNoSession = errors.New("there is no such session")

func (m manager) Validate(id string) (isTerminated bool, err error) {
	_, done, ok := m.table.use(id, m.principal)
	if !ok {
		return false, errNoSession
	}
	done()
	return false, nil
}

func (m manager) Terminate(id string) (isNotAllowed bool, err error) {
	if _, err := m.Validate(id); err == nil || m.any {
		m.table.remove(id)
	}
	return false, nil
}
