package remote

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// conn is one live connection. It owns every goroutine that works on it; wait returns when all have ended.
type conn struct {
	target Target
	client *ssh.Client
	slots  chan struct{} // of commands
	bulk   chan struct{} // of transfers, so that no command waits for one
	ahead  chan struct{} // of transfers, the one whose large file is joined while it comes
	now    func() time.Time
	within time.Duration // a shorter round trip is a near one
	gone   chan struct{} // closed when the connection is
	spare  chan opened   // a session that is open already
	stock  chan opened   // and some for the streams of a transfer
	ready  chan *ready   // a shell on the machine that waits for a job

	opening atomic.Bool  // the next spare session
	warming atomic.Bool  // the next ready shell
	misses  atomic.Int32 // ready shells in a row that were of no use
	waiting atomic.Int32 // transfers that wait for a slot
	busy    atomic.Int32 // that carry something, and for which somebody waits
	scripts atomic.Bool  // files.sh has been met on the machine
	pushed  sync.Map     // directories on the machine to which a push has come to its end
	trip    atomic.Int64 // the shortest round trip so far, in nanoseconds; 0: not known
	heard   atomic.Int64 // wall time, unix nanoseconds, at which the machine last answered

	mu     sync.Mutex
	ending bool
	tasks  sync.WaitGroup
}

func newConn(t Target, client *ssh.Client, c Config) *conn {
	n := &conn{
		target: t,
		client: client,
		slots:  make(chan struct{}, c.MaxSessions),
		bulk:   make(chan struct{}, bulkStreams+1),
		ahead:  make(chan struct{}, 1),
		now:    c.Now,
		within: c.Near,
		gone:   make(chan struct{}),
		spare:  make(chan opened, 1),
		stock:  make(chan opened, bulkStreams+1),
		ready:  make(chan *ready, 1),
	}
	n.touch()
	n.tasks.Go(func() {
		_ = client.Wait()
		n.mu.Lock()
		n.ending = true // nothing may be spawned once the last task can have ended
		n.mu.Unlock()
		close(n.gone)
	})
	n.tasks.Go(func() {
		for range 3 { // the first ones may meet a machine that is still busy with the login
			n.ping(c.KeepaliveTimeout)
		}
	})
	n.tasks.Go(func() { n.keepalive(c.Keepalive, c.KeepaliveTimeout) })
	return n
}

// spawn runs f in a goroutine of the connection; false when the connection is on its way out.
func (n *conn) spawn(f func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ending {
		return false
	}
	n.tasks.Go(f)
	return true
}

// close cuts the connection, which frees whatever blocks on it. It does not wait.
func (n *conn) close() {
	n.mu.Lock()
	n.ending = true
	n.mu.Unlock()
	_ = n.client.Close()
}

func (n *conn) wait() { n.tasks.Wait() }

func (n *conn) alive() bool {
	select {
	case <-n.gone:
		return false
	default:
		n.mu.Lock()
		defer n.mu.Unlock()
		return !n.ending
	}
}

func (n *conn) touch() { n.heard.Store(n.now().UnixNano()) }

// quiet is how long the machine has not been heard, in wall time: a laptop's sleep counts.
func (n *conn) quiet() time.Duration {
	return time.Duration(n.now().UnixNano() - n.heard.Load())
}

// ping asks for any answer and waits for it no longer than timeout. The request itself may block for ever on a
// dark connection; closing the connection ends it.
func (n *conn) ping(timeout time.Duration) bool {
	answer := make(chan error, 1)
	asked := n.now()
	if !n.spawn(func() {
		begun := time.Now()
		_, _, err := n.client.SendRequest("keepalive@openssh.com", true, nil)
		if trip, known := int64(time.Since(begun)), n.trip.Load(); err == nil && (known == 0 || trip < known) {
			n.trip.Store(trip)
		}
		answer <- err
	}) {
		return false
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case err := <-answer:
		if err == nil {
			n.heard.Store(asked.UnixNano()) // the answer may have been long on its way, and the machine may have gone since
		}
		return err == nil
	case <-timer.C:
		return false
	}
}

// near reports whether the machine answers as one in the same network does.
func (n *conn) near() bool {
	trip := time.Duration(n.trip.Load())
	return trip > 0 && trip < n.within
}

// keepalive closes the connection when the machine has not answered for twice the timeout.
func (n *conn) keepalive(every, timeout time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-n.gone:
			return
		case <-ticker.C:
			if !n.ping(2 * timeout) {
				n.close()
				return
			}
		}
	}
}

// execution is one command on the machine.
type execution struct {
	command        string
	stdin          io.Reader // may be nil
	stdout, stderr io.Writer // must never return an error: a stream that is not read stops the command
	bulk           bool      // it carries files
	standby        bool      // it has its slot already, and does without a session that it would have to wait for
	begun          func()    // called when it has its session
}

