package server_test

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/server"
)

var modernAsked = map[string]any{
	"io.modelcontextprotocol/clientCapabilities": map[string]any{"elicitation": map[string]any{"form": map[string]any{}}},
	"io.modelcontextprotocol/clientInfo":         map[string]any{"name": "desk", "version": "2"},
}

// inputRequired is the answer of 2026-07-28 that asks.
type inputRequired struct {
	ResultType    string `json:"resultType"`
	InputRequests map[string]struct {
		Method string          `json:"method"`
		Params json.RawMessage `json:"params"`
	} `json:"inputRequests"`
	RequestState string `json:"requestState"`
}

// askModern makes a call that asks, as a client of 2026-07-28.
func askModern(t *testing.T, s *server.Server, more map[string]any) message {
	t.Helper()
	params := call("put_question", `{"text":"jump"}`, modernAsked)
	maps.Copy(params, more)
	return ask(t, s, "tools/call", params)
}

func question(t *testing.T, m message) inputRequired {
	t.Helper()
	require.Nil(t, m.Error, "%+v", m.Error)
	var q inputRequired
	require.NoError(t, json.Unmarshal(m.Result, &q), "%s", m.Result)
	require.Equal(t, "input_required", q.ResultType, "%s", m.Result)
	require.Len(t, q.InputRequests, 1)
	require.Equal(t, "elicitation/create", q.InputRequests["approve"].Method)
	asked(t, message{Params: q.InputRequests["approve"].Params}, "jump")
	require.NotEmpty(t, q.RequestState)
	return q
}

func answered(t *testing.T, m message) toolResult {
	t.Helper()
	require.Nil(t, m.Error, "%+v", m.Error)
	var r toolResult
	require.NoError(t, json.Unmarshal(m.Result, &r))
	return r
}

func asking(t *testing.T) *server.Server {
	t.Helper()
	return newServer(t, func(c *server.Config) { c.AskPerson = true })
}

func retry(state, result string) map[string]any {
	responses := map[string]any{}
	if result != "" {
		responses["approve"] = json.RawMessage(strings.TrimPrefix(result, `"result":`))
	}
	return map[string]any{"requestState": state, "inputResponses": responses}
}

func TestTheAnswerComesWithTheNextCall(t *testing.T) {
	for name, tc := range answers {
		if !strings.HasPrefix(tc.result, `"result":`) {
			continue // there is no error in place of an answer
		}
		t.Run(name, func(t *testing.T) {
			s := asking(t)
			q := question(t, askModern(t, s, nil))
			want := strings.NewReplacer("desk _of_ann_ 2", "desk 2", `about ""`, `about "jump"`).Replace(tc.want)
			require.Regexp(t, "^"+want, text(t, answered(t, askModern(t, s, retry(q.RequestState, tc.result)))))
		})
	}
}

func TestANextCallThatBringsNoAnswer(t *testing.T) {
	s := asking(t)
	q := question(t, askModern(t, s, nil))
	require.Contains(t, text(t, answered(t, askModern(t, s, retry(q.RequestState, "")))), "no answer came")
	require.Contains(t, text(t, answered(t, askModern(t, s, nil))), "nobody is asked twice")
	ignored := askModern(t, s, map[string]any{"inputResponses": map[string]any{"approve": map[string]any{"action": "accept", "content": map[string]any{"approve": true}}}})
	require.Contains(t, text(t, answered(t, ignored)), "nobody is asked twice", "an answer to no question is none")
}

// A person's no is not undone by the same call with a yes.
func TestAYesAfterANoIsNone(t *testing.T) {
	for _, no := range []string{"declined", "put aside", "empty form"} {
		s := asking(t)
		q := question(t, askModern(t, s, nil))
		require.Contains(t, text(t, answered(t, askModern(t, s, retry(q.RequestState, "")))), "no answer came")
		require.Regexp(t, "^"+answers[no].want, text(t, answered(t, askModern(t, s, retry(q.RequestState, answers[no].result)))))
		require.Contains(t, text(t, answered(t, askModern(t, s, retry(q.RequestState, answers["yes"].result)))), "yes false by desk 2 about \"jump\": the question was answered before, and not with yes")
	}
	s := asking(t)
	q := question(t, askModern(t, s, nil))
	for range 2 { // whose first answer was lost on its way back
		require.Contains(t, text(t, answered(t, askModern(t, s, retry(q.RequestState, answers["yes"].result)))), "yes true")
	}
}

func TestAnAnswerThatComesLateIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := asking(t)
		q := question(t, askModern(t, s, nil))
		time.Sleep(9 * time.Minute)
		require.Contains(t, text(t, answered(t, askModern(t, s, retry(q.RequestState, answers["yes"].result)))), "yes true")
		time.Sleep(2 * time.Minute)
		require.Contains(t, text(t, answered(t, askModern(t, s, retry(q.RequestState, answers["yes"].result)))), "yes false by desk 2 about \"jump\": the answer came too late")
	})
}

// A state that this server has not made, or that was made for another call or principal,
// ends the call before anything is done.
func TestAStateIsForItsOwnCall(t *testing.T) {
	s := asking(t)
	state := question(t, askModern(t, s, nil)).RequestState
	yes := answers["yes"].result
	changed := []byte(state)
	changed[len(changed)/2] ^= 1
	for name, m := range map[string]message{
		"made up":           askModern(t, s, retry("bm90IG91cnM", yes)),
		"no base64":         askModern(t, s, retry("%%%", yes)),
		"changed":           askModern(t, s, retry(string(changed), yes)),
		"huge":              askModern(t, s, retry(strings.Repeat("A", 1<<20), yes)),
		"another server's":  askModern(t, asking(t), retry(state, yes)),
		"other arguments":   askModern(t, s, mergedWith(retry(state, yes), map[string]any{"arguments": map[string]any{"text": "run"}})),
		"another tool":      askModern(t, s, mergedWith(retry(state, yes), map[string]any{"name": "echo"})),
		"an older revision": ask(t, s, "tools/call", mergedWith(retry(state, yes), map[string]any{"name": "put_question", "arguments": map[string]any{"text": "jump"}})),
	} {
		r := answered(t, m)
		require.True(t, r.IsError, name)
		require.Contains(t, r.Content[0].Text, "error invalid_input: the requestState is none that this server has given for this call", name)
	}
	require.Contains(t, text(t, answered(t, askModern(t, s, retry(state, yes)))), "yes true")
}

func mergedWith(m, more map[string]any) map[string]any {
	maps.Copy(m, more)
	return m
}

func TestAStateIsForItsOwnPrincipal(t *testing.T) {
	site := newSite(t, withQuestions)
	post := func(params map[string]any, headers ...string) message {
		r := site.ask("POST", "/mcp", request(t, 1, "tools/call", params),
			append([]string{"Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/call", "Mcp-Name", "put_question"}, headers...)...)
		list := events(t, r)
		return list[len(list)-1]
	}
	params := func(more map[string]any) map[string]any {
		return mergedWith(call("put_question", `{"text":"jump"}`, modernAsked), more)
	}
	state := question(t, post(params(nil))).RequestState
	bob := answered(t, post(params(retry(state, answers["yes"].result)), "Authorization", "Bearer bob-token"))
	require.True(t, bob.IsError)
	require.Contains(t, bob.Content[0].Text, "requestState")
	require.Contains(t, text(t, answered(t, post(params(retry(state, answers["yes"].result))))), "yes true")
}

// A client without the capability, or of a server that asks nobody, gets no question.
func TestNobodyIsAskedByAnAnswerWhoCannotBe(t *testing.T) {
	for name, m := range map[string]message{
		"switched off":     askModern(t, newServer(t, nil), nil),
		"not declared":     ask(t, asking(t), "tools/call", call("put_question", `{"text":"jump"}`, nil)),
		"URLs, not forms":  ask(t, asking(t), "tools/call", call("put_question", `{"text":"jump"}`, map[string]any{"io.modelcontextprotocol/clientCapabilities": map[string]any{"elicitation": map[string]any{"url": map[string]any{}}}})),
		"no way to answer": ask(t, asking(t), "tools/call", map[string]any{"name": "put_question", "arguments": map[string]any{"text": "jump"}}),
	} {
		require.Equal(t, "nobody is asked", text(t, answered(t, m)), name)
	}
}
