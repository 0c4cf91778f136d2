package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
	"golang.org/x/time/rate"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/tools"
)

// Questions to the person behind a client (elicitation). The library asks clients that
// never said that they can be asked, waits for as long as the call lasts, and asks clients
// of 2026-07-28 not at all; so questions go past it.

const (
	questionPrefix = "gpulease-question-"

	// A person is not to be flooded: so many questions at once, and then one every few
	// minutes.
	questionBurst = 3
	questionEvery = 3 * time.Minute

	maxClientName = 60
	maxAsked      = 1000 // requests and principals that are remembered
)

// questions are those under way, and what was asked lately.
type questions struct {
	key [32]byte // of the states that clients carry

	mu    sync.Mutex
	open  map[string]question // by the id of the message
	asked map[lease.ID]bool
	noes  map[string]time.Time     // states that were answered with anything but a yes, until they end anyway
	rates map[string]*rate.Limiter // by principal
}

type question struct {
	session string
	answer  chan json.RawMessage
}

func newQuestions() *questions {
	q := &questions{open: map[string]question{}, asked: map[lease.ID]bool{}, noes: map[string]time.Time{}, rates: map[string]*rate.Limiter{}}
	_, _ = rand.Read(q.key[:]) // it never fails
	return q
}

// may says why a question is not put, "" where it is: the same again, or too many.
func (q *questions) may(ask tools.Question) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.asked[ask.About] {
		return "it was asked once; nobody is asked twice"
	}
	if len(q.rates) > maxAsked {
		clear(q.rates)
	}
	own := q.rates[ask.Asks]
	if own == nil {
		own = rate.NewLimiter(rate.Every(questionEvery), questionBurst)
		q.rates[ask.Asks] = own
	}
	if !own.Allow() {
		return "there were many questions lately; it was not asked"
	}
	if len(q.asked) > maxAsked {
		clear(q.asked)
	}
	q.asked[ask.About] = true
	return ""
}

// answer takes a client's answer to one of our messages. It reports whether the message
// is one; an answer that nobody waits for any more is dropped.
func (q *questions) answer(session string, message []byte) bool {
	var m struct {
		envelope
		Result json.RawMessage `json:"result"`
	}
	if !bytes.Contains(message, []byte(questionPrefix)) || json.Unmarshal(message, &m) != nil || m.Method != "" {
		return false
	}
	var id string
	if json.Unmarshal(m.ID, &id) != nil || !strings.HasPrefix(id, questionPrefix) {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if asked, ok := q.open[id]; ok && asked.session == session {
		delete(q.open, id)
		asked.answer <- m.Result // has room for it
	}
	return true
}

// speaker can send a client a message of ours while its call lasts.
type speaker interface {
	notifier
	say(message []byte) error
}

// client is who makes a call, as far as questions go.
type client struct {
	name      string
	form      bool // it has said that its user can be asked
	later     bool // it is asked by the answer to its call (2026-07-28)
	session   string
	principal string
	way       speaker // nil for none while the call lasts
}

func clientOf(ctx context.Context) client {
	var c client
	if who, ok := ctx.Value(callerKey{}).(caller); ok {
		c.principal = who.principal
	}
	var who mcp.Implementation
	var can *mcp.ElicitationCapability
	if info := mcpserver.RequestProtocolInfoFromContext(ctx); info != nil && info.Modern {
		c.later = true
		if info.ClientInfo != nil {
			who = *info.ClientInfo
		}
		if info.ClientCapabilities != nil {
			can = info.ClientCapabilities.Elicitation
		}
	} else if own, ok := mcpserver.ClientSessionFromContext(ctx).(mcpserver.SessionWithClientInfo); ok {
		who, can = own.GetClientInfo(), own.GetClientCapabilities().Elicitation
		c.way, _ = ctx.Value(notifierKey{}).(speaker)
		if _, stdio := c.way.(*lineWriter); !stdio {
			c.session = own.SessionID()
		}
	}
	// One that names no mode means forms; one that names URLs only means only those.
	c.form = can != nil && (can.Form != nil || can.URL == nil)
	c.name = printable(strings.TrimSpace(who.Name+" "+who.Version), maxClientName)
	return c
}

// printable is a client's own text where it stands beside ours.
func printable(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '(' || r == ')' || r == ',' || r == '"' {
			return '_'
		}
		return r
	}, text)
	if text == "" {
		return "without a name"
	}
	return text[:min(len(text), most)]
}

