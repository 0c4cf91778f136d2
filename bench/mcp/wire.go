package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"
)

// wire is a client that does no more than it has to, so that the servers are measured and not it.
type wire interface {
	// ask sends a request and returns the whole answer.
	ask(ctx context.Context, method string, params any) ([]byte, error)
	tell(ctx context.Context, method string) error
	close() error
}

type request struct {
	Version string `json:"jsonrpc"`
	ID      int64  `json:"id,omitempty"`
	Method  string `json:"method"`
	Params  any    `json:"params,omitempty"`
}

// checked fails for an answer that is a protocol error.
func checked(answer []byte) ([]byte, error) {
	var a struct {
		Result json.RawMessage `json:"result"`
		Error  json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return nil, fmt.Errorf("read the answer %.200q: %w", answer, err)
	}
	if len(a.Result) == 0 {
		return nil, fmt.Errorf("the server answers with an error: %s", a.Error)
	}
	return a.Result, nil
}

// greet takes the handshake.
func greet(ctx context.Context, w wire) error {
	answer, err := w.ask(ctx, "initialize", map[string]any{
		"protocolVersion": "2025-11-25", "capabilities": map[string]any{}, "clientInfo": map[string]any{"name": "bench", "version": "1"},
	})
	if err != nil {
		return err
	}
	if _, err := checked(answer); err != nil {
		return err
	}
	return w.tell(ctx, "notifications/initialized")
}

// pipe is a client over stdio, of the process that it has started.
type pipe struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	over chan struct{} // closed when the process says no more

	mu      sync.Mutex
	last    int64
	waiting map[int64]chan []byte
}

func startPipe(cmd *exec.Cmd) (*pipe, error) {
	p := &pipe{cmd: cmd, over: make(chan struct{}), waiting: map[int64]chan []byte{}}
	var err error
	if p.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go p.read(out)
	return p, nil
}

func (p *pipe) read(out io.Reader) {
	defer close(p.over)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 8<<20)
	for lines.Scan() {
		var m struct {
			ID int64 `json:"id"`
		}
		if json.Unmarshal(lines.Bytes(), &m) != nil || m.ID == 0 {
			continue
		}
		p.mu.Lock()
		to := p.waiting[m.ID]
		delete(p.waiting, m.ID)
		p.mu.Unlock()
		if to != nil {
			to <- bytes.Clone(lines.Bytes())
		}
	}
}

func (p *pipe) send(r request) error {
	r.Version = "2.0"
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = p.in.Write(append(b, '\n'))
	return err
}

func (p *pipe) ask(ctx context.Context, method string, params any) ([]byte, error) {
	to := make(chan []byte, 1)
	p.mu.Lock()
	p.last++
	id := p.last
	p.waiting[id] = to
	err := p.send(request{ID: id, Method: method, Params: params}) // one writer at a time
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case answer := <-to:
		return answer, nil
	case <-p.over:
		return nil, errors.New("the server has ended")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipe) tell(_ context.Context, method string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.send(request{Method: method})
}

// close ends the server as hosts do, and kills it where that is not enough.
func (p *pipe) close() error {
	err := p.in.Close()
	kill := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	<-p.over
	_ = p.cmd.Wait() // how public servers exit is theirs
	return err
}

// web is a client over Streamable HTTP, with a session.
type web struct {
	client       *http.Client
	url, token   string
	session      string
	last         atomic.Int64
	streams      sync.WaitGroup
	cut          context.CancelFunc
	streamsUntil context.Context
}

func newWeb(client *http.Client, url, token string) *web {
	w := &web{client: client, url: url, token: token}
	w.streamsUntil, w.cut = context.WithCancel(context.Background())
	return w
}

func (w *web) request(ctx context.Context, method string, body []byte) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, w.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	if w.token != "" {
		r.Header.Set("Authorization", "Bearer "+w.token)
	}
	if w.session != "" {
		r.Header.Set("Mcp-Session-Id", w.session)
		r.Header.Set("Mcp-Protocol-Version", "2025-11-25")
	}
	return r, nil
}

func (w *web) post(ctx context.Context, m request) ([]byte, error) {
	m.Version = "2.0"
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	r, err := w.request(ctx, http.MethodPost, b)
	if err != nil {
		return nil, err
	}
	answer, err := w.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode >= 300 {
		return nil, fmt.Errorf("%s: %s: %s", m.Method, answer.Status, body)
	}
	if id := answer.Header.Get("Mcp-Session-Id"); id != "" {
		w.session = id
	}
	return body, nil
}

func (w *web) ask(ctx context.Context, method string, params any) ([]byte, error) {
	return w.post(ctx, request{ID: w.last.Add(1), Method: method, Params: params})
}

func (w *web) tell(ctx context.Context, method string) error {
	_, err := w.post(ctx, request{Method: method})
	return err
}

// listen opens the session's event stream, until close.
func (w *web) listen() error {
	r, err := w.request(w.streamsUntil, http.MethodGet, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "text/event-stream")
	answer, err := w.client.Do(r)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		_ = answer.Body.Close()
		return fmt.Errorf("listen: %s", answer.Status)
	}
	w.streams.Go(func() {
		_, _ = io.Copy(io.Discard, answer.Body) // until it is cut
		_ = answer.Body.Close()
	})
	return nil
}

func (w *web) close() error {
	w.cut()
	w.streams.Wait()
	return nil
}
