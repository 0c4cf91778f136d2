package tools_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/tools"
)

func TestSchemasAreSelfContainedObjects(t *testing.T) {
	tool := ordering(t, nil)

	require.JSONEq(t, `{
		"type": "object",
		"required": ["item"],
		"additionalProperties": false,
		"properties": {
			"item": {"type": "string", "minLength": 1, "maxLength": 20, "description": "What to order."},
			"count": {"type": "integer", "minimum": 1, "maximum": 8, "description": "How many."},
			"express": {"type": "boolean"},
			"weight": {"type": "number", "minimum": 0},
			"size": {"type": "string", "enum": ["small", "large"]},
			"notes": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
			"env": {"type": "object", "additionalProperties": {"type": "string"}},
			"address": {
				"type": "object", "required": ["street"], "additionalProperties": false,
				"properties": {"street": {"type": "string"}, "number": {"type": "integer"}}
			},
			"extras": {"type": "array", "items": {
				"type": "object", "required": ["kind"], "additionalProperties": false,
				"properties": {"kind": {"type": "string", "pattern": "^[a-z]+$"}}
			}}
		}
	}`, string(tool.InputSchema))

	out := string(tool.OutputSchema)
	require.NotContains(t, out, "additionalProperties\":false", "an older client must accept a newer answer")
	require.NotContains(t, out, "$ref")
	require.NotContains(t, out, "$schema")
	var root struct {
		Type     string   `json:"type"`
		Required []string `json:"required"`
	}
	require.NoError(t, json.Unmarshal(tool.OutputSchema, &root))
	require.Equal(t, "object", root.Type)
	require.Equal(t, []string{"got", "tags"}, root.Required)
}

func TestAnswersAreTextAndStructure(t *testing.T) {
	result, err := ordering(t, nil).Call(t.Context(), json.RawMessage(`{"item":"tea"}`))
	require.NoError(t, err)
	require.Equal(t, "ordered tea", result.Text)
	require.JSONEq(t, `{"got":{"item":"tea"},"tags":[]}`, string(result.Structured))

	type plain struct {
		N int `json:"n"`
	}
	tool := tools.New(tools.Def{Name: "count_up"}, func(context.Context, struct{}) (plain, error) { return plain{7}, nil })
	for _, none := range []string{``, `null`, `{}`, ` `} {
		result, err = tool.Call(t.Context(), json.RawMessage(none))
		require.NoError(t, err, "arguments %q", none)
		require.Equal(t, `{"n":7}`, result.Text)
	}
	_, text := refusal(t, tool, `{"n":1}`)
	require.Contains(t, text, "next: call count_up again without arguments; nothing was done")
}

// A nil list is null in JSON, which the schema forbids and strict clients
// refuse. The call has had its effect by then, so its answer must not be lost.
func TestAnAnswerThatBreaksItsSchemaIsNotLost(t *testing.T) {
	tool := ordering(t, func(_ context.Context, in order) (receipt, error) { return receipt{Got: in}, nil })
	e, text := refusal(t, tool, `{"item":"a lease"}`)
	require.Equal(t, lease.CodeInternal, e.Code)
	require.Contains(t, text, "place_order was carried out, but its answer breaks its own output schema")
	require.Contains(t, text, "why: tags must be an array, but was null")
	require.Contains(t, text, `do not repeat the call; its answer is: {"got":{"item":"a lease"},"tags":null}`)
}

type loop struct {
	Name string          `json:"name"`
	In   map[string]ring `json:"in"`
}
type ring struct {
	Back []*loop `json:"back"`
}

func TestNewPanicsOnWhatHasNoSchema(t *testing.T) {
	type none struct{}
	require.PanicsWithValue(t, `tools: "Place Order" is not a tool name`, func() {
		tools.New(tools.Def{Name: "Place Order"}, func(context.Context, none) (none, error) { return none{}, nil })
	})
	require.PanicsWithValue(t, "tools: a input: tools_test.loop contains itself at loop.In > ring.Back > tools_test.loop", func() {
		tools.New(tools.Def{Name: "a"}, func(context.Context, loop) (none, error) { return none{}, nil })
	})
	require.PanicsWithValue(t, "tools: a output: []string is no struct", func() {
		tools.New(tools.Def{Name: "a"}, func(context.Context, none) ([]string, error) { return nil, nil })
	})
}
