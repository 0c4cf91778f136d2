// Package tools holds what an agent sees of gpulease: one file a tool, with its
// input and output types, its description, its annotations and a thin handler.
//
// It holds no rule about money or machines (that is package lease) and knows no
// MCP library: a [Tool] is data and a function, which package server puts behind
// a protocol. JSON schemas are generated from the Go types by [New], arguments
// are checked against them before a handler runs, and every failure becomes a
// short text with a stable code and the next step ([Explain], [Render]).
//
// Every tool is sent to the model with every request, for ever: descriptions are
// short, their first sentence is the one that counts.
package tools

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"

	"github.com/gpulease/gpulease/lease"
)

// Annotations are the hints that a host uses to decide what to ask its user.
// All four are always sent, since the protocol's defaults are the worst case.
type Annotations struct {
	ReadOnly    bool // changes nothing, here or in the account
	Destructive bool // may end or overwrite something
	Idempotent  bool // the same call again changes nothing more
	OpenWorld   bool // reaches things outside of gpulease and its leases
}

// Def is the fixed part of a tool.
type Def struct {
	Name        string // verb_noun of [a-z_], at most 64 characters
	Title       string // for people
	Description string // for the model; the key sentence first, at most 600 characters
	Annotations Annotations
	// AlwaysLoad asks hosts that fetch tools on demand to put this one into the
	// first prompt. For the few tools that nothing works without.
	AlwaysLoad bool
}

// Result is the answer of a successful call.
type Result struct {
	Text       string          // short, for people and for hosts without structured content
	Structured json.RawMessage // one JSON object that satisfies the tool's OutputSchema
}

// Tool is one tool, ready to be served.
type Tool struct {
	Def
	InputSchema  json.RawMessage // root of type object, no $ref
	OutputSchema json.RawMessage // root of type object, no $ref
	// Call checks the arguments (one JSON object; empty and null mean none) and
	// runs the tool. Errors are to be shown by [Explain]; an error of code
	// invalid_input means that nothing was done.
	Call func(ctx context.Context, args json.RawMessage) (Result, error)

	in *shape
	// served are the names of the tools that are served beside this one; nil is all.
	served *[]string
}

// Texter is implemented by outputs that can say themselves in a sentence or two.
// The text of an output without it is its JSON.
type Texter interface{ Text() string }

var toolName = regexp.MustCompile(`^[a-z][a-z_]{0,63}$`)

// New makes a tool from a function. In and Out are structs without recursion:
// json tags name the fields, jsonschema tags bound them, jsonschema_description
// tags describe them; a field without omitempty is required. Unknown arguments
// are refused; an output may gain fields in later versions, so its schema leaves
// room for them. A slice or map in Out is either omitempty or never nil.
//
// New panics if a name or a type is unfit for a schema. That is a mistake in the
// program, which any test that lists the tools finds.
func New[In, Out any](def Def, call func(context.Context, In) (Out, error)) Tool {
	if !toolName.MatchString(def.Name) {
		panic(fmt.Sprintf("tools: %q is not a tool name", def.Name))
	}
	in := newShape(def.Name+" input", reflect.TypeFor[In](), false)
	out := newShape(def.Name+" output", reflect.TypeFor[Out](), true)
	served := new([]string)
	return Tool{
		Def:          def,
		in:           in,
		served:       served,
		InputSchema:  in.raw,
		OutputSchema: out.raw,
		Call: func(ctx context.Context, args json.RawMessage) (Result, error) {
			var given In
			if err := in.decode(def.Name, args, &given); err != nil {
				return Result{}, err
			}
			answer, err := call(ctx, given)
			if err != nil {
				return Result{}, err
			}
			if a, ok := any(&answer).(interface{ trim(served []string) }); ok {
				a.trim(*served)
			}
			return encode(def.Name, out, answer)
		},
	}
}

// encode makes the result. An answer that breaks the tool's own output schema
// would be refused by strict clients, after the call has had its effect. So it
// is handed over in an error instead, with nothing lost.
func encode(tool string, out *shape, answer any) (Result, error) {
	raw, err := json.Marshal(answer)
	if err != nil {
		return Result{}, fmt.Errorf("encode the answer of %s: %w", tool, err)
	}
	if problems := out.check(raw); len(problems) > 0 {
		return Result{}, &lease.Error{
			Code:    lease.CodeInternal,
			Message: tool + " was carried out, but its answer breaks its own output schema",
			Why:     lines(problems),
			Next:    "do not repeat the call; its answer is: " + string(raw),
		}
	}
	text := string(raw)
	if t, ok := answer.(Texter); ok {
		text = t.Text()
	}
	return Result{Text: text, Structured: raw}, nil
}
