package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/tools"
)

const (
	// lastWord is the time between the end of a handler's context and the answer
	// that is given without it. It covers the way back from a cancelled wait.
	lastWord = time.Second

	// progressEvery throttles progress notes: people watch them, no one else.
	progressEvery = time.Second

	// aliveEvery is the longest silence of a call whose client asked for progress. Some
	// hosts end a call that says nothing for a minute, others sooner.
	aliveEvery = 8 * time.Second

	maxCallID = 150
)

// outcome is how a tool's function ended.
type outcome struct {
	result tools.Result
	err    error
}

// handler runs a tool with a deadline, in a goroutine of its own: a function that
// ignores its context is left behind, so that it can keep neither the client nor
// the end of the server waiting.
func (s *Server) handler(t tools.Tool) mcpserver.ToolHandlerFunc {
	return func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(ctx, s.config.CallTimeout-s.lastWord)
		defer cancel()
		ctx = tools.WithCallID(ctx, callID(req.Params.Meta))
		reporter := s.reporter(ctx, req.Params.Meta)
		if reporter != nil {
			ctx = tools.WithReporter(ctx, reporter)
		}

		asker, err := s.asker(ctx, t.Name, req.Params)
		if asker != nil {
			ctx = tools.WithAsker(ctx, asker)
		}

		quiet := reporter.KeepAlive(aliveEvery, func(since time.Duration) string {
			return fmt.Sprintf("%s is still at work, for %d s", t.Name, int(since.Seconds()))
		})
		o := outcome{err: err}
		if err == nil {
			o = s.answer(ctx, t, arguments(req))
		}
		quiet()
		question := inputRequired(o.err)
		if question != nil {
			o.err = nil
		}
		s.tell(ctx, t.Name, time.Since(began), o.err)
		reporter.Settle()
		s.record(ctx, t.Name, began, o.err)
		if s.config.Called != nil {
			s.config.Called(t.Name, time.Since(began), o.err)
		}
		if question != nil {
			return question, nil
		}
		if o.err != nil {
			return failure(s.explain(o.err)), nil
		}
		return &mcp.CallToolResult{
			Content:           []mcp.Content{mcp.NewTextContent(o.result.Text)},
			StructuredContent: o.result.Structured,
		}, nil
	}
}

// answer runs a tool for whoever calls. Over HTTP that is a principal among others,
// who has tools of its own and only so many calls at once.
func (s *Server) answer(ctx context.Context, t tools.Tool, args json.RawMessage) outcome {
	w := s.web.Load()
	if w == nil {
		return s.run(ctx, t, args)
	}
	who, ok := ctx.Value(callerKey{}).(caller)
	if !ok {
		return outcome{err: errors.New("a call over HTTP of nobody knows whom")}
	}
	done, err := w.budgets.enter(who.principal)
	if err != nil {
		return outcome{err: err}
	}
	defer done()
	if _, served := s.tools[t.Name]; served && w.config.Tools != nil {
		own, err := w.toolsOf(who.principal)
		if err != nil {
			return outcome{err: err}
		}
		name := t.Name
		if t, ok = own[name]; !ok {
			return outcome{err: fmt.Errorf("%s has no tool %s", who.principal, name)}
		}
	}
	if own, ok := ctx.Value(sessionKey{}).(*session); ok {
		// The library lets calls of the older event streams outlive them.
		streamed, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(own.ctx, cancel)()
		ctx = streamed
	}
	return s.run(ctx, t, args)
}

// explain is an error as clients are told it.
func (s *Server) explain(err error) *lease.Error {
	e := tools.Explain(err, s.config.Redact)
	e.Why, e.Next = tools.Served(e.Why, s.served), tools.Served(e.Next, s.served)
	return e
}

// failure is text only: some hosts show the model the text of an error result,
// others only its structured content.
func failure(e *lease.Error) *mcp.CallToolResult {
	return &mcp.CallToolResult{
		Content: []mcp.Content{mcp.NewTextContent(tools.Render(e))},
		IsError: true,
	}
}

