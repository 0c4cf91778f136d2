package ledger_test

import (
	"bytes"
	"errors"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a proxy does to the connections through it.
const (
	passing   int32 = iota
	cutBefore       // breaks a connection when COMMIT is sent, before the server sees it
	cutAfter        // breaks a connection when COMMIT has been answered, before the client sees it
	silent          // carries nothing any more
	refusing        // breaks all connections
)

// proxy is a network between a ledger and its server that fails when it is told to.
type proxy struct {
	to   string
	l    net.Listener
	mode atomic.Int32
	cuts atomic.Int32 // how many connections it has broken at a COMMIT

	wg    sync.WaitGroup
	mu    sync.Mutex
	conns []net.Conn
}

// throughProxy returns an address that leads through a proxy to the server of another one.
func throughProxy(t *testing.T, address string) (string, *proxy) {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{to: u.Host, l: l}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.carry(c)
		}
	})
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		p.breakAll()
		p.wg.Wait()
	})
	u.Host = l.Addr().String()
	return u.String(), p
}

func (p *proxy) breakAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close() // many are closed already
	}
	p.conns = nil
}

func (p *proxy) set(mode int32) {
	p.mode.Store(mode)
	if mode == refusing {
		p.breakAll()
	}
}

func (p *proxy) carry(client net.Conn) {
	server, err := net.Dial("tcp", p.to)
	if err != nil || p.mode.Load() == refusing {
		_ = client.Close()
		if err == nil {
			_ = server.Close()
		}
		return
	}
	p.mu.Lock()
	p.conns = append(p.conns, client, server)
	p.mu.Unlock()
	var answering atomic.Bool
	end := func() { _ = errors.Join(client.Close(), server.Close()) }
	p.wg.Go(func() {
		defer end()
		copyUntil(server, client, func(b []byte) bool {
			commit := bytes.Contains(b, []byte("COMMIT\x00"))
			switch p.mode.Load() {
			case silent:
				return true
			case cutBefore:
				if commit {
					p.cuts.Add(1)
					end()
				}
				return commit
			case cutAfter:
				answering.Store(answering.Load() || commit)
			}
			return false
		})
	})
	p.wg.Go(func() {
		defer end()
		copyUntil(client, server, func([]byte) bool {
			if answering.Load() {
				p.cuts.Add(1)
				end()
				return true
			}
			return p.mode.Load() == silent
		})
	})
}

// copyUntil copies, but not what drop keeps back.
func copyUntil(to, from net.Conn, drop func([]byte) bool) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if drop(b[:n]) {
			continue
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}
