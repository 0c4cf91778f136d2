package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/mcp"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/server"
	"github.com/gpulease/gpulease/tools"
)

// ask hands one request to the server and gives the response's bytes.
func ask(t *testing.T, s *server.Server, method string, params any) message {
	t.Helper()
	response := s.MCP().HandleMessage(t.Context(), json.RawMessage(request(t, 1, method, params)))
	raw, err := json.Marshal(response)
	require.NoError(t, err)
	var m message
	require.NoError(t, json.Unmarshal(raw, &m))
	return m
}

func askTool(t *testing.T, s *server.Server, tool, args string) toolResult {
	t.Helper()
	m := ask(t, s, "tools/call", call(tool, args, nil))
	require.Nil(t, m.Error)
	var r toolResult
	require.NoError(t, json.Unmarshal(m.Result, &r))
	return r
}

func newServer(t *testing.T, change func(*server.Config)) *server.Server {
	t.Helper()
	c := config()
	if change != nil {
		change(&c)
	}
	s, err := server.New(c)
	require.NoError(t, err)
	return s
}

func TestToolsListIsTheSameInBothErasAndEveryTime(t *testing.T) {
	type listed struct {
		Tools json.RawMessage `json:"tools"`
		TTL   *int64          `json:"ttlMs"`
		Scope string          `json:"cacheScope"`
	}
	var first string
	for range 20 {
		for _, params := range []any{map[string]any{}, map[string]any{"_meta": modern(nil)}} {
			c := config()
			c.Tools = append(c.Tools[3:], c.Tools[:3]...)
			s, err := server.New(c)
			require.NoError(t, err)
			var l listed
			require.NoError(t, json.Unmarshal(ask(t, s, "tools/list", params).Result, &l))
			if first == "" {
				first = string(l.Tools)
			}
			require.Equal(t, first, string(l.Tools))
			if l.TTL != nil {
				require.EqualValues(t, 60_000, *l.TTL)
				require.Equal(t, "private", l.Scope)
			}
		}
	}

	var list []struct {
		Name        string          `json:"name"`
		Title       string          `json:"title"`
		Annotations map[string]any  `json:"annotations"`
		Input       json.RawMessage `json:"inputSchema"`
		Output      json.RawMessage `json:"outputSchema"`
		Meta        map[string]any  `json:"_meta"`
	}
	require.NoError(t, json.Unmarshal([]byte(first), &list))
	var names []string
	for _, tool := range list {
		names = append(names, tool.Name)
		require.Len(t, tool.Annotations, 4, "all hints of %s are explicit", tool.Name)
	}
	require.Equal(t, []string{"break_down", "echo", "fail_known", "fail_unknown", "ignore_end", "note_and_answer", "put_question", "tell_call", "wait_here"}, names)

	echo := list[1]
	require.Equal(t, map[string]any{
		"readOnlyHint": true, "destructiveHint": false, "idempotentHint": true, "openWorldHint": false,
	}, echo.Annotations)
	require.Equal(t, "Echo", echo.Title)
	require.Equal(t, map[string]any{"anthropic/alwaysLoad": true}, echo.Meta)
	require.Nil(t, list[0].Meta)
	require.JSONEq(t, string(kit()[1].InputSchema), string(echo.Input))
	require.JSONEq(t, string(kit()[1].OutputSchema), string(echo.Output))
}

func TestHandshakes(t *testing.T) {
	s := newServer(t, nil)
	for _, version := range []string{"2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"} {
		m := ask(t, s, "initialize", map[string]any{
			"protocolVersion": version, "capabilities": map[string]any{}, "clientInfo": map[string]any{"name": "c", "version": "1"},
		})
		require.JSONEq(t, `{"protocolVersion":"`+version+`","capabilities":{"logging":{},"tools":{}},"instructions":"Echo first.",
			"serverInfo":{"name":"test","title":"Test server","version":"1.2.3"}}`, string(m.Result))
	}
	var found struct {
		Versions     []string        `json:"supportedVersions"`
		Capabilities json.RawMessage `json:"capabilities"`
		Instructions string          `json:"instructions"`
	}
	require.NoError(t, json.Unmarshal(ask(t, s, "server/discover", map[string]any{"_meta": modern(nil)}).Result, &found))
	require.Contains(t, found.Versions, "2026-07-28")
	require.Contains(t, found.Versions, "2025-06-18")
	require.JSONEq(t, `{"logging":{},"tools":{}}`, string(found.Capabilities), "a list that never changes needs no listChanged")
	require.Equal(t, "Echo first.", found.Instructions)
}

