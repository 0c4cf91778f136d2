package machine

import (
	"errors"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
)

// graceTime is how long a client has to log in, as sshd's LoginGraceTime.
const graceTime = 120 * time.Second

// SetRefuse makes the machine unreachable, or reachable again: open connections
// are cut and new ones are refused by the kernel. Commands run on.
func (m *Machine) SetRefuse(refuse bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || refuse == m.refusing {
		return
	}
	m.refusing = refuse
	if refuse {
		if m.listener != nil {
			m.listener.Close()
			m.listener = nil
		}
		m.cut()
		return
	}
	m.wg.Go(m.listenAgain)
}

// listenAgain tries until it has the address back. It returns after the first
// try in all but the case that somebody else has taken the port meanwhile.
func (m *Machine) listenAgain() {
	for {
		l, err := new(net.ListenConfig).Listen(m.ctx, "tcp", m.addr)
		m.mu.Lock()
		if m.refusing || m.closed || m.listener != nil {
			m.mu.Unlock()
			if err == nil {
				l.Close()
			}
			return
		}
		if err == nil {
			m.serve(l)
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
		m.logf("%s: listen again: %v", m, err)
		select {
		case <-time.After(50 * time.Millisecond):
		case <-m.ctx.Done():
			return
		}
	}
}

// SetMute makes the machine go dark, or come back: connections are accepted and
// open ones stay, but not a byte passes, and none is lost.
func (m *Machine) SetMute(mute bool) { m.gate.set(mute) }

// serve accepts connections from l. m.mu is held.
func (m *Machine) serve(l net.Listener) {
	m.listener = l
	m.wg.Go(func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // out of file descriptors, or the client has gone
				m.logf("%s: accept: %v", m, err)
				select {
				case <-time.After(5 * time.Millisecond):
				case <-m.ctx.Done():
				}
				continue
			}
			if !m.admit(c.RemoteAddr()) {
				m.logf("%s: the firewall does not let %s in", m, c.RemoteAddr())
				c.Close()
				continue
			}
			m.adopt(newGatedConn(c, m.gate))
		}
	})
}

// adopt serves a connection, unless the machine has become unreachable since it
// was accepted.
func (m *Machine) adopt(c *gatedConn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.refusing {
		c.Close()
		return
	}
	m.conns[c] = struct{}{}
	m.wg.Go(func() {
		m.connection(c)
		c.Close()
		m.mu.Lock()
		delete(m.conns, c)
		m.mu.Unlock()
	})
}

// connection logs a client in and serves what it opens, until it goes.
func (m *Machine) connection(c *gatedConn) {
	config := &ssh.ServerConfig{
		ServerVersion:     "SSH-2.0-gpulease_simulator",
		PublicKeyCallback: m.login,
	}
	m.mu.Lock()
	key := m.shownKey()
	m.mu.Unlock()
	if key == nil {
		return // as sshd, which ends at once without a host key
	}
	config.AddHostKey(key)

	grace := time.AfterFunc(graceTime, func() {
		// In the dark no byte passes, nor does the end of a connection.
		if !m.gate.shut() {
			c.Close()
		}
	})
	server, channels, requests, err := ssh.NewServerConn(c, config)
	grace.Stop()
	if err != nil {
		m.logf("%s: no login from %s: %v", m, c.RemoteAddr(), err)
		return
	}
	m.wg.Go(func() {
		// Keep-alives, forwards of remote ports, and what else a client may ask for:
		// "no" is an answer, and the one that OpenSSH gives to a keep-alive.
		for r := range requests {
			if r.WantReply {
				_ = r.Reply(false, nil)
			}
		}
	})
	client := &client{machine: m, conn: server}
	for ch := range channels {
		client.open(ch)
	}
	server.Close()
	_ = server.Wait()
}
