package server_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/server"
	"github.com/gpulease/gpulease/tools"
)

// untilEvent reads an event stream up to the event that has all of the words.
func untilEvent(t *testing.T, r *http.Response, words ...string) {
	t.Helper()
	found := make(chan struct{})
	go func() {
		defer close(found)
		lines := bufio.NewScanner(r.Body)
	next:
		for lines.Scan() {
			for _, word := range words {
				if !strings.Contains(lines.Text(), word) {
					continue next
				}
			}
			return
		}
	}()
	soon(t, strings.Join(words, " "), found)
}

// The library acknowledges the subscriptions of 2026-07-28 over HTTP and never tells of
// a change.
func TestSubscribersHearOfChangesOverHTTP(t *testing.T) {
	w := newSite(t, func(c *server.Config, _ *server.HTTP) { *c = (&shop{things: map[string]string{}}).config(*c) })
	mark := func() {
		body, headers := newCall(t, "mark_things", `{}`)
		require.False(t, result(t, w.ask("POST", "/mcp", body, headers...)).IsError)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	body := request(t, 7, "subscriptions/listen", map[string]any{"_meta": modern(nil), "notifications": map[string]any{
		"resourcesListChanged": true, "resourceSubscriptions": []string{"shop://sign"},
	}})
	listen, err := w.send(ctx, "POST", "/mcp", strings.NewReader(body), "Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", "subscriptions/listen")
	require.NoError(t, err)
	defer listen.Body.Close()
	untilEvent(t, listen, "subscriptions/acknowledged", "shop://sign")
	mark()
	untilEvent(t, listen, "notifications/resources/updated", "shop://sign", `"io.modelcontextprotocol/subscriptionId":7`)
	mark()
	untilEvent(t, listen, "notifications/resources/list_changed")

	// An older client hears it on its own stream.
	id := w.session()
	events := w.ask("GET", "/mcp", "", "Mcp-Session-Id", id)
	status, text := w.status("POST", "/mcp", request(t, 1, "resources/subscribe", map[string]any{"uri": "thing://a"}), "Mcp-Session-Id", id)
	require.Equal(t, 200, status, text)
	status, _ = w.status("POST", "/mcp", request(t, 2, "resources/list", map[string]any{}), "Mcp-Session-Id", id)
	require.Equal(t, 200, status)
	mark()
	untilEvent(t, events, "notifications/resources/updated", "thing://a")
	mark()
	untilEvent(t, events, "notifications/resources/list_changed")
}

func TestAResourceIsReadWithThePrincipalsOwnTools(t *testing.T) {
	w := newSite(t, func(c *server.Config, h *server.HTTP) {
		*c = (&shop{things: map[string]string{}}).config(*c)
		h.Tools = func(principal string) ([]tools.Tool, error) {
			return []tools.Tool{tools.New(tools.Def{Name: "echo"}, func(_ context.Context, in sayIn) (said, error) {
				return said{principal + " " + in.Text}, nil
			})}, nil
		}
	})
	for _, name := range []string{"ann", "bob"} {
		body := request(t, 1, "resources/read", map[string]any{"_meta": modern(nil), "uri": "thing://x"})
		r := w.ask("POST", "/mcp", body, "Authorization", "Bearer "+name+"-token",
			"Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", "resources/read", "Mcp-Name", "thing://x")
		raw, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		require.Contains(t, string(raw), name+" x")
	}
}

// The stream of a principal whose token was revoked may still be open for a while.
func TestNobodyHearsAfterItsTokenWasRevoked(t *testing.T) {
	w := newSite(t, func(c *server.Config, _ *server.HTTP) { *c = (&shop{things: map[string]string{}}).config(*c) })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	listen := func(token string) *http.Response {
		body := request(t, 7, "subscriptions/listen", map[string]any{"_meta": modern(nil), "notifications": map[string]any{"resourceSubscriptions": []string{"shop://sign"}}})
		r, err := w.send(ctx, "POST", "/mcp", strings.NewReader(body), "Authorization", "Bearer "+token, "Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", "subscriptions/listen")
		require.NoError(t, err)
		t.Cleanup(func() { _ = r.Body.Close() })
		untilEvent(t, r, "subscriptions/acknowledged")
		return r
	}
	gone, ann := listen("gone-token"), listen("ann-token")
	for range 3 { // each is more than one look after the other
		body, headers := newCall(t, "mark_things", `{}`)
		require.False(t, result(t, w.ask("POST", "/mcp", body, headers...)).IsError)
		untilEvent(t, ann, "notifications/resources/updated")
	}
	cancel()
	rest, _ := io.ReadAll(gone.Body)
	require.NotContains(t, string(rest), "updated")
}
