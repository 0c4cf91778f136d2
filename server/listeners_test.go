package server_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/server"
)

// listenModern opens an event stream of 2026-07-28, for as long as ctx lasts.
func (w *site) listenModern(ctx context.Context, token string) *http.Response {
	w.t.Helper()
	body := request(w.t, 7, "subscriptions/listen", map[string]any{"_meta": modern(nil), "notifications": map[string]any{"resourcesListChanged": true}})
	r, err := w.send(ctx, "POST", "/mcp", strings.NewReader(body), "Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", "subscriptions/listen", "Authorization", "Bearer "+token)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = r.Body.Close() })
	return r
}

// lineWith reads an event stream up to a line with a word, and gives what follows from it on.
func lineWith(t *testing.T, r *http.Response, word string) string {
	t.Helper()
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() {
		if i := strings.Index(lines.Text(), word); i >= 0 {
			return lines.Text()[i:]
		}
	}
	require.NoError(t, lines.Err())
	require.Fail(t, "the stream has ended", "%s", word)
	return ""
}

// Each stream holds one of the connections that all share.
func TestStreamsWithoutASessionAreBounded(t *testing.T) {
	w := newSite(t, func(c *server.Config, h *server.HTTP) {
		*c, h.Sessions = (&shop{things: map[string]string{}}).config(*c), 3
	})
	first, cancel := context.WithCancel(t.Context())
	defer cancel()
	require.Equal(t, 200, w.listenModern(first, "ann-token").StatusCode)
	for range 2 {
		require.Equal(t, 200, w.listenModern(t.Context(), "ann-token").StatusCode)
	}
	refused := w.listenModern(t.Context(), "ann-token")
	require.Equal(t, 429, refused.StatusCode)
	require.Equal(t, "60", refused.Header.Get("Retry-After"))
	require.Equal(t, 200, w.listenModern(t.Context(), "bob-token").StatusCode, "another principal has places of its own")
	body, headers := newCall(t, "echo", `{"text":"x"}`)
	require.Equal(t, 200, w.ask("POST", "/mcp", body, headers...).StatusCode, "calls need no such place")
	stream := w.ask("GET", "/sse", "")
	path := strings.TrimSpace(lineWith(t, stream, "/message?"))
	status, _ := w.status("POST", path, request(t, 1, "subscriptions/listen", map[string]any{"_meta": modern(nil), "notifications": map[string]any{"resourcesListChanged": true}}))
	require.Equal(t, 400, status, "HTTP+SSE has none of them")
	cancel()
	require.Eventually(t, func() bool { return w.listenModern(t.Context(), "ann-token").StatusCode == 200 }, patience, 10*time.Millisecond, "one that was closed leaves its place")
}

func TestStreamsWithoutASessionEndWithTheToken(t *testing.T) {
	w := newSite(t, func(c *server.Config, h *server.HTTP) {
		*c, h.SessionIdle = (&shop{things: map[string]string{}}).config(*c), 100*time.Millisecond
	})
	stays := w.listenModern(t.Context(), "ann-token")
	_, err := io.ReadAll(w.listenModern(t.Context(), "gone-token").Body)
	require.NoError(t, err, "a principal whose token was revoked is cut off")
	body, headers := newCall(t, "mark_things", `{}`)
	require.False(t, result(t, w.ask("POST", "/mcp", body, headers...)).IsError)
	untilEvent(t, stays, "notifications/resources/list_changed")
	require.NoError(t, w.stop())
	_, err = io.ReadAll(stays.Body)
	require.NoError(t, err, "it ends with the server")
}
