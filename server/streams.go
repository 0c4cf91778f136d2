package server

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"sync"
	"time"
)

// tally counts the requests that were read and not yet answered. A client that
// writes a request and closes its end at once (a script, a pipe) still wants the
// answer; the library would cancel it.
type tally struct {
	mu    sync.Mutex
	open  map[string]int
	empty chan struct{} // closed while nothing is open
}

func newTally() *tally {
	t := &tally{open: map[string]int{}, empty: make(chan struct{})}
	close(t.empty)
	return t
}

// envelope is the outside of a JSON-RPC message.
type envelope struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
}

func (t *tally) read(line []byte) {
	var m envelope
	// A subscription is open until the end and waits for nothing.
	if json.Unmarshal(line, &m) != nil || m.Method == "" || m.Method == methodListen || noID(m.ID) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.open) == 0 {
		t.empty = make(chan struct{})
	}
	t.open[string(m.ID)]++
}

func (t *tally) wrote(line []byte) {
	var m envelope
	if json.Unmarshal(line, &m) != nil || m.Method != "" || noID(m.ID) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	id := string(m.ID)
	if t.open[id] == 0 {
		return
	}
	if t.open[id]--; t.open[id] == 0 {
		delete(t.open, id)
	}
	if len(t.open) == 0 {
		close(t.empty)
	}
}

// has reports whether a request was read and is not yet answered.
func (t *tally) has(id json.RawMessage) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open[string(id)] > 0
}

func (t *tally) answered() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.empty
}

func noID(id json.RawMessage) bool { return len(id) == 0 || string(id) == "null" }

// lineReader gives the library whole lines. It leaves out empty ones, ends the
// last one if the client did not, and holds back the end of the input until the
// open requests are answered, for at most grace.
type lineReader struct {
	from  *bufio.Reader
	open  *tally
	stop  <-chan struct{}
	grace time.Duration

	// cancel is told of a cancel of an open request; nil: nobody is.
	cancel func(id json.RawMessage, line []byte)
	// answer takes a line that answers a question of ours; nil: there are none.
	answer func(line []byte) bool

	rest  []byte
	err   error
	ended chan struct{} // closed when the library has been told of the end
	once  sync.Once
}

func newLineReader(from io.Reader, open *tally, stop <-chan struct{}, grace time.Duration) *lineReader {
	return &lineReader{from: bufio.NewReader(from), open: open, stop: stop, grace: grace, ended: make(chan struct{})}
}

func (r *lineReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.err != nil {
			r.drain()
			return 0, r.err
		}
		line, err := r.from.ReadBytes('\n')
		r.err = err
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if r.answer != nil && r.answer(line) {
			continue
		}
		r.open.read(line)
		if id := cancelled(line); id != nil && r.cancel != nil && r.open.has(id) {
			r.cancel(id, bytes.Clone(line))
		}
		r.rest = append(line, '\n')
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *lineReader) drain() {
	r.once.Do(func() {
		defer close(r.ended)
		timer := time.NewTimer(r.grace)
		defer timer.Stop()
		select {
		case <-r.open.answered():
		case <-r.stop:
		case <-timer.C:
		}
	})
}

// notifier sends the notes of a call past the library's queue, which drops some
// and lets results overtake others.
type notifier interface {
	notify(method string, params map[string]any) error
}

type notifierKey struct{}

// lineWriter writes whole messages, one at a time. The library writes each
// message with one call; progress notes of this package come between.
type lineWriter struct {
	open   *tally
	broken func(error)

	mu sync.Mutex
	to io.Writer
}

func (w *lineWriter) Write(line []byte) (int, error) {
	said := recode(line)
	w.mu.Lock()
	n, err := w.to.Write(said)
	w.mu.Unlock()
	if err != nil {
		w.broken(err)
		return min(n, len(line)), err
	}
	w.open.wrote(said)
	return len(line), nil
}

// notify writes a notification and returns when it is written.
func (w *lineWriter) notify(method string, params map[string]any) error {
	line, err := notification(method, params)
	if err != nil {
		return err
	}
	return w.say(line)
}

// say writes one message of ours.
func (w *lineWriter) say(message []byte) error {
	_, err := w.Write(append(message, '\n'))
	return err
}
