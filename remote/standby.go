package remote

import (
	"context"
	"sync"
	"sync/atomic"
)

// standby is a script that has been started before it is known what it is to do. sshd lets input come only a round trip after
// the start, and a start takes time by itself: both pass while the machine still says what it has.
//
// While it stands by it holds a slot and a session. Two rules keep everything from waiting for everything: it takes neither
// where it would have to wait for it, and leaves one slot to those that wait before they hold one.
type standby struct {
	in     *pipe // its input
	cancel context.CancelFunc
	begun  chan struct{} // closed when it has a session
	ended  chan struct{}
	err    error // of it, when it has ended

	of    *conn
	state atomic.Int32 // idle, working, over
}

const (
	idle = iota
	working
	over
)

// work is to be called before it is told what to do.
func (s *standby) work() {
	if s.state.CompareAndSwap(idle, working) {
		s.of.busy.Add(1)
	}
}

// standBy starts run, which is to run a script in a slot that it has, and to call begun when it has a session; nil if there
// is no slot to spare.
func (n *conn) standBy(ctx context.Context, run func(ctx context.Context, in *pipe, begun func()) error) *standby {
	if n.near() || len(n.stock) == 0 && n.crowded() || !n.scripts.Load() || !n.reserve() {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &standby{of: n, in: newPipe(streamLimit), cancel: cancel, begun: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		defer cancel()
		s.err = run(ctx, s.in, func() { close(s.begun) })
		if s.state.Swap(over) == working {
			n.busy.Add(-1)
		}
		s.in.refuse(errNotTaken)
	}()
	return s
}

// reserve takes a slot for a transfer if another is free, too.
func (n *conn) reserve() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.waiting.Load() > 0 || len(n.bulk)+2 > cap(n.bulk) {
		return false
	}
	select {
	case n.bulk <- struct{}{}:
		return true
	default:
		return false
	}
}

// callAnd makes a call, and runs meanwhile when the call has its session, or when it is clear that it never will.
func (n *conn) callAnd(ctx context.Context, r request, meanwhile func()) (reply, error) {
	begun := make(chan struct{})
	r.begun = sync.OnceFunc(func() { close(begun) })
	done := make(chan struct{})
	var answer reply
	var err error
	go func() {
		defer close(done)
		defer r.begun()
		answer, err = n.call(ctx, r)
	}()
	<-begun
	meanwhile()
	<-done
	return answer, err
}

// ready waits until it has a session, and reports whether it has one: the server may allow few.
func (s *standby) ready() bool {
	select {
	case <-s.begun:
		return true
	case <-s.ended:
		return false
	}
}

// end lets the script come to its end and waits for it.
func (s *standby) end() error {
	s.in.close(nil)
	<-s.ended
	return s.err
}

// drop ends it as it is.
func (s *standby) drop() {
	s.cancel()
	<-s.ended
}
