package hosts

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// messages is Anthropic's Messages API, as far as a host needs it.
type messages struct{}

func (messages) path() string { return "/v1/messages" }

type messagesRequest struct {
	System   json.RawMessage `json:"system"`
	Messages []struct {
		Role    string          `json:"role"`
		Content json.RawMessage `json:"content"`
	} `json:"messages"`
	Tools []struct {
		Name        string          `json:"name"`
		Description string          `json:"description"`
		Schema      json.RawMessage `json:"input_schema"`
		Deferred    bool            `json:"defer_loading"`
	} `json:"tools"`
}

func (messages) read(body []byte) (turn, error) {
	var r messagesRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return turn{}, fmt.Errorf("read a request of the Messages API: %w", err)
	}
	t := turn{prompt: Prompt{Tools: map[string]Tool{}}, aside: len(r.Tools) == 0}
	for _, tool := range r.Tools {
		if !tool.Deferred {
			t.prompt.Tools[tool.Name] = Tool{tool.Description, tool.Schema}
		}
	}
	var all strings.Builder
	if len(r.System) > 0 {
		text, err := textOf(r.System)
		if err != nil {
			return turn{}, err
		}
		all.WriteString(text)
	}
	for _, m := range r.Messages {
		text, err := textOf(m.Content)
		if err != nil {
			return turn{}, err
		}
		all.WriteString("\n" + text)
		if m.Role != "user" {
			continue
		}
		found, err := toolResults(m.Content)
		if err != nil {
			return turn{}, err
		}
		t.results = append(t.results, found...)
	}
	t.prompt.Text = all.String()
	return t, nil
}

func toolResults(content json.RawMessage) ([]Seen, error) {
	var blocks []struct {
		Type    string          `json:"type"`
		Error   bool            `json:"is_error"`
		Content json.RawMessage `json:"content"`
	}
	if json.Unmarshal(content, &blocks) != nil {
		return nil, nil // a text
	}
	var found []Seen
	for _, b := range blocks {
		if b.Type != "tool_result" {
			continue
		}
		text, err := textOf(b.Content)
		if err != nil {
			return nil, err
		}
		found = append(found, Seen{text, b.Error})
	}
	return found, nil
}

func (a messages) call(w io.Writer, n int, c Call) {
	args, _ := json.Marshal(c.Args) // the test's own
	a.answer(w, "tool_use",
		map[string]any{"type": "tool_use", "id": fmt.Sprintf("toolu_standin_%d", n), "name": c.Tool, "input": map[string]any{}},
		map[string]any{"type": "input_json_delta", "partial_json": string(args)})
}

func (a messages) say(w io.Writer, text string) {
	a.answer(w, "end_turn", map[string]any{"type": "text", "text": ""}, map[string]any{"type": "text_delta", "text": text})
}

func (messages) answer(w io.Writer, stop string, block, delta map[string]any) {
	usage := map[string]any{"input_tokens": 1, "output_tokens": 1}
	event(w, "message_start", map[string]any{"message": map[string]any{
		"id": "msg_standin", "type": "message", "role": "assistant", "model": "stand-in", "content": []any{}, "usage": usage,
	}})
	event(w, "content_block_start", map[string]any{"index": 0, "content_block": block})
	event(w, "content_block_delta", map[string]any{"index": 0, "delta": delta})
	event(w, "content_block_stop", map[string]any{"index": 0})
	event(w, "message_delta", map[string]any{"delta": map[string]any{"stop_reason": stop}, "usage": usage})
	event(w, "message_stop", map[string]any{})
}
