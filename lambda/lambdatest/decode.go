package lambdatest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"sort"
	"strings"
	"unicode/utf8"
)

// limits of a string, as the document writes them. max 0 means none.
type limits struct {
	min, max int
	pattern  *regexp.Regexp
}

// fields reads a JSON object field by field, collects what is wrong with it and
// remembers which fields nobody asked for.
type fields struct {
	raw      map[string]json.RawMessage
	path     string
	asked    map[string]bool
	children []*fields
	problems *[]string
	nulls    bool // null means absent, as in the API before 1.6
}

func parseObject(body []byte, nulls bool) (*fields, *apiError) {
	f := &fields{asked: map[string]bool{}, problems: new([]string), nulls: nulls}
	dec := json.NewDecoder(bytes.NewReader(body))
	if err := dec.Decode(&f.raw); err != nil || f.raw == nil || dec.More() {
		return nil, refusef(CodeInvalidParameters, "Invalid request data: the body is not a JSON object.")
	}
	return f, nil
}

func (f *fields) child(name string, raw json.RawMessage) *fields {
	c := &fields{path: f.path + name + ".", asked: map[string]bool{}, problems: f.problems, nulls: f.nulls}
	if err := json.Unmarshal(raw, &c.raw); err != nil || c.raw == nil {
		f.problem(name, "Input should be a valid object")
		c.raw = map[string]json.RawMessage{}
	}
	f.children = append(f.children, c)
	return c
}

func (f *fields) problem(name, format string, args ...any) {
	*f.problems = append(*f.problems, f.path+name+": "+fmt.Sprintf(format, args...))
}

// has tells whether the field is there and asks for it.
func (f *fields) has(name string) bool {
	f.asked[name] = true
	raw, ok := f.raw[name]
	if ok && f.nulls && string(raw) == "null" {
		return false
	}
	return ok
}

func (f *fields) need(name string) bool {
	if f.has(name) {
		return true
	}
	f.problem(name, "Field required")
	return false
}

func (f *fields) str(name string, l limits) string {
	if !f.has(name) {
		return ""
	}
	return f.text(name, f.raw[name], l)
}

func (f *fields) text(name string, raw json.RawMessage, l limits) string {
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil || s == nil {
		f.problem(name, "Input should be a valid string")
		return ""
	}
	n := utf8.RuneCountInString(*s)
	switch {
	case n < l.min:
		unit := "characters"
		if l.min == 1 {
			unit = "character"
		}
		f.problem(name, "String should have at least %d %s", l.min, unit)
	case l.max > 0 && n > l.max:
		f.problem(name, "String should have at most %d characters", l.max)
	case l.pattern != nil && !l.pattern.MatchString(*s):
		f.problem(name, "String should match pattern '%s'", l.pattern)
	}
	return *s
}

func (f *fields) list(name string) []json.RawMessage {
	var l []json.RawMessage
	if err := json.Unmarshal(f.raw[name], &l); err != nil || l == nil {
		f.problem(name, "Input should be a valid list")
	}
	return l
}

func (f *fields) strs(name string) []string {
	if !f.has(name) {
		return nil
	}
	out := []string{}
	for i, raw := range f.list(name) {
		out = append(out, f.text(fmt.Sprintf("%s.%d", name, i), raw, limits{}))
	}
	return out
}

func (f *fields) objs(name string) []*fields {
	if !f.has(name) {
		return nil
	}
	var out []*fields
	for i, raw := range f.list(name) {
		out = append(out, f.child(fmt.Sprintf("%s.%d", name, i), raw))
	}
	return out
}

func (f *fields) integers(name string) []int {
	var out []int
	for i, raw := range f.list(name) {
		var n *float64 // 22.0 is an integer in JSON Schema
		if err := json.Unmarshal(raw, &n); err != nil || n == nil || *n != float64(int(*n)) {
			f.problem(fmt.Sprintf("%s.%d", name, i), "Input should be a valid integer")
			continue
		}
		out = append(out, int(*n))
	}
	return out
}

// unknown are the paths of fields that nobody asked for, sorted.
func (f *fields) unknown() []string {
	var out []string
	for name := range f.raw {
		if !f.asked[name] {
			out = append(out, f.path+name)
		}
	}
	for _, c := range f.children {
		out = append(out, c.unknown()...)
	}
	sort.Strings(out)
	return out
}

func (f *fields) err() *apiError {
	if len(*f.problems) == 0 {
		return nil
	}
	return refusef(CodeInvalidParameters, "%s", strings.Join(*f.problems, "; "))
}
