package server

import (
	"net"
	"net/http"
	"slices"
	"sync"
)

// conns bounds the connections of a server. One that asks for nothing, yet or any
// more, costs whoever opened it nothing: it makes room for a new one, the oldest
// first, so that many of them keep nobody out who asks at once.
type conns struct {
	most, mostNew int

	mu    sync.Mutex
	state map[net.Conn]http.ConnState
	fresh []net.Conn // that have asked for nothing yet, oldest first
	idle  []net.Conn // that have been answered, oldest first
}

func newConns(most int) *conns {
	return &conns{most: most, mostNew: max(1, most/8), state: map[net.Conn]http.ConnState{}}
}

// changed is told by the HTTP server of each change of a connection.
func (c *conns) changed(conn net.Conn, state http.ConnState) {
	if evicted := c.update(conn, state); evicted != nil {
		_ = evicted.Close() // the server finds out, and tells us
	}
}

func (c *conns) update(conn net.Conn, state http.ConnState) (evicted net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave(conn)
	switch state {
	case http.StateClosed, http.StateHijacked:
		return nil
	case http.StateIdle:
		c.idle = append(c.idle, conn)
	case http.StateNew:
		c.fresh = append(c.fresh, conn)
	}
	c.state[conn] = state
	switch {
	case state != http.StateNew:
		return nil
	case len(c.fresh) > c.mostNew:
		evicted = c.fresh[0]
	case len(c.state) <= c.most:
		return nil
	case len(c.idle) > 0:
		evicted = c.idle[0]
	default:
		evicted = c.fresh[0] // at least the one that has just come
	}
	c.leave(evicted)
	return evicted
}

func (c *conns) leave(conn net.Conn) {
	switch c.state[conn] {
	case http.StateNew:
		c.fresh = slices.DeleteFunc(c.fresh, func(x net.Conn) bool { return x == conn })
	case http.StateIdle:
		c.idle = slices.DeleteFunc(c.idle, func(x net.Conn) bool { return x == conn })
	}
	delete(c.state, conn)
}
