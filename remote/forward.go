package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// mostForwarded is how many connections one forward carries at once. OpenSSH has no limit of its own for these.
const mostForwarded = 64

// Forward is a port of this computer that leads to one of the machine. It listens on 127.0.0.1 only, and lives until
// it is closed, or its pool is, or the pool forgets the machine. Safe for concurrent use.
type Forward struct {
	pool     *Pool
	target   Target
	remote   string
	listener net.Listener
	ctx      context.Context // ends at Close
	cancel   context.CancelFunc
	slots    chan struct{}
	tasks    sync.WaitGroup

	open     atomic.Int64
	total    atomic.Int64
	refused  atomic.Int64
	sent     atomic.Int64
	received atomic.Int64
	moved    atomic.Int64 // wall time, unix nanoseconds, at which a byte last passed
}

// ForwardStats are what a forward has carried since it was opened.
type ForwardStats struct {
	Open     int       // connections now
	Total    int64     // connections that reached the machine
	Refused  int64     // connections closed at once: nothing listens there, the machine is away, or too many at a time
	Sent     int64     // bytes to the machine
	Received int64     // bytes from it
	Last     time.Time // when a byte last passed, either way; zero: never
}

// Forward opens a local port that leads to remoteAddr ("127.0.0.1:8888", "localhost:8888" or "8888") on the machine.
// localPort 0 takes a free one. Other hosts than the machine itself are [ErrInvalid]. ctx is for the opening only.
//
// Each local connection is one channel of the machine's kept connection. When that breaks, they are closed; new ones
// dial again. A port on which nothing listens yet is no error here: connections to it are closed.
func (p *Pool) Forward(ctx context.Context, t Target, localPort int, remoteAddr string) (*Forward, error) {
	to, err := loopback(remoteAddr)
	if err != nil {
		return nil, err
	}
	if localPort < 0 || localPort > 65535 {
		return nil, invalid("local port %d: 0 to 65535", localPort)
	}
	if err := p.with(ctx, t, func(*conn) error { return nil }); err != nil {
		return nil, fmt.Errorf("forward to %s: %w", remoteAddr, err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(localPort)))
	if err != nil {
		return nil, fmt.Errorf("forward to %s: %w", remoteAddr, err)
	}
	f := &Forward{pool: p, target: t, remote: to, listener: l, slots: make(chan struct{}, mostForwarded)}
	f.ctx, f.cancel = context.WithCancel(p.ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		f.end()
		return nil, ErrClosed
	}
	p.forwards = append(p.forwards, f)
	f.tasks.Go(f.accept)
	p.tasks.Go(f.tasks.Wait)
	return f, nil
}

// loopback reads an address of the machine itself.
func loopback(addr string) (string, error) {
	if !strings.Contains(addr, ":") {
		addr = "127.0.0.1:" + addr
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", invalid("remote address %q: %v", addr, err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", invalid("remote address %q: port 1 to 65535", addr)
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return "", invalid("remote address %q: only ports of the machine itself, on localhost, can be forwarded", addr)
	}
	return net.JoinHostPort(host, port), nil
}

// Forwards lists the open forwards to a machine, in the order of their opening.
func (p *Pool) Forwards(key string) []*Forward {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []*Forward
	for _, f := range p.forwards {
		if f.target.Key == key {
			list = append(list, f)
		}
	}
	return list
}

// LocalAddr is "127.0.0.1:port".
func (f *Forward) LocalAddr() string { return f.listener.Addr().String() }

// RemoteAddr is the address on the machine.
func (f *Forward) RemoteAddr() string { return f.remote }

// Stats are the counts up to now.
func (f *Forward) Stats() ForwardStats {
	s := ForwardStats{
		Open: int(f.open.Load()), Total: f.total.Load(), Refused: f.refused.Load(),
		Sent: f.sent.Load(), Received: f.received.Load(),
	}
	if at := f.moved.Load(); at != 0 {
		s.Last = time.Unix(0, at)
	}
	return s
}

