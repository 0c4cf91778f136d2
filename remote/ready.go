package remote

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	serverSessions = 10              // at once on a connection, which is what OpenSSH allows by default
	mostMisses     = 3               // ready shells of no use, and the connection goes without
	readyGrace     = 5 * time.Second // for a ready shell to answer, beyond the wait that was asked for
)

// errNotReady says that no ready shell has started the job, as far as can be told. It may yet have been started, once.
var errNotReady = errors.New("no ready shell")

// errUnanswered says that a ready shell has started the job and not told what came of it.
var errUnanswered = errors.New("started, and no answer")

// ready is a shell on the machine that has read all that it takes to start a job, and waits for one: see ready.sh. It starts
// one job and is gone. What it does not do the ordinary way does, with the same job ID, so that whatever becomes of
// it the job is started once.
type ready struct {
	ch    ssh.Channel
	ended chan struct{} // closed when the channel is
	begun begun
}

// begun looks in what a ready shell writes for the line that says that the job is started.
type begun struct {
	seen atomic.Bool
	tail []byte
}

func (b *begun) Write(p []byte) (int, error) {
	const mark = "\x1estarted\n"
	b.tail = append(b.tail, p...)
	if bytes.Contains(b.tail, []byte(mark)) {
		b.seen.Store(true)
	}
	b.tail = append([]byte(nil), b.tail[max(0, len(b.tail)-len(mark)):]...)
	return len(p), nil
}

func (s *ready) alive() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// close lets go of the channel, which may block on a dark connection. What it returns is closed when that is done.
func (s *ready) close(n *conn) <-chan struct{} {
	closed := make(chan struct{})
	if !n.spawn(func() {
		_ = s.ch.Close()
		close(closed)
	}) {
		close(closed)
	}
	return closed
}

// crowded reports whether one more session might be one too many for the server.
func (n *conn) crowded() bool {
	return len(n.slots)+len(n.bulk)+len(n.spare)+len(n.stock)+len(n.ready) >= serverSessions
}

// prepare has a ready shell started for the next job, when there is none. There is one at most. When the server refuses a
// session to anyone it goes first.
func (n *conn) prepare() {
	if n.misses.Load() >= mostMisses || len(n.ready) > 0 || n.crowded() || !n.warming.CompareAndSwap(false, true) {
		return
	}
	defer n.warming.Store(false)
	ch, requests, err := n.client.OpenChannel("session", nil)
	if err != nil {
		return // refused, or the connection is gone, which others will notice
	}
	s := &ready{ch: ch, ended: make(chan struct{})}
	if !n.spawn(func() {
		ssh.DiscardRequests(requests)
		close(s.ended)
	}) {
		_ = ch.Close()
		return
	}
	n.spawn(func() { _, _ = io.Copy(io.Discard, ch.Stderr()) })
	_, err = ch.SendRequest("exec", false, ssh.Marshal(struct{ Command string }{readyCommand}))
	if err == nil {
		_, err = io.WriteString(ch, readyLoad)
	}
	if err == nil {
		select {
		case n.ready <- s:
			return
		default:
		}
	}
	_ = ch.Close()
}

// dropReady gives up the session of the ready shell.
func (n *conn) dropReady() {
	select {
	case s := <-n.ready:
		n.misses.Add(1)
		_ = s.ch.Close()
	default:
	}
}

// readyCommand starts a ready shell. It is detached from the session from the beginning, and the session lasts until the shell
// lets go of the pipe.
var readyCommand = `exec sh -c '[ -f "$HOME/.gpulease/lib/` + watchScript.file + `" ] && [ -f "$HOME/.gpulease/lib/` + readyScript.file + `" ] || exit ` + strconv.Itoa(notInstalled) + `
{ setsid -f sh -s 7>&1 >&6 6>&- | { read -r gl_i; }; } 6>&1 2>/dev/null'`

// readyLoad is its first input.
var readyLoad = `gl_self=$HOME/.gpulease/lib/` + watchScript.file + `
gl_verbs=$HOME/.gpulease/lib/` + jobScript.file + `
. "$HOME/.gpulease/lib/` + readyScript.file + `"
`

// readyJob is what a ready shell takes for a start.
func readyJob(args []string, text string) string {
	return "gl_id=" + quote(args[1]) + "\n" + text + "gl_ready " + quote(args[2]) + " " + quote(args[3]) + " " + quote(args[4]) + "; exit\n"
}

// askReady has the ready shell start the job of r. The error is errNotReady when there is none, or when it is dead, hangs or
// talks nonsense; then the caller starts the job in the ordinary way.
func (n *conn) askReady(ctx context.Context, r request) (reply, error) {
	s := n.takeReady()
	if s == nil {
		return reply{}, errNotReady
	}
	select {
	case n.slots <- struct{}{}:
	case <-n.gone:
		return reply{}, n.lost(nil)
	case <-ctx.Done():
		_ = s.ch.Close()
		return reply{}, ctx.Err()
	}
	type result struct {
		reply reply
		err   error
	}
	done := make(chan result, 1)
	if !n.spawn(func() {
		answer, err := s.start(r)
		_ = s.ch.Close() // before anybody asks in the other way, see ready.sh
		done <- result{answer, err}
		<-n.slots
	}) {
		<-n.slots
		return reply{}, n.lost(nil)
	}
	timer := time.NewTimer(r.wait + readyGrace)
	defer timer.Stop()
	select {
	case d := <-done:
		if d.err == nil || errors.Is(d.err, ErrGone) {
			n.misses.Store(0)
			n.touch()
			return d.reply, d.err
		}
	case <-timer.C:
		select {
		case <-s.close(n):
		case <-n.gone:
		case <-ctx.Done():
		}
	case <-ctx.Done():
		s.close(n)
		return reply{}, ctx.Err()
	}
	if s.begun.seen.Load() {
		return reply{}, errUnanswered
	}
	n.misses.Add(1)
	return reply{}, errNotReady
}

func (n *conn) takeReady() *ready {
	select {
	case s := <-n.ready:
		if s.alive() {
			return s
		}
		n.misses.Add(1)
		_ = s.ch.Close()
	default:
	}
	return nil
}

// start sends a job and reads the answer. What has started the shell may still be there then, and the shell itself, so that the
// end of the answer is known by its lengths.
func (s *ready) start(r request) (reply, error) {
	if _, err := io.WriteString(s.ch, r.ready); err != nil {
		return reply{}, err
	}
	stream := bufio.NewReader(io.TeeReader(s.ch, &s.begun))
	answer, err := readHead(stream)
	if err != nil {
		return reply{}, err
	}
	if id := answer.get("job"); id != r.args[1] {
		return reply{}, fmt.Errorf("%w: job %q", ErrMachine, printable([]byte(id)))
	}
	sizes, err := answer.numbers("excerpt", 4)
	if err != nil {
		return reply{}, err
	}
	total := int64(0)
	for _, size := range sizes {
		if size > r.data-total {
			return reply{}, fmt.Errorf("%w: more than %d bytes", ErrMachine, r.data)
		}
		total += size
	}
	answer.data = make([]byte, total)
	_, err = io.ReadFull(stream, answer.data)
	return answer, err
}