func (s *Server) run(ctx context.Context, t tools.Tool, args json.RawMessage) outcome {
	done := make(chan outcome, 1)
	go func() {
		// Also for runtime.Goexit, which runs deferred functions only.
		o := outcome{err: tools.Broken(t.Name)}
		defer func() {
			if p := recover(); p != nil {
				s.log.Error("tool panicked", "tool", t.Name, "panic", s.redact(fmt.Sprint(p)), "stack", string(debug.Stack()))
			}
			done <- o
		}()
		result, err := t.Call(ctx, args)
		o = outcome{result, err}
	}()
	select {
	case o := <-done:
		return o
	case <-ctx.Done():
	}
	timer := time.NewTimer(s.lastWord)
	defer timer.Stop()
	select {
	case o := <-done:
		return o
	case <-timer.C:
		s.log.Error("tool ignored the end of its context", "tool", t.Name, "err", ctx.Err())
		return outcome{err: ctx.Err()}
	}
}

// record logs one line a call: what, how long, how it ended. No arguments and no
// results, which may hold anything.
func (s *Server) record(ctx context.Context, tool string, began time.Time, err error) {
	attrs := []slog.Attr{slog.String("op", tool), slog.Duration("dur", time.Since(began))}
	if who, ok := ctx.Value(callerKey{}).(caller); ok && who.principal != "" {
		attrs = append(attrs, slog.String("principal", who.principal))
	}
	if err == nil {
		s.log.LogAttrs(ctx, slog.LevelInfo, "call", attrs...)
		return
	}
	level := slog.LevelInfo
	var known *lease.Error
	unknown := !errors.As(err, &known) || known.Code == lease.CodeInternal
	if unknown && !errors.Is(err, context.Canceled) { // a cancel is an everyday event
		level = slog.LevelError
	}
	attrs = append(attrs, slog.String("code", string(lease.CodeOf(err))), slog.String("err", s.redact(err.Error())))
	if known != nil && known.Err != nil { // not in known's own text
		attrs = append(attrs, slog.String("cause", s.redact(known.Err.Error())))
	}
	s.log.LogAttrs(ctx, level, "call", attrs...)
}

func (s *Server) redact(text string) string {
	if s.config.Redact == nil {
		return text
	}
	return s.config.Redact(text)
}

// arguments are the argument bytes as the client sent them where the library
// kept them, so that large integers stay exact.
func arguments(req mcp.CallToolRequest) json.RawMessage {
	if len(req.Params.RawArguments) > 0 {
		return req.Params.RawArguments
	}
	if req.Params.Arguments == nil {
		return nil
	}
	raw, err := json.Marshal(req.Params.Arguments)
	if err != nil {
		return json.RawMessage("not JSON") // refused by the tool's own check
	}
	return raw
}

// callID is the host's identifier of a call, which stays the same when the host
// sends the call again. Only the hosts that promise this are listened to.
func callID(meta *mcp.Meta) string {
	if meta == nil {
		return ""
	}
	for _, key := range []string{"claudecode/toolUseId", "callId"} {
		if id, ok := meta.AdditionalFields[key].(string); ok && id != "" && len(id) <= maxCallID {
			return id
		}
	}
	return ""
}

// reporter is nil where the client asked for no progress.
func (s *Server) reporter(ctx context.Context, meta *mcp.Meta) *tools.Reporter {
	if meta == nil || meta.ProgressToken == nil {
		return nil
	}
	direct, _ := ctx.Value(notifierKey{}).(notifier)
	return tools.NewReporter(progressEvery, func(progress float64, message string) {
		params := map[string]any{"progressToken": meta.ProgressToken, "progress": progress, "message": message}
		var err error
		if direct != nil {
			err = direct.notify("notifications/progress", params)
		} else {
			err = s.mcp.SendNotificationToClient(ctx, "notifications/progress", params)
		}
		if err != nil {
			s.log.Debug("progress note lost", "err", err)
		}
	})
}