func TestResults(t *testing.T) {
	s := newServer(t, nil)
	r := askTool(t, s, "echo", `{"text":"hello"}`)
	require.False(t, r.IsError)
	require.JSONEq(t, `{"text":"hello"}`, string(r.Structured))
	require.Len(t, r.Content, 1)
	require.Equal(t, "text", r.Content[0].Type)

	for tool, want := range map[string]struct{ args, text string }{
		"fail_known": {`{}`, "error no_capacity: none free\nnext: call list_capacity for what is free now\nretryable: yes\nlease: abcdefghijkl"},
		"echo": {`{"tekst":"x"}`, "error invalid_input: there is no argument \"tekst\"; did you mean \"text\"?\n" +
			"why: text is missing (a string: What to say)\n" +
			"next: mend this and call echo again; nothing was done. echo takes: text\nretryable: no"},
	} {
		r := askTool(t, s, tool, want.args)
		require.True(t, r.IsError)
		require.Empty(t, r.Structured, "an error has text only: hosts disagree on which part they show")
		require.Len(t, r.Content, 1)
		require.Equal(t, want.text, r.Content[0].Text)
	}

	m := ask(t, s, "tools/call", call("no_such_tool", `{}`, nil))
	require.NotNil(t, m.Error)
	require.Equal(t, -32602, m.Error.Code)
}

func TestSecretsAndPanicsStayInside(t *testing.T) {
	for name, redact := range map[string]func(string) string{
		"without a redactor": nil,
		"with a redactor":    func(s string) string { return strings.ReplaceAll(s, "hunter2", "[redacted]") },
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			s := newServer(t, func(c *server.Config) {
				c.Redact = redact
				c.Logger = slog.New(slog.NewJSONHandler(&log, nil))
			})
			r := askTool(t, s, "break_down", `{}`)
			require.True(t, r.IsError)
			require.Contains(t, r.Content[0].Text, "error internal: break_down stopped on a bug in gpulease\n")
			require.NotContains(t, r.Content[0].Text, "hunter2")
			require.NotContains(t, r.Content[0].Text, "goroutine")
			require.Contains(t, log.String(), "the key is ", "the log has the panic")
			require.Contains(t, log.String(), "kit_test.go", "and where it came from")

			r = askTool(t, s, "fail_unknown", `{}`)
			require.True(t, r.IsError)
			require.NotContains(t, r.Content[0].Text, "hunter2")
			require.Contains(t, r.Content[0].Text, map[bool]string{true: "why: dial with [redacted]", false: "why: the server's log has the cause"}[redact != nil])
			if redact != nil {
				require.NotContains(t, log.String(), "hunter2")
			}

			require.False(t, askTool(t, s, "echo", `{"text":"still here"}`).IsError)
		})
	}
}

func TestCallIDComesFromTheHost(t *testing.T) {
	s := newServer(t, nil)
	for name, tc := range map[string]struct {
		meta map[string]any
		want string
	}{
		"none":        {nil, ""},
		"Claude Code": {map[string]any{"claudecode/toolUseId": "toolu_1"}, "toolu_1"},
		"Codex":       {map[string]any{"callId": "call_1"}, "call_1"},
		"no string":   {map[string]any{"callId": 7}, ""},
		"too long":    {map[string]any{"callId": strings.Repeat("x", 151)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := ask(t, s, "tools/call", call("tell_call", `{}`, tc.meta))
			var r toolResult
			require.NoError(t, json.Unmarshal(m.Result, &r))
			require.JSONEq(t, `{"text":"`+tc.want+`"}`, string(r.Structured))
		})
	}
}

