package tools

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"sort"
	"strconv"
	"strings"

	"github.com/invopop/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// check validates raw and gives one sentence for each problem, in a fixed order.
func (s *shape) check(raw json.RawMessage) []string {
	compiled, err := s.compiled()
	if err != nil {
		return []string{err.Error()}
	}
	v, err := parse(raw)
	if err != nil {
		return []string{"not JSON: " + err.Error()}
	}
	err = compiled.Validate(v)
	if err == nil {
		return nil
	}
	var invalid *validator.ValidationError
	if !errors.As(err, &invalid) {
		return []string{err.Error()}
	}
	problems := s.explain(invalid, v)
	sort.Strings(problems)
	return problems
}

func (s *shape) explain(e *validator.ValidationError, root any) []string {
	if len(e.Causes) > 0 {
		var all []string
		for _, cause := range e.Causes {
			all = append(all, s.explain(cause, root)...)
		}
		return all
	}
	path, value, field := s.locate(e.InstanceLocation, root)
	subject := path
	if subject == "" {
		subject = "the object"
	}
	if k, ok := e.ErrorKind.(*kind.Required); ok {
		all := make([]string, len(k.Missing))
		for i, name := range k.Missing {
			missing, _ := property(field, name)
			all[i] = join(path, name) + " is missing" + meaning(missing)
		}
		return all
	}
	return []string{subject + " " + rule(e.ErrorKind, value)}
}

// rule completes the sentence that begins with the argument's name.
func rule(k validator.ErrorKind, value any) string {
	switch k := k.(type) {
	case *kind.Type:
		return fmt.Sprintf("must be %s, but was %s", article(strings.Join(k.Want, " or ")), describe(value))
	case *kind.Minimum:
		return fmt.Sprintf("must be at least %s, but was %s", number(k.Want), number(k.Got))
	case *kind.Maximum:
		return fmt.Sprintf("must be at most %s, but was %s", number(k.Want), number(k.Got))
	case *kind.ExclusiveMinimum:
		return fmt.Sprintf("must be more than %s, but was %s", number(k.Want), number(k.Got))
	case *kind.ExclusiveMaximum:
		return fmt.Sprintf("must be less than %s, but was %s", number(k.Want), number(k.Got))
	case *kind.MinLength:
		if k.Got == 0 {
			return "must not be empty"
		}
		return fmt.Sprintf("must have at least %d characters, but had %d", k.Want, k.Got)
	case *kind.MaxLength:
		return fmt.Sprintf("must have at most %d characters, but had %d", k.Want, k.Got)
	case *kind.MinItems:
		if k.Got == 0 {
			return "must not be empty"
		}
		return fmt.Sprintf("must have at least %d items, but had %d", k.Want, k.Got)
	case *kind.MaxItems:
		return fmt.Sprintf("must have at most %d items, but had %d", k.Want, k.Got)
	case *kind.UniqueItems:
		return fmt.Sprintf("must not repeat itself: items %d and %d are equal", k.Duplicates[0], k.Duplicates[1])
	case *kind.Pattern:
		return fmt.Sprintf("must match %s, but was %s", k.Want, describe(value))
	case *kind.Enum:
		return enum(k, value)
	case *kind.AdditionalProperties:
		return "does not take " + strings.Join(k.Properties, ", ")
	default:
		return fmt.Sprintf("breaks the rule %q of the schema", strings.Join(k.KeywordPath(), "/"))
	}
}

func enum(k *kind.Enum, value any) string {
	want := make([]string, len(k.Want))
	for i, w := range k.Want {
		want[i] = fmt.Sprint(w)
	}
	text := fmt.Sprintf("must be one of %s, but was %s", strings.Join(want, ", "), describe(value))
	if given, ok := value.(string); ok {
		if best := Nearest(given, want); best != "" {
			text += fmt.Sprintf("; did you mean %s?", quote(best))
		}
	}
	return text
}

// locate follows a JSON pointer through the value and its schema.
func (s *shape) locate(pointer []string, root any) (path string, value any, field *jsonschema.Schema) {
	value, field = root, s.tree
	for _, token := range pointer {
		switch v := value.(type) {
		case map[string]any:
			path, value = join(path, token), v[token]
			if field != nil {
				next, ok := property(field, token)
				if !ok {
					next = field.AdditionalProperties
				}
				field = next
			}
		case []any:
			path += "[" + token + "]"
			value = nil
			if i, err := strconv.Atoi(token); err == nil && i >= 0 && i < len(v) {
				value = v[i]
			}
			if field != nil {
				field = field.Items
			}
		}
	}
	if field == nil {
		field = &jsonschema.Schema{}
	}
	return path, value, field
}

// meaning tells what a missing argument is for.
func meaning(s *jsonschema.Schema) string {
	if s == nil || s.Type == "" {
		return ""
	}
	if s.Description == "" {
		return " (" + article(s.Type) + ")"
	}
	return " (" + article(s.Type) + ": " + strings.TrimSuffix(s.Description, ".") + ")"
}

func article(noun string) string {
	if noun != "" && strings.ContainsRune("aeio", rune(noun[0])) {
		return "an " + noun
	}
	return "a " + noun
}

// describe names a given value without repeating much of it: it may be long, and
// it may be a secret.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case json.Number:
		return clip(v.String(), 32)
	case string:
		if len(v) > 40 {
			return fmt.Sprintf("a string of %d bytes", len(v))
		}
		return "the string " + quote(v)
	case []any:
		return "a list"
	default:
		return "an object"
	}
}

func quote(s string) string { return strconv.Quote(clip(s, 80)) }

func number(r *big.Rat) string {
	if r.IsInt() {
		return clip(r.Num().String(), 32)
	}
	f, _ := r.Float64()
	return strconv.FormatFloat(f, 'g', -1, 64)
}
