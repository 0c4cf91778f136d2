//go:build unix

package remote_test

import (
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// proxy stands between the pool and a machine, to cut and to freeze connections.
type proxy struct {
	addr    string
	backend string
	tasks   sync.WaitGroup
	rate    atomic.Int64 // bytes a second each way; 0 is no limit
	passed  atomic.Int64 // bytes, both ways

	listener net.Listener

	mu    sync.Mutex
	down  bool
	dark  bool
	count int
	links map[*link]struct{}
}

type link struct {
	client, server net.Conn
	frozen         chan struct{}
	once           sync.Once
}

func (l *link) freeze() { l.once.Do(func() { close(l.frozen) }) }

func (l *link) close() {
	_ = l.client.Close()
	_ = l.server.Close()
}

func startProxy(t testing.TB, backend string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{addr: l.Addr().String(), backend: backend, listener: l, links: map[*link]struct{}{}}
	p.tasks.Go(p.accept)
	t.Cleanup(func() {
		p.stop()
		_ = l.Close()
		p.tasks.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.backend)
		if err != nil {
			_ = client.Close()
			continue
		}
		l := &link{client: client, server: server, frozen: make(chan struct{})}
		p.mu.Lock()
		if p.down {
			l.close()
			p.mu.Unlock()
			continue
		}
		if p.dark {
			l.freeze()
		}
		p.count++
		p.links[l] = struct{}{}
		p.mu.Unlock()
		p.tasks.Go(func() { p.copy(l, client, server) })
		p.tasks.Go(func() { p.copy(l, server, client) })
	}
}

func (p *proxy) copy(l *link, to, from net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		select {
		case <-l.frozen:
			_, _ = io.Copy(io.Discard, from) // takes all, passes nothing on, not at its end either
			err = net.ErrClosed
		default:
		}
		if rate := p.rate.Load(); rate > 0 {
			time.Sleep(time.Duration(int64(n) * int64(time.Second) / rate))
		}
		if err == nil {
			_, err = to.Write(buffer[:n])
			p.passed.Add(int64(n))
		}
		if err != nil {
			l.close()
			p.mu.Lock()
			delete(p.links, l)
			p.mu.Unlock()
			return
		}
	}
}

// accepted is how many connections there have been.
func (p *proxy) accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

// open is how many there are.
func (p *proxy) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// cut ends all connections and takes new ones. It returns when they are gone.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.close()
		delete(p.links, l)
	}
}

// freeze makes the connections that there are silent for ever.
func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.freeze()
	}
}

// darken makes the connections that there are and will be silent for ever.
func (p *proxy) darken() {
	p.mu.Lock()
	p.dark = true
	p.mu.Unlock()
	p.freeze()
}

// stop cuts all and lets nothing through. It goes on to listen, since the port would soon be another test's.
func (p *proxy) stop() {
	p.mu.Lock()
	p.down = true
	p.mu.Unlock()
	p.cut()
}

// start lets connections through again after a stop.
func (p *proxy) start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}

func ecdsaHostKey(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ecdsa")
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("no ssh-keygen here")
	}
	require.NoError(t, exec.Command(keygen, "-q", "-t", "ecdsa", "-N", "", "-f", file).Run())
	return file
}