// exec runs one command and returns its exit status. The error is about the transport only. When ctx ends exec
// returns at once; the session is then closed behind its back, and its writers may still be written to.
func (n *conn) exec(ctx context.Context, e execution) (int, error) {
	slots := n.slots
	if e.bulk {
		slots = n.bulk
	}
	if !e.standby {
		if err := n.await(ctx, slots); err != nil {
			return 0, err
		}
		if e.bulk {
			n.busy.Add(1)
			defer n.busy.Add(-1)
		}
	}
	type result struct {
		status int
		err    error
	}
	done := make(chan result, 1)
	running := &session{}
	if !n.spawn(func() {
		status, err := n.perform(running, e)
		<-slots
		done <- result{status, err}
	}) {
		<-slots
		return 0, n.lost(nil)
	}
	select {
	case r := <-done:
		return r.status, r.err
	case <-ctx.Done():
		n.spawn(func() { running.abort() })
		return 0, ctx.Err()
	}
}

// await takes a slot.
func (n *conn) await(ctx context.Context, slots chan struct{}) error {
	select {
	case slots <- struct{}{}:
		return nil
	default:
	}
	if slots == n.bulk {
		n.waiting.Add(1)
		defer n.waiting.Add(-1)
	}
	select {
	case slots <- struct{}{}:
		return nil
	case <-n.gone:
		return n.lost(nil)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// perform does the blocking work of exec. All of it ends when the connection is closed.
func (n *conn) perform(running *session, e execution) (int, error) {
	take := n.take
	if e.standby {
		take = n.takeNow
	}
	ch, requests, err := take(e.bulk)
	if err != nil {
		return 0, err
	}
	defer func() { _ = ch.Close() }()
	if e.begun != nil {
		e.begun()
	}
	if !running.adopt(ch) {
		n.spawn(func() { ssh.DiscardRequests(requests) })
		return 0, context.Canceled
	}
	status, known, err := n.converse(ch, requests, e)
	switch {
	case err != nil:
		n.close()
		return 0, n.lost(err)
	case known:
		n.touch()
		return status, nil
	}
	// Either the connection broke, which n.gone tells in a moment, or only this command was killed.
	timer := time.NewTimer(200 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-n.gone:
	case <-timer.C:
	}
	return 0, n.lost(nil)
}

// converse runs a command on a channel. Nobody waits for the answer to the request that starts it: its input follows at
// once, which saves a round trip. A command that ends without reading it all is no error.
func (n *conn) converse(ch ssh.Channel, requests <-chan *ssh.Request, e execution) (status int, known bool, err error) {
	if _, err := ch.SendRequest("exec", false, ssh.Marshal(struct{ Command string }{e.command})); err != nil {
		n.spawn(func() { ssh.DiscardRequests(requests) })
		return 0, false, err
	}
	if !e.bulk {
		n.spawn(n.openSpare)
	}
	if !n.spawn(func() {
		if e.stdin != nil {
			_, _ = io.Copy(ch, e.stdin)
		}
		_ = ch.CloseWrite()
	}) {
		_ = ch.Close()
	}
	var streams sync.WaitGroup
	streams.Go(func() { _, _ = io.Copy(e.stdout, ch) })
	streams.Go(func() { _, _ = io.Copy(e.stderr, ch.Stderr()) })
	for r := range requests { // until the channel is closed
		switch r.Type {
		case "exit-status":
			if len(r.Payload) >= 4 {
				status, known = int(binary.BigEndian.Uint32(r.Payload)), true
			}
		case "exit-signal":
			status, known = 128, true
		}
		if r.WantReply {
			_ = r.Reply(false, nil)
		}
	}
	streams.Wait()
	return status, known, nil
}

// lost is ErrConnLost. x/crypto's own texts for a closed connection say nothing of use, so they come last.
func (n *conn) lost(err error) error {
	if err == nil {
		return fmt.Errorf("%s: %w", n.target.Addr, ErrConnLost)
	}
	return fmt.Errorf("%s: %w (%w)", n.target.Addr, ErrConnLost, err)
}

// session lets a caller that has given up close what a goroutine may only just be opening.
type session struct {
	mu      sync.Mutex
	channel ssh.Channel
	aborted bool
}

// adopt takes a channel, unless the caller has given up already.
func (s *session) adopt(opened ssh.Channel) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.channel = opened
	return !s.aborted
}

// abort closes the session. The command on the machine learns of it by the end of its stdin, if it reads that.
func (s *session) abort() {
	s.mu.Lock()
	opened := s.channel
	s.aborted = true
	s.mu.Unlock()
	if opened != nil {
		_ = opened.Close()
	}
}
