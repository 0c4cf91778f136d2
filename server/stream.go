package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// keepAlive is the longest silence on a response: some hosts give up on a call
	// that has sent nothing for a minute, and proxies cut quiet connections.
	keepAlive = 10 * time.Second
	// writeTime bounds one write to a client that reads no more.
	writeTime = 30 * time.Second

	eventStream = "text/event-stream"
)

var errAnswered = errors.New("the call is answered, or its client takes no events")

// stream is the way back of one HTTP request. The library answers a request with
// JSON in the end, and drops notes on their way through its queue or sends them
// after the answer. So notes go past it: the first makes the response a stream of
// events, of which the library's JSON becomes the last. A response that stays silent
// becomes one as well, and gets a comment now and then.
type stream struct {
	to      http.ResponseWriter
	control *http.ResponseController
	accepts bool // the client takes events for an answer
	quiet   time.Duration

	header http.Header // the library's, until it is sent: notes come from other goroutines

	mu      sync.Mutex
	sent    bool // the status line
	events  bool // it is a stream of events
	raised  bool // by us: what the library writes as JSON becomes an event
	over    bool
	silence *time.Timer
}

func newStream(w http.ResponseWriter, r *http.Request, quiet time.Duration) *stream {
	s := &stream{
		to: w, control: http.NewResponseController(w), header: http.Header{}, quiet: quiet,
		accepts: r.Method == http.MethodPost && strings.Contains(r.Header.Get("Accept"), eventStream),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silence = time.AfterFunc(quiet, s.breathe)
	return s
}

// finish ends the notes. The handler calls it before it returns.
func (s *stream) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	s.silence.Stop()
	s.limit()
}

func (s *stream) Header() http.Header { return s.header }

func (s *stream) WriteHeader(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeHeader(status)
}

func (s *stream) writeHeader(status int) {
	if s.sent {
		return
	}
	s.sent = true
	s.events = strings.HasPrefix(s.header.Get("Content-Type"), eventStream)
	for key, values := range s.header {
		if key != allowOrigin { // the library lets every web page read its older event streams
			s.to.Header()[key] = values
		}
	}
	s.limit()
	s.to.WriteHeader(status)
}

func (s *stream) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeHeader(http.StatusOK)
	said := recode(b)
	if s.raised && !strings.HasPrefix(s.header.Get("Content-Type"), eventStream) {
		if err := s.event(bytes.TrimSpace(said)); err != nil {
			return 0, err
		}
		return len(b), nil
	}
	s.limit()
	if n, err := s.to.Write(said); err != nil {
		return min(n, len(b)), err
	}
	return len(b), nil
}

// Flush is part of what the library wants of a response that can be a stream.
func (s *stream) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeHeader(http.StatusOK)
	s.flush()
}

// notify sends a notification that belongs to the call, before its answer.
func (s *stream) notify(method string, params map[string]any) error {
	line, err := notification(method, params)
	if err != nil {
		return err
	}
	return s.say(line)
}

// say sends a message of ours that belongs to the call, before its answer.
func (s *stream) say(message []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.raise() {
		return errAnswered
	}
	return s.event(message)
}

// raise makes the response a stream of events, if it may still become one.
func (s *stream) raise() bool {
	if s.over || (s.sent && !s.events) || (!s.sent && !s.accepts) {
		return false
	}
	if !s.sent {
		s.sent, s.events, s.raised = true, true, true
		s.to.Header().Set("Content-Type", eventStream)
		s.to.Header().Set("Cache-Control", "no-cache")
		s.limit()
		s.to.WriteHeader(http.StatusOK)
	}
	return true
}

func (s *stream) event(line []byte) error {
	s.limit()
	if _, err := fmt.Fprintf(s.to, "event: message\ndata: %s\n\n", line); err != nil {
		return fmt.Errorf("write an event: %w", err)
	}
	s.flush()
	return nil
}

// breathe breaks a silence with a comment, which clients skip.
func (s *stream) breathe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.raise() {
		return
	}
	s.limit()
	if _, err := s.to.Write([]byte(": still here\n\n")); err != nil {
		return // the request's context ends by itself
	}
	s.flush()
}

func (s *stream) flush() {
	_ = s.control.Flush() // what it could not send, the next write reports
	if !s.over {
		s.silence.Reset(s.quiet)
	}
}

// limit gives what is written next its time.
func (s *stream) limit() { _ = s.control.SetWriteDeadline(time.Now().Add(writeTime)) }

// notification is a JSON-RPC message without an answer.
func notification(method string, params map[string]any) ([]byte, error) {
	line, err := json.Marshal(struct {
		JSONRPC string         `json:"jsonrpc"`
		Method  string         `json:"method"`
		Params  map[string]any `json:"params"`
	}{"2.0", method, params})
	if err != nil {
		return nil, fmt.Errorf("encode a notification: %w", err)
	}
	return line, nil
}
