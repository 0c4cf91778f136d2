package server

import (
	"context"
	"encoding/json"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
)

const (
	cancelAgainEvery = 50 * time.Millisecond
	cancelAgainFor   = time.Minute // no call lasts longer
)

// cancelled is the request that a message takes back, nil for any other message.
func cancelled(line []byte) json.RawMessage {
	var m struct {
		Method string `json:"method"`
		Params struct {
			ID json.RawMessage `json:"requestId"`
		} `json:"params"`
	}
	if json.Unmarshal(line, &m) != nil || m.Method != "notifications/cancelled" || noID(m.Params.ID) {
		return nil
	}
	return m.Params.ID
}

// cancelAgain repeats a cancel until its request is answered. The library forgets one
// that comes before a worker has taken up the request, which then waits in vain.
func (s *Server) cancelAgain(ctx context.Context, open *tally, id json.RawMessage, line []byte) {
	ctx, stop := context.WithTimeout(s.mcp.WithContext(ctx, stdioName{}), cancelAgainFor)
	defer stop()
	tick := time.NewTicker(cancelAgainEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !open.has(id) {
			return
		}
		s.mcp.HandleMessage(ctx, line)
	}
}

// stdioName is what the library calls its one session over stdio, and nothing else.
type stdioName struct{}

func (stdioName) SessionID() string                                   { return "stdio" }
func (stdioName) Initialize()                                         {}
func (stdioName) Initialized() bool                                   { return true }
func (stdioName) NotificationChannel() chan<- mcp.JSONRPCNotification { return nil }