// The times are those of production, in fake time.
func TestNoCallBlocksLongerThan45Seconds(t *testing.T) {
	for name, tc := range map[string]struct {
		tool, args string
		want       time.Duration
		text       string
	}{
		"a wait of 45 s ends as an answer": {"wait_here", `{"wait_seconds":45}`, 43 * time.Second, `{"milliseconds":43000}`},
		"a shorter wait is kept":           {"wait_here", `{"wait_seconds":"30"}`, 30 * time.Second, `{"milliseconds":30000}`},
		"a handler that ignores its context": {
			"ignore_forever", `{}`, 45 * time.Second, "error internal: the call did not finish in time\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				s := newServer(t, func(c *server.Config) {
					c.Tools = append(c.Tools, tools.New(tools.Def{Name: "ignore_forever"},
						func(context.Context, nothing) (nothing, error) { <-release; return nothing{}, nil }))
				})
				c, err := client.NewInProcessClient(s.MCP())
				require.NoError(t, err)
				require.NoError(t, c.Start(t.Context()))
				_, err = c.Initialize(t.Context(), mcp.InitializeRequest{})
				require.NoError(t, err)

				began := time.Now()
				req := mcp.CallToolRequest{}
				req.Params.Name, req.Params.Arguments = tc.tool, json.RawMessage(tc.args)
				result, err := c.CallTool(t.Context(), req)
				require.NoError(t, err)
				require.Equal(t, tc.want, time.Since(began))
				require.Contains(t, result.Content[0].(mcp.TextContent).Text, tc.text)

				close(release)
				require.NoError(t, c.Close())
				synctest.Wait()
			})
		})
	}
}

func TestProgressWithoutStdio(t *testing.T) {
	s := newServer(t, nil)
	c, err := client.NewInProcessClient(s.MCP())
	require.NoError(t, err)
	notes := make(chan mcp.JSONRPCNotification, 1)
	c.OnNotification(func(n mcp.JSONRPCNotification) { notes <- n })
	require.NoError(t, c.Start(t.Context()))
	_, err = c.Initialize(t.Context(), mcp.InitializeRequest{})
	require.NoError(t, err)
	req := mcp.CallToolRequest{}
	req.Params.Name, req.Params.Arguments = "note_and_answer", map[string]any{"text": "x"}
	req.Params.Meta = &mcp.Meta{ProgressToken: "token"}
	_, err = c.CallTool(t.Context(), req)
	require.NoError(t, err)
	select {
	case n := <-notes:
		require.Equal(t, "notifications/progress", n.Method)
		require.Equal(t, "token", n.Params.AdditionalFields["progressToken"])
		require.Equal(t, "nearly there: x", n.Params.AdditionalFields["message"])
	case <-time.After(patience):
		require.FailNow(t, "no progress")
	}
	require.NoError(t, c.Close())
}

func TestNewRefusesWhatClientsWouldTripOver(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*server.Config)
		want   string
	}{
		"no name":            {func(c *server.Config) { c.Name = "" }, "a server needs a name and a version"},
		"long instructions":  {func(c *server.Config) { c.Instructions = strings.Repeat("x", 2001) }, "the instructions have 2001 characters, the most is 2000"},
		"two of one name":    {func(c *server.Config) { c.Tools = append(c.Tools, c.Tools[0]) }, `there are two tools named "wait_here"`},
		"no function":        {func(c *server.Config) { c.Tools[0].Call = nil }, `the tool "wait_here" has no function or no input schema`},
		"no schema":          {func(c *server.Config) { c.Tools[0].InputSchema = nil }, `the tool "wait_here" has no function or no input schema`},
		"a long description": {func(c *server.Config) { c.Tools[0].Description = strings.Repeat("x", 1001) }, `the description of "wait_here" has 1001 characters, the most is 1000`},
	} {
		t.Run(name, func(t *testing.T) {
			c := config()
			tc.change(&c)
			_, err := server.New(c)
			require.EqualError(t, err, tc.want)
		})
	}
}
