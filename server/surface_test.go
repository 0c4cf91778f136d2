package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/mcp"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/server"
	"github.com/gpulease/gpulease/tools"
)

// shop is what the resources of the tests show: things that come and go. The tool
// mark_things changes them.
type shop struct {
	mu     sync.Mutex
	things map[string]string // by name; the values are their owners
	marks  int
}

type marks struct {
	Marks int `json:"marks"`
}

func (s *shop) config(c server.Config) server.Config {
	c.WatchEvery = 20 * time.Millisecond
	c.Tools = append(c.Tools, tools.New(tools.Def{Name: "mark_things"}, func(context.Context, nothing) (marks, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.marks++
		s.things[fmt.Sprint("thing", s.marks)] = "ann"
		return marks{s.marks}, nil
	}))
	version := func(context.Context, map[string]string) (string, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return fmt.Sprint(s.marks), nil
	}
	c.Resources = []tools.Resource{
		{URI: "shop://sign", Name: "sign", Title: "Sign", Description: "Over the door.", MIMEType: "text/plain", Version: version,
			Read: func(context.Context) (string, error) { return "open", nil }},
		{URI: "shop://fire", Name: "fire", MIMEType: "text/plain", Read: func(context.Context) (string, error) { return "", errors.New("the key is hunter2") }},
		{URI: "thing://{text}", Name: "thing", Title: "A thing", MIMEType: "application/json", Tool: "echo", Version: version,
			Arguments: func(v map[string]string) (map[string]any, error) { return map[string]any{"text": v["text"]}, nil }},
		{URI: "thing://{text}/part", Name: "part", MIMEType: "text/plain", Tool: "echo", Field: "text",
			Arguments: func(v map[string]string) (map[string]any, error) {
				return nil, &lease.Error{Code: lease.CodeJobNotFound, Message: "no part of " + v["text"]}
			}},
		{URI: "absent://{x}", Name: "absent", Tool: "no_such_tool"},
	}
	c.Live = func(context.Context) ([]tools.Listed, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		list := []tools.Listed{{URI: "absent://1", Name: "absent"}}
		for i := 1; i <= s.marks; i++ {
			name := fmt.Sprint("thing", i)
			list = append(list, tools.Listed{URI: "thing://" + name, Name: name, Title: name, MIMEType: "application/json"})
		}
		return list, nil
	}
	c.Prompts = []tools.Prompt{{
		Name: "greet", Title: "Greet", Description: "Says hello.", Arguments: []tools.Argument{{Name: "person", Description: "Whom.", Required: true}},
		Get: func(_ context.Context, a map[string]string) (string, error) {
			if a["person"] == "nobody" {
				return "", &lease.Error{Code: lease.CodeInvalidInput, Message: "nobody is there"}
			}
			return "Hello " + a["person"], nil
		},
	}, {Name: "useless", Needs: []string{"echo", "no_such_tool"}}}
	c.Complete = func(_ context.Context, argument, prefix string, others map[string]string) []string {
		if argument == "many" {
			return make([]string, 150)
		}
		return []string{prefix + argument + others["known"]}
	}
	return c
}

func newShop(t *testing.T) *server.Server {
	t.Helper()
	return newServer(t, func(c *server.Config) { *c = (&shop{things: map[string]string{}}).config(*c) })
}

func askFor(t *testing.T, s *server.Server, method string, params map[string]any) string {
	t.Helper()
	m := ask(t, s, method, params)
	require.Nil(t, m.Error, "%+v", m.Error)
	return string(m.Result)
}

