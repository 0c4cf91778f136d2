package tools

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/invopop/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"
)

// shape is the JSON schema of one Go type, in the three forms that are needed:
// the bytes that a client gets, the tree that coercion walks, and the compiled
// validator.
type shape struct {
	raw  json.RawMessage
	tree *jsonschema.Schema
	// compiled is made at the first call: most processes use few of the tools,
	// and start-up time is felt by every agent session.
	compiled func() (*validator.Schema, error)
}

func newShape(what string, t reflect.Type, open bool) *shape {
	if t.Kind() != reflect.Struct {
		panic(fmt.Sprintf("tools: %s: %s is no struct", what, t))
	}
	// The reflector would recurse until the stack is gone.
	if path := recursion(t, nil); path != "" {
		panic(fmt.Sprintf("tools: %s: %s contains itself at %s", what, t, path))
	}
	r := jsonschema.Reflector{
		Anonymous:                 true,
		DoNotReference:            true, // some hosts resolve no $ref
		ExpandedStruct:            true, // the root itself has type object
		AllowAdditionalProperties: open,
	}
	tree := r.ReflectFromType(t)
	tree.Version = ""
	raw, err := json.Marshal(tree)
	if err != nil {
		panic(fmt.Sprintf("tools: %s: %v", what, err))
	}
	s := &shape{raw: raw, tree: tree}
	s.compiled = sync.OnceValues(func() (*validator.Schema, error) {
		doc, err := validator.UnmarshalJSON(bytes.NewReader(s.raw))
		if err != nil {
			return nil, fmt.Errorf("read the schema of %s: %w", what, err)
		}
		c := validator.NewCompiler()
		if err := c.AddResource("schema.json", doc); err != nil {
			return nil, fmt.Errorf("add the schema of %s: %w", what, err)
		}
		compiled, err := c.Compile("schema.json")
		if err != nil {
			return nil, fmt.Errorf("compile the schema of %s: %w", what, err)
		}
		return compiled, nil
	})
	return s
}

// hide takes an optional property out of a schema that nobody has used yet.
func (s *shape) hide(property string) {
	if _, ok := s.tree.Properties.Delete(property); !ok {
		return
	}
	raw, err := json.Marshal(s.tree)
	if err != nil {
		panic(fmt.Sprintf("tools: hide %s: %v", property, err))
	}
	s.raw = raw
}

// recursion gives the path at which t contains itself, or "".
func recursion(t reflect.Type, above []reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return recursion(t.Elem(), above)
	case reflect.Struct:
	default:
		return ""
	}
	if t == reflect.TypeFor[time.Time]() || t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		return ""
	}
	for _, seen := range above {
		if seen == t {
			return t.String()
		}
	}
	above = append(above[:len(above):len(above)], t)
	for i := range t.NumField() {
		if path := recursion(t.Field(i).Type, above); path != "" {
			return t.Name() + "." + t.Field(i).Name + " > " + path
		}
	}
	return ""
}
