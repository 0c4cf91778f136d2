package server_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	mcpserver "github.com/mark3labs/mcp-go/server"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/server"
)

func TestEveryRevisionOverHTTP(t *testing.T) {
	w := newSite(t, nil)
	for _, version := range []string{"2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"} {
		r := w.ask("POST", "/mcp", initialize(version))
		require.Contains(t, string(events(t, r)[0].Result), `"protocolVersion":"`+version+`"`)
		session := []string{"Mcp-Session-Id", r.Header.Get("Mcp-Session-Id"), "Mcp-Protocol-Version", version}
		require.JSONEq(t, `{"text":"x"}`, string(result(t, w.ask("POST", "/mcp", oldCall("echo", `{"text":"x"}`), session...)).Structured))
		status, _ := w.status("DELETE", "/mcp", "", session...)
		require.Equal(t, 200, status)
		status, _ = w.status("POST", "/mcp", oldCall("echo", `{"text":"x"}`), session...)
		require.Equal(t, 404, status, "the session has ended")
	}
	body, headers := newCall(t, "echo", `{"text":"x"}`)
	r := w.ask("POST", "/mcp", body, headers...)
	require.Empty(t, r.Header.Get("Mcp-Session-Id"))
	require.JSONEq(t, `{"text":"x"}`, string(result(t, r).Structured))
	for _, method := range []string{"GET", "DELETE"} {
		status, _ := w.status(method, "/mcp", "", headers...)
		require.Equal(t, 405, status)
	}
}

// The library answers a web page's request, from whatever Origin, and lets it read
// the older event streams.
func TestWebPagesAndForeignNamesAreRefused(t *testing.T) {
	w := newSite(t, func(_ *server.Config, h *server.HTTP) {
		h.Origins, h.Hosts = []string{"https://ours.example"}, []string{"gpu.example"}
	})
	for _, path := range []string{"/mcp", "/sse", "/message", "/healthz"} {
		for _, method := range []string{"GET", "POST", "DELETE", "OPTIONS"} {
			for _, origin := range []string{"https://evil.example", "null", "http://localhost:3000", "https://ours.example.evil.example", "http://" + w.addr + ".evil.example"} {
				status, _ := w.status(method, path, initialize("2025-06-18"), "Origin", origin)
				require.Equal(t, 403, status, "%s %s from %s", method, path, origin)
			}
			// DNS rebinding: the name is the attacker's, so its page has the same origin.
			status, _ := w.status(method, path, initialize("2025-06-18"), "Host", "evil.example", "Origin", "http://evil.example")
			require.Equal(t, 403, status, "%s %s at evil.example", method, path)
		}
	}
	for _, allowed := range [][]string{{"Origin", "https://ours.example"}, {"Origin", "http://" + w.addr}, {"Host", "gpu.example:7433"}, {"Host", "localhost"}, {"Host", "[::1]:1"}} {
		r := w.ask("POST", "/mcp", initialize("2025-06-18"), allowed...)
		require.Equal(t, 200, r.StatusCode, "%v", allowed)
		if allowed[0] == "Origin" {
			require.Equal(t, allowed[1], r.Header.Get("Access-Control-Allow-Origin"))
		}
	}
	r := w.ask("OPTIONS", "/mcp", "", "Origin", "https://ours.example", "Authorization", "")
	require.Equal(t, 204, r.StatusCode)
	require.Contains(t, r.Header.Get("Access-Control-Allow-Headers"), "Authorization")
	r = w.ask("GET", "/sse", "")
	require.Equal(t, 200, r.StatusCode)
	require.Empty(t, r.Header.Get("Access-Control-Allow-Origin"))
}

func TestNobodyGetsInWithoutAToken(t *testing.T) {
	w := newSite(t, nil)
	for _, ask := range []struct{ method, path string }{{"POST", "/mcp"}, {"GET", "/mcp"}, {"DELETE", "/mcp"}, {"GET", "/sse"}, {"POST", "/message"}} {
		for given, challenge := range map[string]string{
			"": `Bearer realm="gpulease"`, "Basic ann-token": `Bearer realm="gpulease"`, "Bearer ": `Bearer realm="gpulease"`,
			"Bearer wrong": `Bearer realm="gpulease", error="invalid_token"`,
		} {
			r := w.ask(ask.method, ask.path, initialize("2025-06-18"), "Authorization", given)
			require.Equal(t, 401, r.StatusCode, "%v %q", ask, given)
			require.Equal(t, challenge, r.Header.Get("WWW-Authenticate"))
		}
		_, text := w.status(ask.method, ask.path, "", "Authorization", "Bearer wrong")
		require.Contains(t, text, "not known here")
		_, text = w.status(ask.method, ask.path, "", "Authorization", "")
		require.Contains(t, text, "a bearer token is needed")
		status, text := w.status(ask.method, ask.path, "", "Authorization", "Bearer unreadable")
		require.Equal(t, 503, status)
		require.NotContains(t, text, "disk")
	}
	status, text := w.status("GET", "/healthz", "", "Authorization", "")
	require.Equal(t, 200, status)
	require.Equal(t, "ok\n", text)
	status, _ = w.status("GET", server.MetadataPath, "", "Authorization", "")
	require.Equal(t, 404, status)
}

