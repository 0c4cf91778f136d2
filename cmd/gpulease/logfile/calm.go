package logfile

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// A line that is repeated is written again after firstWait, then after twice
	// that, and so on up to lastWait.
	firstWait = time.Minute
	lastWait  = time.Hour
	// linesKnown is how many different lines are remembered.
	linesKnown = 256
)

// Calm passes on lines, but a line that was there before only at growing
// intervals, with the number of those that it held back. Lines that differ in
// nothing but their time and their numbers are the same. It remembers a bounded
// number of them.
type Calm struct {
	w    io.Writer
	now  func() time.Time
	seed maphash.Seed

	mu    sync.Mutex
	known map[uint64]*said
}

type said struct {
	written time.Time
	last    time.Time
	wait    time.Duration // until it is written again
	held    int
}

// NewCalm returns a Calm that writes to w. Each Write has to be one line.
func NewCalm(w io.Writer, now func() time.Time) *Calm {
	return &Calm{w: w, now: now, seed: maphash.MakeSeed(), known: map[uint64]*said{}}
}

// Write passes a line on or holds it back. It fails only as the writer below does.
func (c *Calm) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key, now := maphash.Bytes(c.seed, sense(p)), c.now()
	s := c.known[key]
	if s == nil || now.Sub(s.last) > lastWait { // new, or worth saying again
		c.forget()
		c.known[key] = &said{written: now, last: now, wait: firstWait}
		return c.w.Write(p)
	}
	s.last = now
	if now.Sub(s.written) < s.wait {
		s.held++
		return len(p), nil
	}
	line := repeated(p, s.held)
	s.written, s.wait, s.held = now, min(2*s.wait, lastWait), 0
	if _, err := c.w.Write(line); err != nil {
		return 0, err
	}
	return len(p), nil
}

// forget makes room for one more line.
func (c *Calm) forget() {
	if len(c.known) < linesKnown {
		return
	}
	var oldest uint64
	var at time.Time
	for key, s := range c.known {
		if at.IsZero() || s.last.Before(at) {
			oldest, at = key, s.last
		}
	}
	delete(c.known, oldest)
}

// sense is a line without its time and with each number as 0. A digit that
// belongs to a word, such as a lease's id, is no number.
func sense(p []byte) []byte {
	if rest, ok := bytes.CutPrefix(p, []byte(`{"time":"`)); ok {
		if _, after, ok := bytes.Cut(rest, []byte(`",`)); ok {
			p = after
		}
	}
	out := make([]byte, 0, len(p))
	inWord := false
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		switch {
		case unicode.IsDigit(r) && !inWord:
			if len(out) == 0 || out[len(out)-1] != '0' {
				out = append(out, '0')
			}
		default:
			out = append(out, p[:n]...)
			inWord = unicode.IsLetter(r) || inWord && unicode.IsDigit(r)
		}
		p = p[n:]
	}
	return out
}

// repeated is a line that says how often it was held back.
func repeated(p []byte, held int) []byte {
	if held == 0 {
		return p
	}
	line := bytes.TrimSuffix(p, []byte("\n"))
	if body, ok := bytes.CutSuffix(line, []byte("}")); ok && len(body) > 1 {
		return fmt.Appendf(slices.Clip(body), ",\"repeated\":%d}\n", held)
	}
	return fmt.Appendf(slices.Clip(line), " (repeated %d times)\n", held)
}
