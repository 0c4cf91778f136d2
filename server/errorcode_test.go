package server_test

import (
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/server"
)

// wrongs are requests that fail, and the codes of both eras for them.
var wrongs = []struct {
	method        string
	params        map[string]any
	older, modern int
	text          string
}{
	{"resources/read", map[string]any{"uri": "thing://x/part"}, -32002, -32602, "error job_not_found: no part of x\nnext: call get_lease for the jobs of the lease\nretryable: no"},
	{"resources/read", map[string]any{"uri": "none://x"}, -32002, -32602, ""},
	{"resources/read", map[string]any{"uri": "shop://fire"}, -32603, -32603, ""},
	{"prompts/get", map[string]any{"name": "greet"}, -32602, -32602, "greet needs the argument person: Whom."},
	{"prompts/get", map[string]any{"name": "greet", "arguments": map[string]any{"person": "nobody"}}, -32602, -32602, ""},
}

// The library gives every failure of a handler the code of a bug of ours.
func TestFailuresHaveTheCodeOfTheirRevision(t *testing.T) {
	t.Run("stdio", func(t *testing.T) {
		w := start(t, "shop")
		for i, tc := range wrongs {
			w.request(10+i, tc.method, tc.params)
			m := w.answer(10 + i)
			require.NotNil(t, m.Error)
			require.Equal(t, tc.older, m.Error.Code, "%v", tc.params)
			require.Contains(t, m.Error.Message, tc.text)
			require.NotContains(t, m.Error.Message, "code-")
			w.request(20+i, tc.method, mergedWith(map[string]any{"_meta": modern(nil)}, tc.params))
			m = w.answer(20 + i)
			require.NotNil(t, m.Error)
			require.Equal(t, tc.modern, m.Error.Code, "%v", tc.params)
		}
	})
	t.Run("HTTP+SSE", func(t *testing.T) {
		site := newSite(t, func(c *server.Config, _ *server.HTTP) { *c = (&shop{things: map[string]string{}}).config(*c) })
		stream := site.ask("GET", "/sse", "")
		endpoint := readEndpoint(t, stream)
		next := reader(t, stream)
		for _, tc := range wrongs {
			status, _ := site.status("POST", endpoint, request(t, 1, tc.method, tc.params))
			require.Equal(t, 202, status)
			m := next()
			require.NotNil(t, m.Error)
			require.Equal(t, tc.older, m.Error.Code, "%v", tc.params)
			require.Contains(t, m.Error.Message, tc.text)
		}
	})
	t.Run("HTTP", func(t *testing.T) {
		site := newSite(t, func(c *server.Config, _ *server.HTTP) { *c = (&shop{things: map[string]string{}}).config(*c) })
		session := site.session()
		for _, tc := range wrongs {
			m := events(t, site.ask("POST", "/mcp", request(t, 1, tc.method, tc.params), "Mcp-Session-Id", session))[0]
			require.NotNil(t, m.Error)
			require.Equal(t, tc.older, m.Error.Code, "%v", tc.params)
			require.Contains(t, m.Error.Message, tc.text)
			name, _ := tc.params["uri"].(string)
			if name == "" {
				name, _ = tc.params["name"].(string)
			}
			r := site.ask("POST", "/mcp", request(t, 1, tc.method, mergedWith(map[string]any{"_meta": modern(nil)}, tc.params)),
				"Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", tc.method, "Mcp-Name", name)
			raw, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			require.Contains(t, string(raw), fmt.Sprintf(`"code":%d`, tc.modern), "%v", tc.params)
			if name == "thing://x/part" {
				require.Contains(t, string(raw), `"data":{"uri":"thing://x/part"}`)
			}
		}
	})
}
