package tools_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/tools"
)

// order is an input with one field of each kind that tools use.
type order struct {
	Item    string            `json:"item" jsonschema:"minLength=1,maxLength=20" jsonschema_description:"What to order."`
	Count   int               `json:"count,omitempty" jsonschema:"minimum=1,maximum=8" jsonschema_description:"How many."`
	Express bool              `json:"express,omitempty"`
	Weight  float64           `json:"weight,omitempty" jsonschema:"minimum=0"`
	Size    string            `json:"size,omitempty" jsonschema:"enum=small,enum=large"`
	Notes   []string          `json:"notes,omitempty" jsonschema:"maxItems=2"`
	Env     map[string]string `json:"env,omitempty"`
	Address *address          `json:"address,omitempty"`
	Extras  []extra           `json:"extras,omitempty"`
}

type address struct {
	Street string `json:"street"`
	Number int    `json:"number,omitempty"`
}

type extra struct {
	Kind string `json:"kind" jsonschema:"pattern=^[a-z]+$"`
}

// receipt gives back what arrived.
type receipt struct {
	Got  order    `json:"got"`
	Tags []string `json:"tags"`
}

func (r receipt) Text() string { return "ordered " + r.Got.Item }

func ordering(t *testing.T, call func(context.Context, order) (receipt, error)) tools.Tool {
	t.Helper()
	if call == nil {
		call = func(_ context.Context, in order) (receipt, error) { return receipt{Got: in, Tags: []string{}}, nil }
	}
	return tools.New(tools.Def{Name: "place_order", Title: "Place an order", Description: "Orders."}, call)
}

// refusal calls the tool and gives the error as the agent sees it.
func refusal(t *testing.T, tool tools.Tool, args string) (*lease.Error, string) {
	t.Helper()
	_, err := tool.Call(t.Context(), json.RawMessage(args))
	require.Error(t, err)
	e := tools.Explain(err, nil)
	return e, tools.Render(e)
}