// asker gives a call the one who asks, nil where nobody is to be asked.
func (s *Server) asker(ctx context.Context, tool string, params mcp.CallToolParams) (tools.Asker, error) {
	c := clientOf(ctx)
	if params.RequestState != "" {
		return s.resumed(c, tool, params)
	}
	switch {
	case !s.config.AskPerson || !c.form:
		return nil, nil
	case c.later:
		return &later{s: s, client: c, call: callOf(tool, params)}, nil
	case c.way != nil:
		return now{s: s, client: c}, nil
	}
	return nil, nil
}

// now asks with a message of its own while the call lasts.
type now struct {
	s      *Server
	client client
}

func (now) About() lease.ID { return "" }

func (n now) Ask(ctx context.Context, ask tools.Question) (tools.Reply, error) {
	reply := tools.Reply{By: n.client.name}
	if reply.Why = n.s.questions.may(ask); reply.Why != "" {
		return reply, nil
	}
	id := questionPrefix + rand.Text()
	asked := question{session: n.client.session, answer: make(chan json.RawMessage, 1)}
	n.s.questions.mu.Lock()
	n.s.questions.open[id] = asked
	n.s.questions.mu.Unlock()
	defer func() {
		n.s.questions.mu.Lock()
		defer n.s.questions.mu.Unlock()
		delete(n.s.questions.open, id)
	}()
	message, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": id, "method": mcp.MethodElicitationCreate, "params": form(ask)})
	if err == nil {
		err = n.client.way.say(message)
	}
	if err != nil {
		n.s.log.Debug("a question could not be sent", "err", err)
		reply.Why = "the client could not be asked"
		return reply, nil
	}
	select {
	case raw := <-asked.answer:
		reply.Yes, reply.Why = readAnswer(raw)
	case <-ctx.Done():
		reply.Why = "no answer came in time"
		// So that the question does not stay on somebody's screen.
		if err := n.client.way.notify("notifications/cancelled", map[string]any{"requestId": id, "reason": "the question is over"}); err != nil {
			n.s.log.Debug("a question could not be taken back", "err", err)
		}
	}
	return reply, nil
}

// form is a question as clients of all revisions understand it. A yes has to be given: a
// client that accepts with what is preset has not said it.
func form(ask tools.Question) mcp.ElicitationParams {
	return mcp.ElicitationParams{Message: ask.Text, RequestedSchema: map[string]any{
		"type": "object",
		"properties": map[string]any{"approve": map[string]any{
			"type": "boolean", "title": ask.Yes, "description": "Yes spends money. No, or no answer, leaves it to gpulease approve.", "default": false,
		}},
		"required": []string{"approve"},
	}}
}

// readAnswer takes nothing for a yes but one that fits the form.
func readAnswer(raw json.RawMessage) (yes bool, why string) {
	// Fields of a struct would take names in any case.
	var r map[string]json.RawMessage
	var action string
	if json.Unmarshal(raw, &r) != nil {
		return false, "the client answered with an error"
	}
	_ = json.Unmarshal(r["action"], &action) // what is no text is no action
	switch action {
	case "accept":
	case "decline":
		return false, "declined, by the person or by the client itself"
	case "cancel":
		return false, "put aside without an answer, by the person or by the client itself"
	default:
		return false, "the client's answer was none"
	}
	if yes, err := readForm(r["content"]); err != nil {
		return false, "the client's answer does not fit the form"
	} else if !yes {
		return false, "the answer was no"
	}
	return true, ""
}

func readForm(raw json.RawMessage) (approve bool, err error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return false, fmt.Errorf("read the form: %w", err)
	}
	switch string(fields["approve"]) {
	case "true":
		approve = true
	case "false":
	default:
		return false, errors.New("approve is neither true nor false")
	}
	if len(fields) != 1 {
		return false, errors.New("there are fields that the form does not have")
	}
	return approve, nil
}