func TestResourcesAreReadThroughTheirTools(t *testing.T) {
	s := newShop(t)
	list := askFor(t, s, "resources/list", map[string]any{})
	require.JSONEq(t, `{"resources":[{"uri":"shop://fire","name":"fire","mimeType":"text/plain"},
		{"uri":"shop://sign","name":"sign","title":"Sign","description":"Over the door.","mimeType":"text/plain"}]}`, list)
	require.False(t, askTool(t, s, "mark_things", `{}`).IsError)
	require.Contains(t, askFor(t, s, "resources/list", map[string]any{}), `{"uri":"thing://thing1","name":"thing1","title":"thing1","mimeType":"application/json"}`)

	templates := askFor(t, s, "resources/templates/list", map[string]any{})
	require.Contains(t, templates, `"uriTemplate":"thing://{text}"`)
	require.NotContains(t, templates, "absent", "a resource goes with its tool")

	for uri, want := range map[string]string{"shop://sign": "open", "thing://thing1": `{"text":"thing1"}`} {
		var got struct {
			Contents []struct{ URI, MIMEType, Text string } `json:"contents"`
		}
		require.NoError(t, json.Unmarshal([]byte(askFor(t, s, "resources/read", map[string]any{"uri": uri})), &got))
		require.Len(t, got.Contents, 1)
		require.Equal(t, uri, got.Contents[0].URI)
		require.Equal(t, want, got.Contents[0].Text)
	}
	for uri, want := range map[string]string{
		"shop://fire":    "error internal: something went wrong inside gpulease\nwhy: the server's log has the cause",
		"thing://x/part": "error job_not_found: no part of x",
		"none://x":       "resource not found",
	} {
		m := ask(t, s, "resources/read", map[string]any{"uri": uri})
		require.NotNil(t, m.Error, uri)
		require.Contains(t, m.Error.Message, want)
		require.NotContains(t, m.Error.Message, "hunter2")
	}
	modernList := askFor(t, s, "resources/list", map[string]any{"_meta": modern(nil)})
	require.Contains(t, modernList, `"ttlMs":0`, "leases come and go")
}

func TestPromptsAndCompletion(t *testing.T) {
	s := newShop(t)
	require.JSONEq(t, `{"prompts":[{"name":"greet","title":"Greet","description":"Says hello.","arguments":[{"name":"person","description":"Whom.","required":true}]}]}`,
		askFor(t, s, "prompts/list", map[string]any{}))
	require.JSONEq(t, `{"description":"Says hello.","messages":[{"role":"user","content":{"type":"text","text":"Hello Ann"}}]}`,
		askFor(t, s, "prompts/get", map[string]any{"name": "greet", "arguments": map[string]any{"person": "Ann"}}))
	for person, want := range map[string]map[string]any{
		"greet needs the argument person":                                {},
		`did you mean "person"?`:                                         {"person": "x", "persn": "y"},
		"error invalid_input: nobody is there\nnext: mend the arguments": {"person": "nobody"},
	} {
		m := ask(t, s, "prompts/get", map[string]any{"name": "greet", "arguments": want})
		require.NotNil(t, m.Error, person)
		require.Contains(t, m.Error.Message, person)
	}
	require.JSONEq(t, `{"completion":{"values":["abtext+"],"total":1}}`, askFor(t, s, "completion/complete", map[string]any{
		"ref": map[string]any{"type": "ref/resource", "uri": "thing://{text}"}, "argument": map[string]any{"name": "text", "value": "ab"},
		"context": map[string]any{"arguments": map[string]any{"known": "+"}},
	}))
	var many struct {
		Completion struct {
			Values  []string `json:"values"`
			Total   int      `json:"total"`
			HasMore bool     `json:"hasMore"`
		} `json:"completion"`
	}
	require.NoError(t, json.Unmarshal([]byte(askFor(t, s, "completion/complete", map[string]any{
		"ref": map[string]any{"type": "ref/prompt", "name": "greet"}, "argument": map[string]any{"name": "many", "value": ""},
	})), &many))
	require.Len(t, many.Completion.Values, 100)
	require.Equal(t, 150, many.Completion.Total)
	require.True(t, many.Completion.HasMore)
}

