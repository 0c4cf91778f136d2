package server_test

import (
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/server"
)

func TestSessionsAreBoundedAndReaped(t *testing.T) {
	w := newSite(t, func(_ *server.Config, h *server.HTTP) { h.Sessions, h.SessionIdle = 3, 300*time.Millisecond })
	alive := func(id string, who ...string) bool {
		status, _ := w.status("POST", "/mcp", oldCall("echo", `{"text":"x"}`), append(who, "Mcp-Session-Id", id)...)
		return status == 200
	}
	bobs := w.session("Authorization", "Bearer bob-token")
	listening, first := w.session(), w.session()
	stream := w.ask("GET", "/mcp", "", "Mcp-Session-Id", listening)
	require.Equal(t, 200, stream.StatusCode)
	second, third := w.session(), w.session()
	require.False(t, alive(first), "the one unused for longest makes room")
	for _, id := range []string{listening, second, third} {
		require.True(t, alive(id))
	}
	require.True(t, alive(bobs, "Authorization", "Bearer bob-token"), "another principal's does not")

	require.Eventually(t, func() bool {
		time.Sleep(350 * time.Millisecond) // each look is a use
		return !alive(second)
	}, patience, time.Millisecond)
	require.True(t, alive(listening), "one that is listened to is in use")

	gone := w.ask("GET", "/sse", "", "Authorization", "Bearer gone-token")
	_, err := io.ReadAll(gone.Body)
	require.NoError(t, err, "a principal whose token was revoked is cut off")
}

// All principals share so many sessions. Nobody loses one to another, an idle one of
// one's own makes room, and who is refused is told why.
func TestSessionsOfAllAreBounded(t *testing.T) {
	w := newSite(t, func(_ *server.Config, h *server.HTTP) { h.AllSessions, h.Sessions = 4, 3 })
	bob := []string{"Authorization", "Bearer bob-token"}
	first, second, third := w.session(), w.session(), w.session()
	bobs := w.session(bob...)
	stream := w.ask("GET", "/mcp", "", append([]string{"Mcp-Session-Id", bobs}, bob...)...)
	require.Equal(t, 200, stream.StatusCode)
	r := w.ask("POST", "/mcp", initialize("2025-06-18"), bob...)
	text, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	require.Equal(t, 503, r.StatusCode)
	require.Equal(t, "60", r.Header.Get("Retry-After"))
	require.Equal(t, "this server has all the sessions that it may have (4, --max-sessions); one ends when its client ends it, or after 30m0s without use\n", string(text))
	status, _ := w.status("GET", "/sse", "", bob...)
	require.Equal(t, 503, status, "over the older transport, too")

	fourth := w.session() // in the place of her own first
	for id, want := range map[string]int{first: 404, second: 200, third: 200, fourth: 200} {
		status, _ := w.status("POST", "/mcp", oldCall("echo", `{"text":"x"}`), "Mcp-Session-Id", id)
		require.Equal(t, want, status)
	}
	status, _ = w.status("DELETE", "/mcp", "", "Mcp-Session-Id", second)
	require.Equal(t, 200, status)
	require.NotEmpty(t, w.session(bob...), "a place is free again")
}

// Many that begin at once do not slip through together.
func TestSessionsThatBeginTogetherAreBounded(t *testing.T) {
	w := newSite(t, func(_ *server.Config, h *server.HTTP) { h.AllSessions, h.Sessions = 5, 5 })
	var beginning sync.WaitGroup
	for range 40 {
		beginning.Go(func() {
			r, err := w.send(t.Context(), "POST", "/mcp", strings.NewReader(initialize("2025-06-18")))
			if assert.NoError(t, err) {
				assert.Contains(t, []int{200, 503}, r.StatusCode)
				assert.NoError(t, r.Body.Close())
			}
		})
	}
	beginning.Wait()
	require.LessOrEqual(t, w.server.Sessions(), 5)
	require.Positive(t, w.server.Sessions())
}

// What only looks like a message of the revision without sessions begins a session all
// the same, which has to have its place.
func TestSessionsThatBeginInDisguiseAreBounded(t *testing.T) {
	w := newSite(t, func(_ *server.Config, h *server.HTTP) { h.AllSessions, h.Sessions = 4, 3 })
	const version = `"io.modelcontextprotocol/protocolVersion":"2026-07-28"`
	plain := initialize("2025-06-18")
	for _, disguise := range []string{
		`"_meta":{` + strings.Replace(version, "io.", "IO.", 1) + `},`,
		`"_meta":{` + version + `},"_meta":{},`,
		`"_META":{` + version + `},"_meta":{"progressToken":1},`,
		`"_meta":{` + version + `,` + strings.Replace(version, "2026-07-28", "2025-06-18", 1) + `},`,
		`"_meta":{` + version + `,"progressToken":[{}]},`,
		`"_meta":{` + version + `},"_meta":null,`,
	} {
		for range 5 {
			status, text := w.status("POST", "/mcp", strings.Replace(plain, `"params":{`, `"params":{`+disguise, 1))
			require.Contains(t, []int{200, 400}, status, "%s: %s", disguise, text)
			require.LessOrEqual(t, w.server.Sessions(), 3, "%s", disguise)
		}
	}
	require.NotEmpty(t, w.session("Authorization", "Bearer bob-token"), "there is room for another principal")
}
