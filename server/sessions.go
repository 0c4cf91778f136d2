package server

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
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
	base context.Context
	mu   sync.Mutex
	all  map[string]*session
}

// maxStreams is how many event streams one session may have open.
const maxStreams = 4

func newSessions(base context.Context) *sessions {
	return &sessions{base: base, all: map[string]*session{}}
}

func (t *sessions) add(principal string) *session {
	ctx, end := context.WithCancel(t.base)
	s := &session{id: rand.Text(), principal: principal, ctx: ctx, end: end, seen: time.Now()}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all[s.id] = s
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

// surplus are the sessions that a principal has to lose to have fewer than most:
// first those that nothing is open in, then those unused for longest. So a client
// that never says goodbye locks nobody out.
func (t *sessions) surplus(principal string, most int) (ids []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var own []*session
	for _, s := range t.all {
		if s.principal == principal {
			own = append(own, s)
		}
	}
	for len(own) >= most {
		worst := 0
		for i, s := range own {
			if w := own[worst]; (s.open == 0) != (w.open == 0) && s.open == 0 || (s.open == 0) == (w.open == 0) && s.seen.Before(w.seen) {
				worst = i
			}
		}
		ids = append(ids, own[worst].id)
		own[worst] = own[len(own)-1]
		own = own[:len(own)-1]
	}
	return ids
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
}

// ResolveSessionIdManager has its name from the library.
func (t *sessions) ResolveSessionIdManager(r *http.Request) mcpserver.SessionIdManager {
	m := manager{table: t, any: r == nil}
	if r != nil {
		who, _ := r.Context().Value(callerKey{}).(caller)
		m.principal = who.principal
	}
	return m
}

func (m manager) Generate() string { return m.table.add(m.principal).id }

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
