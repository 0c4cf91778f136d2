package remote

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
)

// taker is a script on the machine that puts archives in their place, one behind the other: none waits until the one before
// it has been unpacked and this has been told.
type taker struct {
	*standby
	push *pushing

	mu    sync.Mutex
	over  bool       // nothing is to be noted any more
	sent  []*packing // of which it is not known yet that they are in their place
	told  []int      // for archives in their order: how many files were removed
	heard chan struct{}
}

// taker starts one; nil if it would be in the way of others.
func (j *pushing) taker(ctx context.Context, n *conn) *taker {
	t := &taker{push: j, heard: make(chan struct{}, 1)}
	t.standby = n.standBy(ctx, func(ctx context.Context, in *pipe, begun func()) error {
		defer t.close()
		_, err := n.call(ctx, request{
			script: filesScript, args: []string{"take", j.dst}, stdin: func() io.Reader { return in },
			bulk: true, early: true, begun: begun, seen: t.seen, data: mostSeen,
		})
		return err
	})
	if t.standby == nil {
		return nil
	}
	return t
}

func (t *taker) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
}

func (t *taker) seen(f field) {
	if f.key != "removed" {
		return
	}
	removed, err := strconv.Atoi(f.value)
	if err != nil || removed < 0 {
		return // it is missed in the end
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.told) < 1000 { // more are not sent at once
		t.told = append(t.told, removed)
	}
	t.match()
}

// match takes down what is in its place.
func (t *taker) match() {
	for !t.over && len(t.sent) > 0 && len(t.told) > 0 {
		t.push.placed(t.sent[0], t.told[0])
		t.sent, t.told = t.sent[1:], t.told[1:]
	}
	select {
	case t.heard <- struct{}{}:
	default:
	}
}

// send sends an archive, and does not wait until it is in its place.
func (t *taker) send(pack *packing) error {
	defer pack.in.close()
	pack.how = pack.worthwhile()
	t.work()
	_, err := fmt.Fprintln(t.in, pack.how)
	if err == nil {
		chunks := bufio.NewWriterSize(chunked{t.in}, archiveChunk)
		if err = pack.write(chunks); err == nil {
			err = chunks.Flush()
		}
	}
	if err == nil {
		_, err = fmt.Fprintln(t.in, 0)
	}
	if errors.Is(err, errNotTaken) {
		return t.failure()
	}
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent = append(t.sent, pack)
	t.match()
	return nil
}

// failure is why it takes nothing any more.
func (t *taker) failure() error {
	if err := t.end(); err != nil {
		return err
	}
	return fmt.Errorf("%w: archives were not taken", ErrMachine)
}

// settle waits until all that was sent is in its place.
func (t *taker) settle() error {
	for {
		t.mu.Lock()
		left := len(t.sent)
		t.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-t.heard:
		case <-t.ended:
			t.mu.Lock()
			left = len(t.sent)
			t.mu.Unlock()
			if left == 0 {
				return nil
			}
			return t.failure()
		}
	}
}

// finish is the end of it, when all that was sent is in its place; with an error, as it is. That it has ended would be told a
// round trip later, and is no news.
func (t *taker) finish(err error) error {
	if t == nil || err != nil {
		return err
	}
	if err := t.settle(); err != nil {
		return err
	}
	t.drop()
	return nil
}

// crew are the takers of one push.
type crew struct {
	hire   func() *taker
	takers []*taker
}

// grow has so many of them, or as many as there is room for.
func (c *crew) grow(want int) {
	for len(c.takers) < want {
		t := c.hire()
		if t == nil {
			return
		}
		c.takers = append(c.takers, t)
	}
}

// take gives one away; nil if there is none left.
func (c *crew) take() *taker {
	for len(c.takers) > 0 {
		t := c.takers[0]
		c.takers = c.takers[1:]
		if t.ready() {
			return t
		}
	}
	return nil
}

// keep drops those that are too many.
func (c *crew) keep(count int) {
	for len(c.takers) > count {
		last := len(c.takers) - 1
		c.takers[last].drop()
		c.takers = c.takers[:last]
	}
}

func (c *crew) dismiss() { c.keep(0) }

// archiveChunk is how many bytes of an archive go behind one count.
const archiveChunk = 512 << 10

// chunked writes each piece behind a line with its length.
type chunked struct{ to io.Writer }

func (c chunked) Write(p []byte) (int, error) {
	if _, err := fmt.Fprintln(c.to, len(p)); err != nil {
		return 0, err
	}
	return c.to.Write(p)
}
