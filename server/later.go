package server

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/tools"
)

// Clients of 2026-07-28 take no messages while a call lasts: the answer to their call is
// the question, and they make the same call again with what came back. Between the two
// nothing is kept here; the client carries a state that it cannot make by itself.

const (
	// answerWithin is how long such an answer counts.
	answerWithin = 10 * time.Minute
	answerName   = "approve"
	maxState     = 4096
)

// carried is what the client carries from the one call to the other.
type carried struct {
	About     lease.ID  `json:"about"`
	Principal string    `json:"principal"`
	Call      string    `json:"call"`  // hash of tool and arguments
	Shown     string    `json:"shown"` // hash of the question
	Until     time.Time `json:"until"`
}

func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// callOf tells calls apart, whatever the order of their arguments.
func callOf(tool string, params mcp.CallToolParams) string {
	raw, err := json.Marshal(params.Arguments)
	if err != nil {
		return hash(tool)
	}
	return hash(tool, string(raw))
}

func (q *questions) seal(c carried) (string, error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("encode a state: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(append(q.sign(raw), raw...)), nil
}

func (q *questions) unseal(state string) (c carried, ok bool) {
	raw, err := base64.RawURLEncoding.DecodeString(state)
	if err != nil || len(state) > maxState || len(raw) < sha256.Size {
		return c, false
	}
	sum, body := raw[:sha256.Size], raw[sha256.Size:]
	return c, hmac.Equal(sum, q.sign(body)) && json.Unmarshal(body, &c) == nil
}

func (q *questions) sign(raw []byte) []byte {
	h := hmac.New(sha256.New, q.key[:])
	h.Write(raw)
	return h.Sum(nil)
}

// refused reports whether a yes comes after another answer to the same question: that
// one stands, whoever makes the call again. An answer that is no yes is kept for it.
func (q *questions) refused(c carried, yes bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	key := string(c.About) + c.Shown
	_, no := q.noes[key]
	if !yes && !no {
		maps.DeleteFunc(q.noes, func(_ string, until time.Time) bool { return time.Now().After(until) })
		q.noes[key] = c.Until
	}
	return yes && no
}

// later asks by the answer to the call, and reads what the next call brings.
type later struct {
	s      *Server
	client client
	call   string

	from   *carried // nil for a call that brings no answer
	answer json.RawMessage
}

// resumed is the asker of a call that brings an answer. A state that is not ours, or of
// another call, is refused: without it, the call would be a new one.
func (s *Server) resumed(c client, tool string, params mcp.CallToolParams) (tools.Asker, error) {
	from, ok := s.questions.unseal(params.RequestState)
	call := callOf(tool, params)
	if !ok || !c.later || from.Principal != c.principal || from.Call != call {
		return nil, &lease.Error{
			Code: lease.CodeInvalidInput, Message: "the requestState is none that this server has given for this call; nothing was done",
			Why: "the server was started again meanwhile, or the call is another one", Next: "list_leases shows what waits; a person decides with gpulease approve",
		}
	}
	l := &later{s: s, client: c, call: call, from: &from}
	if given, ok := params.InputResponses[answerName]; ok {
		l.answer, _ = json.Marshal(given) // as it came
	}
	return l, nil
}

func (l *later) About() lease.ID {
	if l.from == nil {
		return ""
	}
	return l.from.About
}

func (l *later) Ask(_ context.Context, ask tools.Question) (tools.Reply, error) {
	reply := tools.Reply{By: l.client.name}
	if l.from != nil {
		switch {
		case !l.s.config.AskPerson || !l.client.form:
			reply.Why = "this client is not asked"
		case time.Now().After(l.from.Until):
			reply.Why = "the answer came too late"
		case l.from.About != ask.About || l.from.Shown != hash(ask.Text):
			reply.Why = "the request is not what was shown any more"
		case l.answer == nil:
			reply.Why = "no answer came"
		default:
			reply.Yes, reply.Why = readAnswer(l.answer)
			if l.s.questions.refused(*l.from, reply.Yes) {
				reply.Yes, reply.Why = false, "the question was answered before, and not with yes"
			}
		}
		return reply, nil
	}
	if reply.Why = l.s.questions.may(ask); reply.Why != "" {
		return reply, nil
	}
	state, err := l.s.questions.seal(carried{
		About: ask.About, Principal: l.client.principal, Call: l.call, Shown: hash(ask.Text), Until: time.Now().Add(answerWithin),
	})
	if err != nil {
		return reply, err
	}
	return reply, &askFirst{question: ask, state: state}
}

// askFirst ends a call with a question.
type askFirst struct {
	question tools.Question
	state    string
}

func (a *askFirst) Error() string { return "a person is asked about " + string(a.question.About) }

// inputRequired is the answer to the call whose tool has ended so, nil for any other.
func inputRequired(err error) *mcp.CallToolResult {
	var ask *askFirst
	if !errors.As(err, &ask) {
		return nil
	}
	return mcpserver.NewInputRequestBuilder(ask.state).Elicit(answerName, form(ask.question)).ToolResult()
}
