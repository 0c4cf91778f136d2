package server_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/server"
)

// greet begins a session over stdio as a client that can be asked, or not.
func greet(w *wire, version, capabilities string) {
	w.t.Helper()
	w.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":%q,"capabilities":%s,"clientInfo":{"name":"desk (of\nann)","version":"2"}}}`, version, capabilities))
	w.answer(0)
	w.send(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
}

func isQuestion(m message) bool { return m.Method == "elicitation/create" }

// asked gives the id of a question about something, as it is on the wire.
func asked(t *testing.T, m message, about string) string {
	t.Helper()
	var p struct {
		Message string
		Schema  json.RawMessage `json:"requestedSchema"`
	}
	require.NoError(t, json.Unmarshal(m.Params, &p))
	require.Equal(t, "May I "+about+"?", p.Message)
	require.JSONEq(t, `{"type":"object","required":["approve"],"properties":{"approve":{"type":"boolean","title":"Do it","default":false,
		"description":"Yes spends money. No, or no answer, leaves it to gpulease approve."}}}`, string(p.Schema))
	return string(m.ID)
}

func (w *wire) question(about string) string {
	w.t.Helper()
	return asked(w.t, w.await("the question about "+about, func(m message) bool {
		return isQuestion(m) && strings.Contains(string(m.Params), "May I "+about+"?")
	}), about)
}

func (w *wire) reply(id, result string) {
	w.t.Helper()
	w.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%q,%s}`, id, result))
}

// text is what put_question made of an answer.
func text(t *testing.T, r toolResult) string {
	t.Helper()
	require.False(t, r.IsError, "%v", r.Content)
	var s struct{ Text string }
	require.NoError(t, json.Unmarshal(r.Structured, &s))
	return s.Text
}

const canBeAsked = `{"elicitation":{}}`

var answers = map[string]struct {
	result string // of a message, from "result" or "error" on
	want   string
}{
	"yes":                {`"result":{"action":"accept","content":{"approve":true}}`, `yes true by desk _of_ann_ 2 about "": `},
	"no":                 {`"result":{"action":"accept","content":{"approve":false}}`, "yes false.*the answer was no"},
	"declined":           {`"result":{"action":"decline"}`, "yes false.*declined"},
	"put aside":          {`"result":{"action":"cancel"}`, "yes false.*put aside"},
	"accepted blindly":   {`"result":{"action":"accept"}`, "yes false.*does not fit"},
	"empty form":         {`"result":{"action":"accept","content":{}}`, "yes false.*does not fit"},
	"a word for a truth": {`"result":{"action":"accept","content":{"approve":"true"}}`, "yes false.*does not fit"},
	"a number":           {`"result":{"action":"accept","content":{"approve":1}}`, "yes false.*does not fit"},
	"a list":             {`"result":{"action":"accept","content":[true]}`, "yes false.*does not fit"},
	"another field":      {`"result":{"action":"accept","content":{"approve":true,"and":1}}`, "yes false.*does not fit"},
	"another case":       {`"result":{"action":"accept","content":{"Approve":true}}`, "yes false.*does not fit"},
	"content's case":     {`"result":{"action":"accept","content":{"approve":false},"Content":{"approve":true}}`, "yes false.*the answer was no"},
	"action's case":      {`"result":{"Action":"accept","content":{"approve":true}}`, "yes false.*answer was none"},
	"another action":     {`"result":{"action":"approve","content":{"approve":true}}`, "yes false.*answer was none"},
	"no object":          {`"result":true`, "yes false.*an error"},
	"nothing":            {`"result":null`, "yes false.*answer was none"},
	"an error":           {`"error":{"code":-32601,"message":"no such method"}`, "yes false.*an error"},
}

func TestOnlyAYesThatFitsTheFormIsOne(t *testing.T) {
	for name, tc := range answers {
		t.Run(name, func(t *testing.T) {
			w := start(t, "asking")
			greet(w, "2025-11-25", canBeAsked)
			w.request(1, "tools/call", older("put_question", `{"text":"jump"}`))
			w.reply(w.question("jump"), tc.result)
			require.Regexp(t, "^"+tc.want, text(t, w.toolAnswer(1)))
		})
	}
}

// Who has not said that its user can be asked, or speaks where the operator has not
// switched it on, is never asked.
func TestNobodyIsAskedWhoCannotBe(t *testing.T) {
	for name, tc := range map[string]struct {
		role, version, capabilities string
		want                        string
	}{
		"the operator has not switched it on": {"server", "2025-11-25", canBeAsked, "nobody is asked"},
		"a client without the capability":     {"asking", "2025-11-25", `{}`, "nobody is asked"},
		"a client that opens URLs only":       {"asking", "2025-11-25", `{"elicitation":{"url":{}}}`, "nobody is asked"},
		"a client that shows forms":           {"asking", "2025-06-18", `{"elicitation":{"form":{}}}`, ""},
		"a client of an older revision":       {"asking", "2025-06-18", canBeAsked, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, tc.role)
			greet(w, tc.version, tc.capabilities)
			w.request(1, "tools/call", older("put_question", `{"text":"jump"}`))
			if tc.want == "" {
				w.reply(w.question("jump"), `"result":{"action":"decline"}`)
				require.Contains(t, text(t, w.toolAnswer(1)), "declined")
				return
			}
			require.Equal(t, tc.want, text(t, w.toolAnswer(1)))
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, m := range w.messages {
				require.False(t, isQuestion(m))
			}
		})
	}
}

// A question holds up nothing but its own call.
func TestOtherCallsGoOnBesideAQuestion(t *testing.T) {
	w := start(t, "asking")
	greet(w, "2025-11-25", canBeAsked)
	for i := range 3 {
		w.request(10+i, "tools/call", older("put_question", fmt.Sprintf(`{"text":"jump%d"}`, i)))
	}
	ids := []string{w.question("jump0"), w.question("jump1"), w.question("jump2")}
	w.request(1, "tools/call", older("echo", `{"text":"beside"}`))
	require.Equal(t, "beside", text(t, w.toolAnswer(1)))
	for i, id := range ids {
		w.reply(id, answers["yes"].result)
		require.Contains(t, text(t, w.toolAnswer(10+i)), "yes true", "it was still waited for")
	}
}

// A client that never answers ends its own call only, in time, and hears that the
// question is over; an answer after that is for nobody.
func TestASilentClientHoldsUpNothing(t *testing.T) {
	w := start(t, "asking-briefly")
	greet(w, "2025-11-25", canBeAsked)
	for i := range 3 {
		w.request(10+i, "tools/call", older("put_question", fmt.Sprintf(`{"text":"jump%d"}`, i)))
	}
	ids := []string{w.question("jump0"), w.question("jump1"), w.question("jump2")}
	for i, id := range ids {
		silent := w.answer(10 + i)
		require.Contains(t, string(silent.Result), "no answer came in time")
		over := w.await("the end of the question", func(m message) bool {
			return m.Method == "notifications/cancelled" && strings.Contains(string(m.Params), id)
		})
		require.Less(t, over.place, silent.place)
		w.reply(id, answers["yes"].result)
	}
	w.request(2, "tools/call", older("put_question", `{"text":"jump0"}`))
	require.Contains(t, text(t, w.toolAnswer(2)), "nobody is asked twice", "and the late yes is no answer to it")
	w.request(3, "tools/call", older("put_question", `{"text":"jump3"}`))
	require.Contains(t, text(t, w.toolAnswer(3)), "many questions lately", "a person is not to be flooded")
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.messages {
		require.Nil(t, m.Error, "a late answer is dropped and not answered: %+v", m)
	}
}

// A cancel ends the wait for an answer at once.
func TestACancelledCallAsksNoMore(t *testing.T) {
	w := start(t, "asking")
	greet(w, "2025-11-25", canBeAsked)
	w.request(1, "tools/call", older("put_question", `{"text":"jump"}`))
	id := w.question("jump")
	w.send(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`)
	w.await("the end of the question", func(m message) bool {
		return m.Method == "notifications/cancelled" && strings.Contains(string(m.Params), id)
	})
	w.reply(id, answers["yes"].result)
	w.request(2, "tools/call", older("echo", `{"text":"still here"}`))
	require.Equal(t, "still here", text(t, w.toolAnswer(2)))
}

