// Package hosts drives real agent hosts, from npm, by a stand-in for their model on a
// loopback address: what a host hands on to its model of our answers is otherwise not
// to be seen. Nothing leaves the computer. `make hosts` installs the hosts and runs it.
package hosts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// Call is a tool call that the model makes.
type Call struct {
	Space string // of the tool, where the host's API has such; "" for none
	Tool  string
	Args  any
}

// Seen is what the host told its model of a call.
type Seen struct {
	Text  string // all of it
	Error bool   // the host marked it as one
}

// Tool is one that the host offered to its model.
type Tool struct {
	Description string
	Schema      json.RawMessage
}

// Prompt is what the host told its model before the first call.
type Prompt struct {
	Tools map[string]Tool // those with a schema
	Text  string          // all of the request, decoded
}

// turn is a request of the host, in either API.
type turn struct {
	results []Seen // of all calls so far, in order
	prompt  Prompt
	aside   bool // not part of the conversation: a title, a summary
}

// api is how a host speaks with its model.
type api interface {
	path() string
	read(body []byte) (turn, error)
	call(w io.Writer, n int, c Call)
	say(w io.Writer, text string)
}

// Model stands in for a model: it makes the calls that [Model.Call] asks for, one
// after the other, and ends the conversation after [Model.Done].
type Model struct {
	api    api
	server *http.Server
	URL    string // without the API's path

	next    chan Call
	results chan Seen
	first   chan Prompt
	over    chan struct{}
	ended   sync.Once

	mu    sync.Mutex // held while a request waits for the next call
	made  []Call
	wrong []error
}

// StartMessages stands in for a model behind Anthropic's Messages API.
func StartMessages() (*Model, error) { return start(messages{}) }

// StartResponses stands in for a model behind OpenAI's Responses API.
func StartResponses() (*Model, error) { return start(responses{}) }

func start(a api) (*Model, error) {
	on, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the host: %w", err)
	}
	m := &Model{
		api: a, URL: "http://" + on.Addr().String(),
		next: make(chan Call), results: make(chan Seen, 1), first: make(chan Prompt, 1), over: make(chan struct{}),
	}
	m.server = &http.Server{Handler: m, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = m.server.Serve(on) }() // ends with Close
	return m, nil
}

// Close ends it; requests under way are cut.
func (m *Model) Close() error {
	m.Done()
	return m.server.Close()
}

// Prompt waits for the host's first request.
func (m *Model) Prompt(ctx context.Context) (Prompt, error) {
	select {
	case p := <-m.first:
		return p, nil
	case <-ctx.Done():
		return Prompt{}, fmt.Errorf("wait for the host's first request: %w", errors.Join(context.Cause(ctx), m.Err()))
	}
}

// Call makes the model call a tool, and waits for what the host says came of it.
func (m *Model) Call(ctx context.Context, c Call) (Seen, error) {
	select {
	case m.next <- c:
	case <-ctx.Done():
		return Seen{}, fmt.Errorf("call %s: the host does not ask: %w", c.Tool, errors.Join(context.Cause(ctx), m.Err()))
	}
	select {
	case s := <-m.results:
		return s, nil
	case <-ctx.Done():
		return Seen{}, fmt.Errorf("call %s: the host tells nothing of it: %w", c.Tool, errors.Join(context.Cause(ctx), m.Err()))
	}
}

// Done has the model say that it is done. Further calls cannot be made.
func (m *Model) Done() { m.ended.Do(func() { close(m.over) }) }

// Err is what was wrong with the host's requests so far.
func (m *Model) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return errors.Join(m.wrong...)
}

// maxBody bounds a host's request.
const maxBody = 32 << 20

func (m *Model) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.URL.Path != m.api.path() {
		http.Error(w, `{"error":{"message":"not here"}}`, http.StatusNotFound)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return // the host is gone
	}
	t, err := m.api.read(body)
	if err != nil {
		m.mu.Lock()
		m.wrong = append(m.wrong, err)
		m.mu.Unlock()
		http.Error(w, `{"error":{"message":"not understood"}}`, http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	if t.aside {
		m.api.say(w, "aside")
		return
	}
	n, c, ok := m.answer(r.Context(), t)
	if !ok {
		m.api.say(w, "the model is done")
		return
	}
	m.api.call(w, n, c)
}

// answer is the n-th call of the conversation. A host that repeats a request gets
// the same call again.
func (m *Model) answer(ctx context.Context, t turn) (n int, c Call, ok bool) {
	m.mu.Lock()
	made := len(m.made)
	m.mu.Unlock()
	n = len(t.results)
	if n < made {
		m.mu.Lock()
		defer m.mu.Unlock()
		return n, m.made[n], true
	}
	if n > made {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.wrong = append(m.wrong, fmt.Errorf("%d results of %d calls", n, made))
		return 0, Call{}, false
	}
	if n == 0 {
		select {
		case m.first <- t.prompt:
		default: // told already
		}
	} else {
		select {
		case m.results <- t.results[n-1]:
		default:
		}
	}
	select {
	case c = <-m.next:
		m.mu.Lock()
		defer m.mu.Unlock()
		m.made = append(m.made, c)
		return n, c, true
	case <-m.over:
	case <-ctx.Done():
	}
	return 0, Call{}, false
}

// event is a server-sent event of a type, which both APIs also have in its data.
func event(w io.Writer, kind string, data map[string]any) {
	data["type"] = kind
	raw, _ := json.Marshal(data) // texts and numbers of ours
	_, _ = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", kind, raw)
}

// textOf is the text of content that is either a string or a list of blocks.
func textOf(raw json.RawMessage) (string, error) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text, nil
	}
	var blocks []struct {
		Type string `json:"type"`
		Text string `json:"text"`
		Tool string `json:"tool_name"`
	}
	if err := json.Unmarshal(raw, &blocks); err != nil {
		return "", fmt.Errorf("content is neither text nor blocks: %w", err)
	}
	for i, b := range blocks {
		if i > 0 {
			text += "\n"
		}
		text += b.Text + b.Tool
	}
	return text, nil
}
