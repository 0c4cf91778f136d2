package hosts

import (
	"encoding/json"
	"fmt"
	"io"
)

// responses is OpenAI's Responses API, as far as a host needs it.
type responses struct{}

func (responses) path() string { return "/v1/responses" }

type responsesTool struct {
	Type        string          `json:"type"`
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Parameters  json.RawMessage `json:"parameters"`
	Tools       []responsesTool `json:"tools"` // of a namespace
}

func (responses) read(body []byte) (turn, error) {
	var r struct {
		Instructions string          `json:"instructions"`
		Tools        []responsesTool `json:"tools"`
		Input        []struct {
			Type    string          `json:"type"`
			Content json.RawMessage `json:"content"`
			Output  json.RawMessage `json:"output"`
		} `json:"input"`
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return turn{}, fmt.Errorf("read a request of the Responses API: %w", err)
	}
	t := turn{prompt: Prompt{Tools: map[string]Tool{}, Text: r.Instructions}, aside: len(r.Tools) == 0}
	for _, tool := range r.Tools {
		t.prompt.Tools[tool.Name] = Tool{tool.Description, tool.Parameters}
		for _, inner := range tool.Tools {
			t.prompt.Tools[tool.Name+"__"+inner.Name] = Tool{inner.Description, inner.Parameters}
		}
	}
	for _, item := range r.Input {
		raw, result := item.Content, item.Type == "function_call_output"
		if result {
			raw = item.Output
		}
		if len(raw) == 0 || string(raw) == "null" {
			continue // our own calls
		}
		text, err := textOf(raw)
		if err != nil {
			return turn{}, err
		}
		if result {
			t.results = append(t.results, Seen{Text: text})
		} else {
			t.prompt.Text += "\n" + text
		}
	}
	return t, nil
}

func (a responses) call(w io.Writer, n int, c Call) {
	args, _ := json.Marshal(c.Args) // the test's own
	item := map[string]any{
		"type": "function_call", "id": fmt.Sprintf("fc_%d", n), "call_id": fmt.Sprintf("call_%d", n),
		"name": c.Tool, "arguments": string(args),
	}
	if c.Space != "" {
		item["namespace"] = c.Space
	}
	a.answer(w, item)
}

func (a responses) say(w io.Writer, text string) {
	a.answer(w, map[string]any{
		"type": "message", "id": "msg_standin", "role": "assistant", "content": []any{map[string]any{"type": "output_text", "text": text}},
	})
}

func (responses) answer(w io.Writer, item map[string]any) {
	event(w, "response.created", map[string]any{"response": map[string]any{"id": "resp_standin"}})
	event(w, "response.output_item.done", map[string]any{"item": item})
	event(w, "response.completed", map[string]any{"response": map[string]any{
		"id": "resp_standin", "usage": map[string]any{"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
	}})
}
