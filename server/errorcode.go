package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/tools"
)

// The library gives every error of a handler the code -32603. So the code that is meant
// travels in the error's text, behind a mark that nobody knows, and comes into its place
// where messages leave.

// codeMark is a word that is in no message but for this.
var codeMark = "code-" + rand.Text() + "-"

// coded is an error with its code, as JSON-RPC has it.
type coded struct {
	Code int            `json:"code"`
	Data map[string]any `json:"data,omitempty"`
	text string
}

func (c *coded) Error() string {
	raw, err := json.Marshal(c)
	if err != nil {
		return c.text
	}
	return codeMark + base64.RawURLEncoding.EncodeToString(raw) + " " + c.text
}

// forClient is an error of a resource or a prompt as its client is told it: what is not
// there and what was asked wrongly have codes of their own.
func (s *Server) forClient(ctx context.Context, err error, uri string) error {
	told := s.explain(err)
	text := tools.Render(told)
	switch told.Code {
	case lease.CodeLeaseNotFound, lease.CodeJobNotFound:
		c := &coded{Code: mcp.RESOURCE_NOT_FOUND, text: text}
		if info := mcpserver.RequestProtocolInfoFromContext(ctx); info != nil && info.Modern {
			c.Code = mcp.INVALID_PARAMS // which this revision has for it
		}
		if uri != "" {
			c.Data = map[string]any{"uri": uri}
		}
		return c
	case lease.CodeInvalidInput:
		return &coded{Code: mcp.INVALID_PARAMS, text: text}
	default:
		return errors.New(text)
	}
}

// recode puts the code of an error into its place in a message on its way to a client,
// or in an event that holds one. Other messages stay as they are.
func recode(message []byte) []byte {
	at := bytes.Index(message, []byte(codeMark))
	if at < 0 {
		return message
	}
	from, to := bytes.IndexByte(message, '{'), bytes.LastIndexByte(message, '}')
	if from < 0 || to < at {
		return message
	}
	var whole map[string]json.RawMessage
	var told struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(message[from:to+1], &whole) != nil || json.Unmarshal(whole["error"], &told) != nil {
		return message
	}
	head, text, _ := bytes.Cut([]byte(told.Message), []byte(" "))
	raw, err := base64.RawURLEncoding.DecodeString(string(bytes.TrimPrefix(head, []byte(codeMark))))
	var c coded
	if err != nil || json.Unmarshal(raw, &c) != nil {
		return message
	}
	own := map[string]any{"code": c.Code, "message": string(text)}
	if c.Data != nil {
		own["data"] = c.Data
	}
	if whole["error"], err = json.Marshal(own); err != nil {
		return message
	}
	body, err := json.Marshal(whole)
	if err != nil {
		return message
	}
	return bytes.Join([][]byte{message[:from], body, message[to+1:]}, nil)
}
