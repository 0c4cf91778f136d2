package machine

import (
	"net"
	"sync"
)

// gate stops all traffic of the machine while it is shut, without closing
// anything: the other side sees a network that has gone dark.
type gate struct {
	mu   sync.Mutex
	open chan struct{} // closed while traffic flows
}

func newGate() *gate {
	g := &gate{open: make(chan struct{})}
	close(g.open)
	return g
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
		if shut {
			g.open = make(chan struct{})
		}
	default:
		if !shut {
			close(g.open)
		}
	}
}

func (g *gate) now() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

func (g *gate) shut() bool {
	select {
	case <-g.now():
		return false
	default:
		return true
	}
}

// gatedConn is a connection whose bytes pass only while the gate is open.
type gatedConn struct {
	net.Conn
	gate  *gate
	done  chan struct{}
	close sync.Once
}

func newGatedConn(c net.Conn, g *gate) *gatedConn {
	return &gatedConn{Conn: c, gate: g, done: make(chan struct{})}
}

func (c *gatedConn) wait() error {
	for {
		open := c.gate.now()
		select {
		case <-open:
			// It may have been shut again since.
			if !c.gate.shut() {
				return nil
			}
		case <-c.done:
			return net.ErrClosed
		}
	}
}

// Read holds back what has arrived until the gate is open.
func (c *gatedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if werr := c.wait(); werr != nil {
		return 0, werr
	}
	return n, err
}

func (c *gatedConn) Write(b []byte) (int, error) {
	if err := c.wait(); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *gatedConn) Close() error {
	c.close.Do(func() { close(c.done) })
	return c.Conn.Close()
}