func TestClientsAreToldWhereToGetAToken(t *testing.T) {
	const url = "https://gpu.example/.well-known/oauth-protected-resource/mcp"
	w := newSite(t, func(_ *server.Config, h *server.HTTP) {
		h.OAuth = &server.OAuth{Metadata: map[string]string{"resource": "https://gpu.example/mcp"}, MetadataURL: url, Scope: "gpu"}
	})
	for given, want := range map[string]struct {
		status int
		code   string
	}{"": {401, ""}, "Bearer wrong": {401, `, error="invalid_token"`}, "Bearer scopeless": {403, `, error="insufficient_scope"`}} {
		r := w.ask("POST", "/mcp", initialize("2025-06-18"), "Authorization", given)
		require.Equal(t, want.status, r.StatusCode)
		require.Equal(t, `Bearer realm="gpulease"`+want.code+`, resource_metadata="`+url+`", scope="gpu"`, r.Header.Get("WWW-Authenticate"))
	}
	for _, path := range []string{server.MetadataPath, server.MetadataPath + "/mcp"} {
		status, text := w.status("GET", path, "", "Authorization", "")
		require.Equal(t, 200, status)
		require.JSONEq(t, `{"resource":"https://gpu.example/mcp"}`, text)
	}
}

// In the library a session is whoever's names it, and GET takes any name for one.
func TestASessionIsItsPrincipalsAlone(t *testing.T) {
	w := newSite(t, nil)
	id := w.session()
	events := w.ask("GET", "/sse", "")
	endpoint := readEndpoint(t, events)
	bob := []string{"Authorization", "Bearer bob-token"}
	for _, method := range []string{"POST", "GET", "DELETE"} {
		for _, session := range []string{id, "made-up"} {
			status, text := w.status(method, "/mcp", oldCall("echo", `{"text":"x"}`), append(bob, "Mcp-Session-Id", session)...)
			require.Equal(t, 404, status)
			require.Equal(t, "there is no such session; initialize begins a new one\n", text)
		}
		status, _ := w.status(method, "/mcp", oldCall("echo", `{"text":"x"}`))
		require.Equal(t, 400, status, "%s without a session", method)
	}
	for _, path := range []string{endpoint, "/message?sessionId=made-up", "/message?sessionId=" + id + "x"} {
		status, _ := w.status("POST", path, initialize("2024-11-05"), bob...)
		require.Equal(t, 404, status)
	}
	require.False(t, result(t, w.ask("POST", "/mcp", oldCall("echo", `{"text":"x"}`), "Mcp-Session-Id", id)).IsError)
	status, _ := w.status("POST", endpoint, initialize("2024-11-05"))
	require.Equal(t, 202, status)
}

func readEndpoint(t *testing.T, r *http.Response) string {
	t.Helper()
	b := make([]byte, 200)
	n, err := r.Body.Read(b)
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(b[:n]), "data: ")
	require.True(t, ok)
	return strings.TrimSpace(rest)
}

