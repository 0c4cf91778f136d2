package lease

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/gpulease/gpulease/remote"
)

// mostForwards is how many ports of one lease a process forwards at once.
const mostForwards = 16

// Forward is a port of this computer that leads to one of a lease's machine. It lives
// in this process, until it is closed or the lease's end is decided.
type Forward struct {
	LocalAddr  string // 127.0.0.1:port
	RemotePort int
	Open       int       // connections now
	LastUsed   time.Time // when a byte last passed; zero: never
}

func forwardOf(f *remote.Forward) Forward {
	_, text, _ := net.SplitHostPort(f.RemoteAddr())
	port, _ := strconv.Atoi(text) // checked when it was opened
	s := f.Stats()
	return Forward{LocalAddr: f.LocalAddr(), RemotePort: port, Open: s.Open, LastUsed: s.Last}
}

// Forward opens a port on 127.0.0.1 of this computer, localPort or any free one for
// 0, that leads to a port of the lease's machine. One that is open already is given
// again.
func (m *Manager) Forward(ctx context.Context, id ID, localPort, remotePort int) (Forward, Lease, error) {
	l, t, err := m.usable(ctx, id)
	if err != nil {
		return Forward{}, l, err
	}
	open := m.Machine.Forwards(string(id))
	for _, f := range open {
		_, port, _ := net.SplitHostPort(f.LocalAddr())
		if got := forwardOf(f); got.RemotePort == remotePort && (localPort == 0 || port == strconv.Itoa(localPort)) {
			return got, l, nil
		}
	}
	if len(open) >= mostForwards {
		return Forward{}, l, &Error{
			Code: CodeInvalidInput, Message: fmt.Sprintf("%d ports of lease %s are forwarded already, which is the most", len(open), id), LeaseID: id,
			Next: "close one with forward_port and close true; get_lease lists them",
		}
	}
	f, err := m.Machine.Forward(ctx, t, localPort, strconv.Itoa(remotePort))
	if err != nil {
		return Forward{}, l, m.forwardError(l, localPort, err)
	}
	m.mu.Lock()
	m.forwarding[id] = true
	m.mu.Unlock()
	m.touch(ctx, id)
	return forwardOf(f), l, nil
}

func (m *Manager) forwardError(l Lease, localPort int, err error) error {
	e := m.machineError("forward the port", l, err)
	var local *net.OpError
	if errors.As(err, &local) && local.Op == "listen" {
		e.Code, e.Retryable = CodeInvalidInput, false
		e.Message, e.Next = fmt.Sprintf("the local port %d cannot be used", localPort), "leave local_port out: a free one is taken"
	}
	return e
}

// Forwards lists the ports of a lease that this process forwards, oldest first.
func (m *Manager) Forwards(id ID) []Forward {
	var list []Forward
	for _, f := range m.Machine.Forwards(string(id)) {
		list = append(list, forwardOf(f))
	}
	return list
}

// CloseForward closes what this process forwards to a port of a lease's machine, with
// every connection through it. Nothing to close is no error.
func (m *Manager) CloseForward(ctx context.Context, id ID, remotePort int) (closed []Forward, l Lease, err error) {
	if l, err = m.get(ctx, id); err != nil {
		return nil, l, err
	}
	for _, f := range m.Machine.Forwards(string(id)) {
		if was := forwardOf(f); was.RemotePort == remotePort {
			closed = append(closed, was)
			if err := f.Close(); err != nil {
				return closed, l, &Error{Code: CodeInternal, Message: "the forward could not be closed", LeaseID: id, Err: err}
			}
		}
	}
	return closed, l, nil
}

// tendForwards closes the forwards of leases that are not ready any more, whichever
// process has decided that, and records the use of those that are used.
func (r *reconciler) tendForwards(ctx context.Context, live []Lease) {
	m := r.m
	for _, id := range m.forwarded() {
		if !slices.ContainsFunc(live, func(l Lease) bool { return l.ID == id && l.State == Ready }) {
			r.task("forwards", id, m.closeForwards) // a dark connection must not hold up the pass
			continue
		}
		if slices.ContainsFunc(m.Machine.Forwards(string(id)), func(f *remote.Forward) bool { return f.InUse(touchEvery) }) {
			m.touch(ctx, id)
		}
	}
}

func (m *Manager) closeForwards(_ context.Context, id ID) error {
	for _, f := range m.Machine.Forwards(string(id)) {
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// forwarded names the leases with forwards in this process.
func (m *Manager) forwarded() []ID {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []ID
	for id := range m.forwarding {
		if len(m.Machine.Forwards(string(id))) == 0 {
			delete(m.forwarding, id)
			continue
		}
		ids = append(ids, id)
	}
	return ids
}