func withQuestions(c *server.Config, _ *server.HTTP) { c.AskPerson = true }

// reader gives the messages of an event stream one by one, in time.
func reader(t *testing.T, r *http.Response) (next func() message) {
	t.Helper()
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for all := bufio.NewScanner(r.Body); all.Scan(); {
			if data, ok := strings.CutPrefix(all.Text(), "data: "); ok {
				lines <- data
			}
		}
	}()
	return func() (m message) {
		t.Helper()
		select {
		case line, ok := <-lines:
			require.True(t, ok, "the stream has ended")
			require.NoError(t, json.Unmarshal([]byte(line), &m), "%s", line)
		case <-time.After(patience):
			require.FailNow(t, "nothing came")
		}
		return m
	}
}

// older is a call of the revisions with a handshake.
func older(tool, args string) map[string]any {
	return map[string]any{"name": tool, "arguments": json.RawMessage(args)}
}

// Over HTTP the question comes with the call that asks, and only its own session answers.
func TestQuestionsOverHTTPAreTheirSessionsAlone(t *testing.T) {
	site := newSite(t, withQuestions)
	hello := strings.Replace(initialize("2025-11-25"), `"capabilities":{}`, `"capabilities":`+canBeAsked, 1)
	begin := func(headers ...string) string {
		r := site.ask("POST", "/mcp", hello, headers...)
		require.Equal(t, 200, r.StatusCode)
		return r.Header.Get("Mcp-Session-Id")
	}
	ann, second, bob := begin(), begin(), begin("Authorization", "Bearer bob-token")
	r := site.ask("POST", "/mcp", oldCall("put_question", `{"text":"jump"}`), "Mcp-Session-Id", ann)
	next := reader(t, r)
	question := next()
	for !isQuestion(question) {
		question = next()
	}
	yes := func(session string, headers ...string) int {
		code, _ := site.status("POST", "/mcp", fmt.Sprintf(`{"jsonrpc":"2.0","id":%q,%s}`, asked(t, question, "jump"), answers["yes"].result),
			append([]string{"Mcp-Session-Id", session}, headers...)...)
		return code
	}
	require.Equal(t, 404, yes(ann, "Authorization", "Bearer bob-token"), "another principal in her session")
	require.Equal(t, 202, yes(bob, "Authorization", "Bearer bob-token"), "heard, and dropped")
	require.Equal(t, 202, yes(second))
	code, _ := site.status("POST", "/mcp", fmt.Sprintf(`{"jsonrpc":"2.0","id":%q,%s}`, asked(t, question, "jump"), answers["declined"].result), "Mcp-Session-Id", ann)
	require.Equal(t, 202, code)
	last := next()
	for last.Method != "" {
		last = next()
	}
	require.Contains(t, string(last.Result), "declined", "the yes of others was none")
}
