package server

import (
	"context"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/tools"
)

// tell gives the caller one line about its call, if it wants lines of that level:
// clients of 2026-07-28 say so with each request, older ones with logging/setLevel, and
// without it they get errors of gpulease's own only.
func (s *Server) tell(ctx context.Context, tool string, took time.Duration, err error) {
	level, data := mcp.LoggingLevelInfo, map[string]any{"tool": tool, "took_ms": took.Milliseconds()}
	if err != nil {
		code := tools.Explain(err, nil).Code
		level, data["code"] = mcp.LoggingLevelWarning, string(code)
		if code == lease.CodeInternal {
			level = mcp.LoggingLevelError
		}
	}
	s.Log(ctx, level, data)
}

// Log sends whoever makes the call of ctx a line, before the call's answer, if it wants
// lines of that level.
func (s *Server) Log(ctx context.Context, level mcp.LoggingLevel, data any) {
	if wanted := wantedLevel(ctx); wanted == "" || !level.ShouldSendTo(wanted) {
		return
	}
	params := map[string]any{"level": level, "logger": s.config.Name, "data": data}
	var lost error
	if direct, ok := ctx.Value(notifierKey{}).(notifier); ok {
		lost = direct.notify("notifications/message", params)
	} else {
		lost = s.mcp.SendNotificationToClient(ctx, "notifications/message", params)
	}
	if lost != nil {
		s.log.Debug("log line for the client lost", "err", lost)
	}
}

// wantedLevel is the least level that the caller wants to hear of, "" for none.
func wantedLevel(ctx context.Context) mcp.LoggingLevel {
	if info := mcpserver.RequestProtocolInfoFromContext(ctx); info != nil && info.Modern {
		return info.LogLevel
	}
	if own, ok := mcpserver.ClientSessionFromContext(ctx).(mcpserver.SessionWithLogging); ok {
		return own.GetLogLevel()
	}
	return ""
}