// Every client counts its requests from 0 or 1, and the library takes all clients of
// the newest revision for one.
func TestACancelReachesNobodyElsesCall(t *testing.T) {
	cancels := func(send func(body string, headers ...string)) {
		body := `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1`
		send(body+`,"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}`,
			"Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", "notifications/cancelled")
		send(body+`}}`, "Mcp-Protocol-Version", "2026-07-28") // as the official Go client does
		send(body + `}}`)
	}
	body, headers := newCall(t, "wait_here", `{"milliseconds":700}`)
	try := func(w *site, session string) toolResult {
		headers := append([]string{"Mcp-Session-Id", session}, headers...)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 10 { // until the call is sure to be under way
				time.Sleep(30 * time.Millisecond)
				cancels(func(body string, more ...string) {
					r, err := w.send(context.Background(), "POST", "/mcp", strings.NewReader(body), append([]string{"Authorization", "Bearer bob-token", "Mcp-Session-Id", session}, more...)...)
					if assert.NoError(t, err) {
						assert.NoError(t, r.Body.Close())
					}
				})
			}
		}()
		defer func() { <-done }()
		return result(t, w.ask("POST", "/mcp", body, headers...))
	}

	bare := newServer(t, nil)
	library := httptest.NewServer(mcpserver.NewStreamableHTTPServer(bare.MCP()))
	defer library.Close()
	got := try(&site{t: t, addr: library.Listener.Addr().String()}, "")
	require.True(t, got.IsError, "the library alone: if this fails, it has mended the fault")
	require.Contains(t, got.Content[0].Text, "the call was cancelled")

	w := newSite(t, nil)
	require.False(t, try(w, "").IsError)
	ann := w.session()
	body, headers = oldCall("wait_here", `{"milliseconds":700}`), nil
	require.False(t, try(w, ann).IsError, "nor a cancel in a session that is another's")

	// Its own reaches it.
	done := make(chan struct{})
	go func() {
		defer close(done)
		time.Sleep(100 * time.Millisecond)
		w.status("POST", "/mcp", `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`, "Mcp-Session-Id", ann)
	}()
	got = result(t, w.ask("POST", "/mcp", oldCall("wait_here", `{"wait_seconds":45}`), "Mcp-Session-Id", ann))
	require.Contains(t, got.Content[0].Text, "the call was cancelled")
	<-done
}

// The library sends a note into the session's queue, from which any request of the
// session may take it, or none.
func TestProgressOverHTTPComesWithItsCallBeforeTheAnswer(t *testing.T) {
	w := newSite(t, nil)
	session := w.session()
	listener := w.ask("GET", "/mcp", "", "Mcp-Session-Id", session)
	require.Equal(t, 200, listener.StatusCode)
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			for i := range 10 {
				body := strings.ReplaceAll(oldCall("note_and_answer", `{"text":"x"}`), `"p"`, fmt.Sprint(i))
				r, err := w.send(t.Context(), "POST", "/mcp", strings.NewReader(body), "Mcp-Session-Id", session)
				if !assert.NoError(t, err) {
					return
				}
				list := events(t, r)
				assert.NoError(t, r.Body.Close())
				if assert.Len(t, list, 2) {
					assert.Equal(t, "notifications/progress", list[0].Method)
					assert.Contains(t, string(list[0].Params), fmt.Sprintf(`"progressToken":%d`, i))
					assert.Contains(t, string(list[1].Result), `"structuredContent":{"text":"x"}`)
				}
			}
		})
	}
	all.Wait()

	r := w.ask("POST", "/mcp", oldCall("note_and_answer", `{"text":"x"}`), "Mcp-Session-Id", session, "Accept", "application/json")
	require.Equal(t, "application/json", r.Header.Get("Content-Type"), "who takes no events gets none")
	require.Len(t, events(t, r), 1)
}

// The library sends nothing at all until it has the answer.
func TestNoCallIsSilentForLong(t *testing.T) {
	w := newSite(t, func(_ *server.Config, h *server.HTTP) { h.Quiet = 50 * time.Millisecond })
	body, headers := newCall(t, "wait_here", `{"milliseconds":400}`)
	began := time.Now()
	r := w.ask("POST", "/mcp", body, headers...)
	require.Less(t, time.Since(began), 350*time.Millisecond, "the answer begins before it is known")
	raw, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	require.GreaterOrEqual(t, bytes.Count(raw, []byte(": still here\n\n")), 3)
	require.Contains(t, string(raw), "event: message\ndata: {")
	require.Equal(t, 1, bytes.Count(raw, []byte("data: ")))

	for path, session := range map[string]string{"/sse": "", "/mcp": w.session()} {
		lines := bufio.NewScanner(w.ask("GET", path, "", "Mcp-Session-Id", session).Body)
		for lines.Scan() && lines.Text() != ": still here" {
			continue
		}
		require.NoError(t, lines.Err(), path)
	}
}

