package tools

import (
	"fmt"

	"github.com/invopop/jsonschema"
)

// step is what usually follows an answer: a call with its arguments, and the same in a
// sentence, with what else may be done. Where a person has to act, or there is more than
// one way on, there is a sentence only.
type step struct {
	Tool      string         `json:"tool,omitempty"`
	Arguments map[string]any `json:"arguments,omitempty"`
	Text      string         `json:"text"`
}

// JSONSchema keeps the schema of every answer short: the parts say themselves what they are.
func (step) JSONSchema() *jsonschema.Schema { return &jsonschema.Schema{Type: "object"} }

// with are a call's arguments.
type with map[string]any

// then is a call as the next step.
func then(tool string, arguments with, format string, parts ...any) step {
	s := say(format, parts...)
	s.Tool, s.Arguments = tool, arguments
	return s
}

// say is a next step that is no call, or none that is known in full.
func say(format string, parts ...any) step {
	if len(parts) == 0 {
		return step{Text: format}
	}
	return step{Text: fmt.Sprintf(format, parts...)}
}
