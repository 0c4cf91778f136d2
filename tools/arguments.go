package tools

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"sort"
	"strconv"
	"strings"

	"github.com/invopop/jsonschema"

	"github.com/gpulease/gpulease/lease"
)

// decode checks args against the shape and reads them into the struct at into.
// Its error has the code invalid_input, names every problem at once and says how
// to mend each.
func (s *shape) decode(tool string, args json.RawMessage, into any) error {
	given, err := parse(args)
	if err != nil {
		return s.refuse(tool, []string{"the arguments are not JSON: " + err.Error()})
	}
	if given == nil {
		given = map[string]any{}
	}
	object, ok := given.(map[string]any)
	if !ok {
		return s.refuse(tool, []string{"the arguments must be one JSON object, but were " + describe(given)})
	}
	mended, problems := mend("", object, s.tree)
	raw, err := json.Marshal(mended)
	if err != nil {
		return fmt.Errorf("encode the arguments of %s: %w", tool, err)
	}
	problems = append(problems, s.check(raw)...)
	if len(problems) > 0 {
		return s.refuse(tool, problems)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return s.refuse(tool, []string{"the arguments do not fit: " + err.Error()})
	}
	return nil
}

// refuse says all that is wrong with the arguments, the first problem on the
// first line, since some hosts show only that.
func (s *shape) refuse(tool string, problems []string) error {
	e := &lease.Error{
		Code:    lease.CodeInvalidInput,
		Message: problems[0],
		Why:     lines(problems[1:]),
		Next:    fmt.Sprintf("mend this and call %s again; nothing was done", tool),
	}
	known := names(s.tree)
	if len(known) == 0 {
		e.Next = fmt.Sprintf("call %s again without arguments; nothing was done", tool)
	} else {
		e.Next += ". " + tool + " takes: " + strings.Join(known, ", ")
	}
	return e
}

func lines(items []string) string {
	if len(items) < 2 {
		return strings.Join(items, "")
	}
	return "\n- " + strings.Join(items, "\n- ")
}

// parse reads one JSON value with its numbers as they were written.
func parse(raw json.RawMessage) (any, error) {
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("text after the first value")
	}
	return v, nil
}

// mend changes what models write into what the schema means where there is only
// one reading, and finds the unknown names. A misspelt optional argument that is
// dropped would answer another question than the one that was asked, with money.
func mend(path string, v any, s *jsonschema.Schema) (any, []string) {
	if s == nil {
		return v, nil
	}
	switch s.Type {
	case "object":
		return mendObject(path, v, s)
	case "array":
		return mendArray(path, v, s)
	case "integer":
		return mendInteger(v), nil
	case "number":
		if text, ok := v.(string); ok {
			if n, err := parse(json.RawMessage(strings.TrimSpace(text))); err == nil {
				if n, ok := n.(json.Number); ok {
					return n, nil
				}
			}
		}
	case "boolean":
		if text, ok := v.(string); ok {
			switch strings.ToLower(strings.TrimSpace(text)) {
			case "true":
				return true, nil
			case "false":
				return false, nil
			}
		}
	case "string":
		if n, ok := v.(json.Number); ok {
			return n.String(), nil
		}
	}
	return v, nil
}

func mendObject(path string, v any, s *jsonschema.Schema) (any, []string) {
	if text, ok := v.(string); ok {
		v = inner(text, v)
	}
	object, ok := v.(map[string]any)
	if !ok {
		return v, nil
	}
	required := make(map[string]bool, len(s.Required))
	for _, name := range s.Required {
		required[name] = true
	}
	keys := make([]string, 0, len(object))
	for key := range object {
		keys = append(keys, key)
	}
	sort.Strings(keys)

	mended := make(map[string]any, len(object))
	var problems []string
	for _, key := range keys {
		value := object[key]
		field, known := property(s, key)
		switch {
		case !known && s.AdditionalProperties == jsonschema.FalseSchema:
			problems = append(problems, unknown(path, key, names(s)))
			continue
		case !known:
			field = s.AdditionalProperties
		case value == nil:
			continue // null means "not given": a missing required one is named later
		}
		var more []string
		mended[key], more = mend(join(path, key), value, field)
		problems = append(problems, more...)
	}
	return mended, problems
}

func mendArray(path string, v any, s *jsonschema.Schema) (any, []string) {
	if text, ok := v.(string); ok {
		v = inner(text, v)
		if _, still := v.(string); still && s.Items != nil && s.Items.Type == "string" {
			v = []any{text}
		}
	}
	list, ok := v.([]any)
	if !ok {
		return v, nil
	}
	mended := make([]any, len(list))
	var problems []string
	for i := range list {
		var more []string
		mended[i], more = mend(path+"["+strconv.Itoa(i)+"]", list[i], s.Items)
		problems = append(problems, more...)
	}
	return mended, problems
}

// mendInteger takes "60", 60.0 and 6e1 for 60. Go's decoder knows only 60.
func mendInteger(v any) any {
	var text string
	switch x := v.(type) {
	case string:
		text = strings.TrimSpace(x)
	case json.Number:
		text = x.String()
	default:
		return v
	}
	if len(text) > 32 {
		return v
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return json.Number(strconv.FormatInt(n, 10))
	}
	n, err := parse(json.RawMessage(text))
	if _, ok := n.(json.Number); err != nil || !ok {
		return v
	}
	f, _, err := big.ParseFloat(text, 10, 64, big.ToNearestEven)
	if err != nil || !f.IsInt() {
		return v
	}
	if whole, accuracy := f.Int64(); accuracy == big.Exact {
		return json.Number(strconv.FormatInt(whole, 10))
	}
	return v
}

// inner reads a list or an object that was sent as a string of JSON.
func inner(text string, otherwise any) any {
	if t := strings.TrimSpace(text); strings.HasPrefix(t, "[") || strings.HasPrefix(t, "{") {
		if v, err := parse(json.RawMessage(t)); err == nil {
			return v
		}
	}
	return otherwise
}

func property(s *jsonschema.Schema, name string) (*jsonschema.Schema, bool) {
	if s.Properties == nil {
		return nil, false
	}
	return s.Properties.Get(name)
}

// names lists the properties in the order of the Go struct, the important first.
func names(s *jsonschema.Schema) []string {
	if s == nil || s.Properties == nil {
		return nil
	}
	var list []string
	for p := s.Properties.Oldest(); p != nil; p = p.Next() {
		list = append(list, p.Key)
	}
	return list
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func unknown(path, name string, known []string) string {
	text := fmt.Sprintf("there is no argument %s", quote(join(path, name)))
	if best := Nearest(name, known); best != "" {
		return text + fmt.Sprintf("; did you mean %s?", quote(join(path, best)))
	}
	if path != "" && len(known) > 0 {
		text += fmt.Sprintf("; %s takes %s", path, strings.Join(known, ", "))
	}
	return text
}
