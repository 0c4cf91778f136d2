package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/server"
)

// tokens are the principals by their tokens.
type tokens map[string]string

func (t tokens) Required() (bool, error) { return true, nil }

func (t tokens) Authenticate(_ context.Context, token string) (string, bool, error) {
	if token == "scopeless" {
		return "", false, server.ErrScope
	}
	if token == "unreadable" {
		return "", false, errors.New("the disk is gone")
	}
	return t[token], t[token] != "", nil
}

func (t tokens) Has(principal string) (bool, error) { return principal != "gone", nil }

// site is a server over HTTP with two principals, and a client that knows nothing
// but HTTP.
type site struct {
	t    *testing.T
	addr string
	stop func() error

	server *server.Server
}

func newSite(t *testing.T, change func(*server.Config, *server.HTTP)) *site {
	t.Helper()
	c := config()
	h := server.HTTP{Auth: tokens{"ann-token": "ann", "bob-token": "bob", "gone-token": "gone"}, Rate: 1e6}
	if change != nil {
		change(&c, &h)
	}
	s, err := server.New(c)
	require.NoError(t, err)
	on, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.ServeHTTP(ctx, on, h) }()
	w := &site{t: t, addr: on.Addr().String(), server: s}
	w.stop = func() error { cancel(); err := <-done; done <- err; return err }
	t.Cleanup(func() { require.NoError(t, w.stop()) })
	return w
}

// ask sends a request. headers are pairs of names and values.
func (w *site) ask(method, path, body string, headers ...string) *http.Response {
	w.t.Helper()
	r, err := w.send(w.t.Context(), method, path, strings.NewReader(body), headers...)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = r.Body.Close() })
	return r
}

func (w *site) send(ctx context.Context, method, path string, body io.Reader, headers ...string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+w.addr+path, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	r.Header.Set("Authorization", "Bearer ann-token")
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	return http.DefaultClient.Do(r)
}

// status is what a request is answered with; its body is read.
func (w *site) status(method, path, body string, headers ...string) (int, string) {
	w.t.Helper()
	r := w.ask(method, path, body, headers...)
	text, err := io.ReadAll(r.Body)
	require.NoError(w.t, err)
	return r.StatusCode, string(text)
}

// session begins a session as of 2025-06-18.
func (w *site) session(headers ...string) string {
	w.t.Helper()
	r := w.ask("POST", "/mcp", initialize("2025-06-18"), headers...)
	require.Equal(w.t, 200, r.StatusCode)
	id := r.Header.Get("Mcp-Session-Id")
	require.NotEmpty(w.t, id)
	return id
}

func initialize(version string) string {
	return `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"` + version + `","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`
}

// oldCall is a call in a session; newCall one of 2026-07-28, with its headers.
func oldCall(tool, args string) string {
	return `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + tool + `","arguments":` + args + `,"_meta":{"progressToken":"p"}}}`
}

func newCall(t *testing.T, tool, args string) (string, []string) {
	return request(t, 1, "tools/call", call(tool, args, nil)), []string{"Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/call", "Mcp-Name", tool}
}

// events reads the messages of an answer, whichever form it has.
func events(t *testing.T, r *http.Response) (list []message) {
	t.Helper()
	read := func(raw string) {
		var m message
		require.NoError(t, json.Unmarshal([]byte(raw), &m), "%s", raw)
		list = append(list, m)
	}
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "text/event-stream") {
		raw, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		read(string(raw))
		return list
	}
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			read(data)
		}
	}
	return list
}

// result is the answer of a call.
func result(t *testing.T, r *http.Response) toolResult {
	t.Helper()
	list := events(t, r)
	last := list[len(list)-1]
	require.Nil(t, last.Error, "%+v", last.Error)
	var res toolResult
	require.NoError(t, json.Unmarshal(last.Result, &res))
	return res
}

// soon fails the test where a thing takes as long as nothing here may.
func soon(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		require.FailNow(t, "it took too long", what)
	}
}