// Both eras over stdio: word comes of what was subscribed to, when it changes, and of
// nothing else.
func TestSubscribersHearOfChanges(t *testing.T) {
	updated := func(uri string) func(message) bool {
		return func(m message) bool {
			return m.Method == "notifications/resources/updated" && strings.Contains(string(m.Params), `"`+uri+`"`)
		}
	}
	listChanged := func(m message) bool { return m.Method == "notifications/resources/list_changed" }
	t.Run("2026-07-28", func(t *testing.T) {
		w := start(t, "shop")
		w.request(1, "subscriptions/listen", map[string]any{"_meta": modern(nil), "notifications": map[string]any{
			"resourcesListChanged": true, "resourceSubscriptions": []string{"thing://a", "none://x"},
		}})
		ack := w.await("the acknowledgement", func(m message) bool { return m.Method == "notifications/subscriptions/acknowledged" })
		require.Contains(t, string(ack.Params), "thing://a")
		w.request(2, "tools/call", call("mark_things", `{}`, nil))
		w.toolAnswer(2)
		for _, want := range []func(message) bool{updated("thing://a"), listChanged} {
			m := w.await("a change", want)
			require.Contains(t, string(m.Params), `"io.modelcontextprotocol/subscriptionId":1`)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, m := range w.messages {
			require.False(t, updated("shop://sign")(m), "nobody subscribed to it")
			require.False(t, updated("none://x")(m), "there is no such thing")
		}
	})
	t.Run("2025-06-18", func(t *testing.T) {
		w := start(t, "shop")
		w.send(initialize("2025-06-18"))
		w.answer(0)
		w.send(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
		w.request(1, "resources/subscribe", map[string]any{"uri": "shop://sign"})
		w.answer(1)
		w.request(2, "resources/list", map[string]any{})
		w.answer(2)
		w.request(3, "tools/call", map[string]any{"name": "mark_things", "arguments": map[string]any{}})
		w.toolAnswer(3)
		w.await("the change", updated("shop://sign"))
		w.await("the change of the list", listChanged)

		// What watches does not hold up the end.
		require.NoError(t, w.in.Close())
		code, took := w.exit()
		require.Zero(t, code)
		require.Less(t, took, 2*time.Second)
	})
}

func TestLogLinesAreForWhoAsks(t *testing.T) {
	for level, want := range map[string]map[string]string{
		"info":    {"echo": `"level":"info"`, "fail_known": `"level":"warning"`, "fail_unknown": `"level":"error"`},
		"warning": {"echo": "", "fail_known": `"code":"no_capacity"`, "fail_unknown": `"level":"error"`},
		"":        {"echo": "", "fail_known": "", "fail_unknown": ""},
	} {
		w := start(t, "shop")
		meta := map[string]any{}
		if level != "" {
			meta["io.modelcontextprotocol/logLevel"] = level
		}
		id := 0
		for tool, line := range want {
			id++
			args := map[string]string{"echo": `{"text":"hunter2"}`}[tool]
			if args == "" {
				args = `{}`
			}
			w.request(id, "tools/call", call(tool, args, meta))
			answered := w.answer(id)
			var said []string
			w.mu.Lock()
			for _, m := range w.messages[:answered.place] {
				if m.Method == "notifications/message" && strings.Contains(string(m.Params), `"tool":"`+tool+`"`) {
					said = append(said, string(m.Params))
				}
			}
			w.mu.Unlock()
			if line == "" {
				require.Empty(t, said, "%s at %q", tool, level)
				continue
			}
			require.Len(t, said, 1, "%s at %q", tool, level)
			require.Contains(t, said[0], line)
			require.NotContains(t, said[0], "hunter2")
		}
	}
}

// A tool that says nothing itself is not silent for 10 s where progress was asked for.
func TestNoCallIsSilentForTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, nil)
		c, err := client.NewInProcessClient(s.MCP())
		require.NoError(t, err)
		var mu sync.Mutex
		var at []time.Time
		c.OnNotification(func(n mcp.JSONRPCNotification) {
			mu.Lock()
			defer mu.Unlock()
			require.Equal(t, "notifications/progress", n.Method)
			at = append(at, time.Now())
		})
		require.NoError(t, c.Start(t.Context()))
		_, err = c.Initialize(t.Context(), mcp.InitializeRequest{})
		require.NoError(t, err)
		began := time.Now()
		req := mcp.CallToolRequest{}
		req.Params.Name, req.Params.Arguments = "wait_here", map[string]any{"wait_seconds": 45}
		req.Params.Meta = &mcp.Meta{ProgressToken: "token"}
		_, err = c.CallTool(t.Context(), req)
		require.NoError(t, err)
		ended := time.Now()
		require.GreaterOrEqual(t, ended.Sub(began), 40*time.Second)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, at, 5)
		for _, next := range append(at, ended) {
			require.LessOrEqual(t, next.Sub(began), 10*time.Second)
			began = next
		}
		require.NoError(t, c.Close())
	})
}