func TestRequestsAreBounded(t *testing.T) {
	w := newSite(t, func(_ *server.Config, h *server.HTTP) { h.Rate = 2 })
	bob := []string{"Authorization", "Bearer bob-token"}
	huge := io.LimitReader(endless{}, 100<<20)
	r, err := w.send(t.Context(), "POST", "/mcp", huge, bob...)
	require.NoError(t, err)
	defer r.Body.Close()
	require.Equal(t, 413, r.StatusCode)

	for i := range 100 {
		r := w.ask("POST", "/mcp", "{}")
		if r.StatusCode == 429 {
			require.Equal(t, "1", r.Header.Get("Retry-After"))
			require.GreaterOrEqual(t, i, 18, "a burst is allowed")
			break
		}
		require.Less(t, i, 50, "the rate is bounded")
	}
	status, _ := w.status("POST", "/mcp", initialize("2025-06-18"), bob...)
	require.Equal(t, 200, status, "another principal has its own rate")
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

func TestOnePrincipalsCallsLeaveRoomForOthers(t *testing.T) {
	w := newSite(t, func(_ *server.Config, h *server.HTTP) { h.Calls, h.Quiet = 2, 20*time.Millisecond })
	body, headers := newCall(t, "wait_here", `{"wait_seconds":45}`)
	for range 2 {
		w.ask("POST", "/mcp", body, headers...) // they are under way once their answers have begun
	}
	body, headers = newCall(t, "echo", `{"text":"x"}`)
	got := result(t, w.ask("POST", "/mcp", body, headers...))
	require.Contains(t, got.Content[0].Text, "error rate_limited: too many calls of yours run at once: 2\n")
	got = result(t, w.ask("POST", "/mcp", body, append(headers, "Authorization", "Bearer bob-token")...))
	require.False(t, got.IsError)
}

// Half-open connections, and headers that never end.
func TestConnectionsThatSayNothingKeepNobodyOut(t *testing.T) {
	w := newSite(t, func(_ *server.Config, h *server.HTTP) { h.Connections, h.HeaderTime = 64, 300*time.Millisecond })
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for range 300 {
		c, err := net.Dial("tcp", w.addr)
		require.NoError(t, err)
		open = append(open, c)
	}
	for range 20 {
		status, _ := w.status("POST", "/mcp", initialize("2025-06-18"))
		require.Equal(t, 200, status)
	}
	for _, begun := range []string{
		"POST /mcp HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
		"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n", // without a token, nobody reads it
		"POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ann-token\r\nContent-Length: 100\r\n\r\n{",
	} {
		slow, err := net.Dial("tcp", w.addr)
		require.NoError(t, err)
		open = append(open, slow)
		_, err = io.WriteString(slow, begun)
		require.NoError(t, err)
		require.NoError(t, slow.SetReadDeadline(time.Now().Add(patience)))
		_, err = io.ReadAll(slow)
		require.NoError(t, err, "it is closed, not waited for: %q", begun)
	}
}

func TestIdleConnectionsMakeRoom(t *testing.T) {
	w := newSite(t, func(_ *server.Config, h *server.HTTP) { h.Connections = 16 })
	for range 100 {
		c, err := net.Dial("tcp", w.addr)
		require.NoError(t, err)
		defer c.Close()
		_, err = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
		require.NoError(t, err)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
		_, err = c.Read(make([]byte, 1000))
		require.NoError(t, err)
	}
}

// With the library alone the end takes as long as somebody listens.
func TestTheEndOverHTTPIsCleanAndBounded(t *testing.T) {
	w := newSite(t, func(c *server.Config, h *server.HTTP) { c.StopGrace, h.Quiet = time.Second, 20*time.Millisecond })
	session := w.session()
	require.Equal(t, 200, w.ask("GET", "/mcp", "", "Mcp-Session-Id", session).StatusCode)
	require.Equal(t, 200, w.ask("GET", "/sse", "").StatusCode)
	listen := request(t, 1, "subscriptions/listen", map[string]any{"_meta": modern(nil), "notifications": map[string]any{}})
	w.ask("POST", "/mcp", listen, "Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", "subscriptions/listen")
	body, headers := newCall(t, "ignore_end", `{}`)
	w.ask("POST", "/mcp", body, headers...)
	body, headers = newCall(t, "wait_here", `{"milliseconds":500}`)
	short := w.ask("POST", "/mcp", body, headers...)

	began, done := time.Now(), make(chan struct{})
	go func() { defer close(done); assert.NoError(t, w.stop()) }()
	require.False(t, result(t, short).IsError, "a call under way is answered")
	soon(t, "the end", done)
	require.Less(t, time.Since(began), 6*time.Second)
	_, err := net.Dial("tcp", w.addr)
	require.Error(t, err)
}
