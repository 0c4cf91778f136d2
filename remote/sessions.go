package remote

import (
	"errors"
	"runtime"
	"time"

	"golang.org/x/crypto/ssh"
)

// opened is a session in which nothing runs yet.
type opened struct {
	ch       ssh.Channel
	requests <-chan *ssh.Request
}

// openSpare opens a session while a command runs, so that the next one need not wait for it: a round trip less. There is
// one at most, and whatever needs a session takes it first, so that it stands in nobody's way at a server that allows few.
func (n *conn) openSpare() {
	if len(n.spare) > 0 || n.crowded() || !n.opening.CompareAndSwap(false, true) {
		return
	}
	defer n.opening.Store(false)
	ch, requests, err := n.client.OpenChannel("session", nil)
	if err != nil {
		return // refused, or the connection is gone, which others will notice
	}
	select {
	case n.spare <- opened{ch, requests}:
	default:
		n.spawn(func() { ssh.DiscardRequests(requests) })
		_ = ch.Close()
	}
}

// slack is how much memory a transfer keeps and never touches, which costs none. The collector runs when the heap has
// doubled, so that without it x/crypto/ssh, which copies each packet that comes, would set it off every 4 MiB: a quarter of
// what a fetch costs here.
const slack = 16 << 20

// prepareBulk makes ready for a transfer while it looks at what there is to carry: it opens the sessions of its streams,
// which is a round trip less for each. Call the result when nothing more is to be carried: what is left of them is closed.
func (n *conn) prepareBulk() (done func()) {
	for range cap(n.stock) {
		n.spawn(func() {
			if n.crowded() {
				return
			}
			ch, requests, err := n.client.OpenChannel("session", nil)
			if err != nil {
				return
			}
			select {
			case n.stock <- opened{ch, requests}:
			default:
				n.discard(opened{ch, requests})
			}
		})
	}
	kept := make([]byte, slack)
	return func() {
		runtime.KeepAlive(kept)
		for {
			select {
			case s := <-n.stock:
				n.discard(s)
			default:
				return
			}
		}
	}
}

// discard closes a session in which nothing runs.
func (n *conn) discard(s opened) {
	n.spawn(func() { ssh.DiscardRequests(s.requests) })
	n.spawn(func() { _ = s.ch.Close() })
}

// take is a session: one that is open already, if the server has not closed it.
func (n *conn) take(bulk bool) (ssh.Channel, <-chan *ssh.Request, error) {
	if s, ok := n.takeOpen(bulk); ok {
		return s.ch, s.requests, nil
	}
	return n.open()
}

// takeNow is take where the server has room for another session, else errNoRoom.
func (n *conn) takeNow(bulk bool) (ssh.Channel, <-chan *ssh.Request, error) {
	if s, ok := n.takeOpen(bulk); ok {
		return s.ch, s.requests, nil
	}
	ch, requests, err := n.client.OpenChannel("session", nil)
	var refused *ssh.OpenChannelError
	if errors.As(err, &refused) {
		return nil, nil, errNoRoom
	}
	if err != nil {
		n.close()
		return nil, nil, n.lost(err)
	}
	return ch, requests, nil
}

var errNoRoom = errors.New("no session to spare")

func (n *conn) takeOpen(bulk bool) (opened, bool) {
	first, second := n.spare, n.stock
	if bulk {
		first, second = second, first
	}
	for _, from := range []chan opened{first, second} {
		select {
		case s := <-from:
			select {
			case <-s.requests: // nothing can be asked yet, so it is closed
				_ = s.ch.Close()
			default:
				return s, true
			}
		default:
		}
	}
	return opened{}, false
}

// open opens a session. The server counts one as open until it has reaped the process, so a refusal right after
// another command has ended is normal and passes.
func (n *conn) open() (ssh.Channel, <-chan *ssh.Request, error) {
	for delay := 5 * time.Millisecond; ; delay = min(2*delay, 250*time.Millisecond) {
		ch, requests, err := n.client.OpenChannel("session", nil)
		if err == nil {
			return ch, requests, nil
		}
		var refused *ssh.OpenChannelError
		if !errors.As(err, &refused) {
			// It is broken, even if that has not got around: the next call must not be given it again.
			n.close()
			return nil, nil, n.lost(err)
		}
		n.dropReady()
		timer := time.NewTimer(delay)
		select {
		case s := <-n.spare:
			timer.Stop()
			return s.ch, s.requests, nil
		case s := <-n.stock:
			timer.Stop()
			return s.ch, s.requests, nil
		case <-timer.C:
		case <-n.gone:
			timer.Stop()
			return nil, nil, n.lost(err)
		}
	}
}
