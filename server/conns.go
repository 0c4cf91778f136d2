package server

import (
	"net"
	"net/http"
	"sync"
)

// conns bounds the connections of a server. One that has not asked for anything yet
// costs whoever opened it nothing: of those there are fewer, and the oldest makes room
// for a new one, so that many of them keep nobody out who asks at once.
type conns struct {
	most, mostNew int

	mu    sync.Mutex
	fresh []net.Conn // in the order in which they came
	all   map[net.Conn]bool
}

func newConns(most int) *conns {
	return &conns{most: most, mostNew: max(1, most/8), all: map[net.Conn]bool{}}
}

// changed is told by the HTTP server of each change of a connection.
func (c *conns) changed(conn net.Conn, state http.ConnState) {
	if evicted := c.update(conn, state); evicted != nil {
		_ = evicted.Close() // its own goroutine finds out
	}
}

func (c *conns) update(conn net.Conn, state http.ConnState) (evicted net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if state == http.StateNew {
		c.all[conn] = true
		c.fresh = append(c.fresh, conn)
		switch {
		case len(c.fresh) > c.mostNew:
			return c.fresh[0]
		case len(c.all) > c.most:
			return conn
		}
		return nil
	}
	for i, f := range c.fresh {
		if f == conn {
			c.fresh = append(c.fresh[:i], c.fresh[i+1:]...)
			break
		}
	}
	if state == http.StateClosed || state == http.StateHijacked {
		delete(c.all, conn)
	}
	return nil
}