// InUse reports whether there is a connection now, or bytes have passed within the window.
func (f *Forward) InUse(window time.Duration) bool {
	return f.open.Load() > 0 || f.pool.config.Now().UnixNano()-f.moved.Load() < int64(window)
}

// Close closes the port and every connection through it, and returns when they are gone. Again is no error.
func (f *Forward) Close() error {
	f.pool.mu.Lock()
	f.pool.forwards = slices.DeleteFunc(f.pool.forwards, func(o *Forward) bool { return o == f })
	f.pool.mu.Unlock()
	f.end()
	f.tasks.Wait()
	return nil
}

// end makes everything of the forward come to its end. It does not wait.
func (f *Forward) end() {
	f.cancel()
	_ = f.listener.Close()
}

func (f *Forward) accept() {
	defer f.end()
	for {
		local, err := f.listener.Accept()
		if f.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			if err == nil {
				_ = local.Close()
			}
			return
		}
		if err != nil { // out of file descriptors, or the client has gone
			select {
			case <-time.After(10 * time.Millisecond):
			case <-f.ctx.Done():
			}
			continue
		}
		select {
		case f.slots <- struct{}{}:
			f.tasks.Go(func() {
				f.carry(local)
				<-f.slots
			})
		default:
			f.refused.Add(1)
			_ = local.Close()
		}
	}
}

// carry joins a local connection to one of the machine until both are done, or one of the ways there breaks.
func (f *Forward) carry(local net.Conn) {
	defer func() { _ = local.Close() }()
	var far net.Conn
	var over *conn
	err := f.pool.with(f.ctx, f.target, func(n *conn) (err error) {
		over = n
		far, err = n.dialTCP(f.ctx, f.remote)
		return err
	})
	if err != nil {
		f.refused.Add(1)
		return
	}
	f.total.Add(1)
	f.open.Add(1)
	defer f.open.Add(-1)
	defer func() { _ = far.Close() }()
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-f.ctx.Done():
		case <-over.gone:
		case <-done:
			return
		}
		_ = local.Close()
		_ = far.Close()
	})
	var ways sync.WaitGroup
	ways.Go(func() { f.copy(far, local, &f.sent) })
	ways.Go(func() { f.copy(local, far, &f.received) })
	ways.Wait()
	close(done)
	watch.Wait()
}

// copy carries one way. The end of it is passed on as such: the other way may go on.
func (f *Forward) copy(to, from net.Conn, count *atomic.Int64) {
	_, err := io.Copy(counting{f, to, count}, onlyReader{from})
	if half, ok := to.(interface{ CloseWrite() error }); ok && err == nil && half.CloseWrite() == nil {
		return
	}
	_ = to.Close()
	_ = from.Close()
}

// onlyReader hides what else a connection can do, so that io.Copy goes through counting.
type onlyReader struct{ io.Reader }

type counting struct {
	f     *Forward
	to    io.Writer
	count *atomic.Int64
}

func (c counting) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.count.Add(int64(n))
	c.f.moved.Store(c.f.pool.config.Now().UnixNano())
	return n, err
}

// errRefused says that the machine could not be reached at that port.
var errRefused = errors.New("nothing listens there")

// dialTCP connects to an address as the machine sees it. When ctx ends it returns at once; what is still opened then is
// closed.
func (n *conn) dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	type result struct {
		c   net.Conn
		err error
	}
	done := make(chan result)
	if !n.spawn(func() {
		c, err := n.client.Dial("tcp", addr)
		select {
		case done <- result{c, err}:
		case <-ctx.Done():
			if err == nil {
				_ = c.Close()
			}
		}
	}) {
		return nil, n.lost(nil)
	}
	select {
	case r := <-done:
		var refused *ssh.OpenChannelError
		switch {
		case r.err == nil:
			n.touch()
			return r.c, nil
		case errors.As(r.err, &refused):
			n.touch()
			return nil, fmt.Errorf("%s: %w: %w", addr, errRefused, r.err)
		}
		n.close()
		return nil, n.lost(r.err)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
