package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tailscale/hujson"
)

// jsonText is JSON as hosts write it: with comments and trailing commas or without.
// Every edit splices bytes into what is there, at the places that the parser names;
// the rest stays as it is.
type jsonText struct{}

// member is one of an object's, and what it takes to cut it out.
type member struct {
	hujson.ObjectMember
	at int // its place among the object's members
}

func (jsonText) decode(text []byte) (map[string]any, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return map[string]any{}, nil
	}
	if _, err := jsonRoot(text); err != nil {
		return nil, err
	}
	plain, err := hujson.Standardize(ended(text))
	if err != nil {
		return nil, jsonError(err)
	}
	d := json.NewDecoder(bytes.NewReader(plain))
	d.UseNumber()
	var v map[string]any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return v, nil
}

// jsonRoot parses a text whose top is an object.
func jsonRoot(text []byte) (hujson.Value, error) {
	v, err := hujson.Parse(ended(text))
	if err != nil {
		return v, jsonError(err)
	}
	if v.Value.Kind() != '{' {
		return v, fmt.Errorf("line %d: there should be an object", line(text, v.StartOffset))
	}
	return v, nil
}

// ended is a copy that ends with a line ending: the parser wants one behind a last
// comment, hosts do not.
func ended(text []byte) []byte {
	text = bytes.Clone(text)
	if !bytes.HasSuffix(text, []byte("\n")) {
		text = append(text, '\n')
	}
	return text
}

func jsonError(err error) error {
	return errors.New(strings.TrimPrefix(err.Error(), "hujson: "))
}

func line(text []byte, at int) int { return 1 + bytes.Count(text[:at], []byte("\n")) }

// find is the object's member of that name, nil for none. A name that is there
// twice has no meaning that all readers share.
func find(text []byte, object hujson.Value, name string) (*member, error) {
	var found *member
	for i, m := range object.Value.(*hujson.Object).Members {
		if m.Name.Value.(hujson.Literal).String() != name {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("line %d: %q is there twice", line(text, m.Name.StartOffset), name)
		}
		found = &member{m, i}
	}
	return found, nil
}

// set gives the member at path, made where it is missing, a value.
func (jsonText) set(text []byte, path []string, value any) ([]byte, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		text = []byte("{" + ending(text) + "}" + ending(text))
	}
	object, err := jsonRoot(text)
	if err != nil {
		return nil, err
	}
	unit := jsonUnit(text, object)
	root := object
	for i, name := range path {
		m, err := find(text, object, name)
		if err != nil {
			return nil, err
		}
		if m == nil {
			for _, inner := range slices.Backward(path[i+1:]) {
				value = map[string]any{inner: value}
			}
			return jsonInsert(text, root, object, unit, name, value)
		}
		v := m.Value
		if i == len(path)-1 {
			whole := render(value, lineIndent(text, m.Name.StartOffset), unit, ending(text), oneLine(text, object))
			return splice(text, cut{v.StartOffset, v.EndOffset, whole}), nil
		}
		if v.Value.Kind() != '{' {
			return nil, fmt.Errorf("line %d: %q should be an object", line(text, v.StartOffset), name)
		}
		object = v
	}
	return nil, errors.New("no path")
}

// jsonInsert adds a last member to an object, behind its comments.
func jsonInsert(text []byte, root, object hujson.Value, unit, name string, value any) ([]byte, error) {
	o := object.Value.(*hujson.Object)
	shut := object.EndOffset - 1
	at := len(bytes.TrimRight(text[:shut], " \t\r\n"))
	flat := oneLine(text, object)
	if len(o.Members) == 0 {
		flat = oneLine(text, root) && len(root.Value.(*hujson.Object).Members) > 0
	}
	eol := ending(text)
	outer := lineIndent(text, object.StartOffset)
	indent := outer + unit
	var cuts []cut
	tail := ""
	if n := len(o.Members); n > 0 {
		last := o.Members[n-1]
		if own, ok := ownLine(text, last.Name.StartOffset); ok {
			indent = own
		}
		if trailingComma(text, o) {
			tail = ","
		} else {
			cuts = append(cuts, cut{last.Value.EndOffset, last.Value.EndOffset, ","})
		}
	}
	label, _ := json.Marshal(name)
	if flat {
		space := ""
		if bytes.Contains(text, []byte(`": `)) {
			space = " "
		}
		before := space
		if len(o.Members) == 0 {
			before = ""
		}
		cuts = append(cuts, cut{at, at, before + string(label) + ":" + space + render(value, "", "", eol, true) + tail})
		return splice(text, cuts...), nil
	}
	whole := eol + indent + string(label) + ": " + render(value, indent, unit, eol, false) + tail
	if len(o.Members) == 0 && !bytes.Contains(text[at:shut], []byte("\n")) {
		whole += eol + outer
	}
	return splice(text, append(cuts, cut{at, at, whole})...), nil
}

// remove cuts out the member at path, with the one comma that it no longer needs.
// Comments stay. It is no error if nothing is there.
func (jsonText) remove(text []byte, path []string) ([]byte, error) {
	object, err := jsonRoot(text)
	if err != nil {
		return nil, err
	}
	for i, name := range path {
		m, err := find(text, object, name)
		if m == nil {
			return text, err
		}
		if i == len(path)-1 {
			return jsonCut(text, object, m), nil
		}
		if m.Value.Value.Kind() != '{' {
			return text, nil
		}
		object = m.Value
	}
	return text, nil
}

func jsonCut(text []byte, object hujson.Value, m *member) []byte {
	o := object.Value.(*hujson.Object)
	from, to := m.Name.StartOffset, m.Value.EndOffset
	var cuts []cut
	comma := to + len(m.Value.AfterExtra)
	switch {
	case m.at < len(o.Members)-1 || text[comma] == ',':
		if comma == to {
			to++ // both in one
		} else {
			cuts = append(cuts, cut{comma, comma + 1, ""})
		}
	case m.at > 0:
		prev := o.Members[m.at-1].Value
		c := prev.EndOffset + len(prev.AfterExtra)
		cuts = append(cuts, cut{c, c + 1, ""})
	}
	rest, _, _ := bytes.Cut(text[to:], []byte("\n"))
	next := bytes.TrimSpace(rest)
	comment := bytes.TrimSpace(m.Name.BeforeExtra)
	comment = comment[bytes.LastIndexByte(comment, '\n')+1:]
	switch {
	case len(next) > 0 && (next[0] != '}' || bytes.Contains(comment, []byte("//"))):
		to += len(rest) - len(bytes.TrimLeft(rest, " \t")) // what follows takes its place
	default:
		from = len(bytes.TrimRight(text[:from], " \t\r\n"))
	}
	if len(o.Members) == 1 && len(bytes.TrimSpace(text[object.StartOffset+1:from])) == 0 && len(bytes.TrimSpace(text[to:object.EndOffset-1])) == 0 {
		return splice(text, cut{object.StartOffset + 1, object.EndOffset - 1, ""})
	}
	return splice(text, append(cuts, cut{from, to, ""})...)
}

func trailingComma(text []byte, o *hujson.Object) bool {
	last := o.Members[len(o.Members)-1].Value
	return text[last.EndOffset+len(last.AfterExtra)] == ','
}

func oneLine(text []byte, v hujson.Value) bool {
	return !bytes.Contains(text[v.StartOffset:v.EndOffset], []byte("\n"))
}

// jsonUnit is what one level is indented by.
func jsonUnit(text []byte, root hujson.Value) string {
	for _, m := range root.Value.(*hujson.Object).Members {
		if own, ok := ownLine(text, m.Name.StartOffset); ok && own != "" {
			return own
		}
	}
	return "  "
}

// ownLine is the white space before a place, if there is nothing else before it
// in its line.
func ownLine(text []byte, at int) (string, bool) {
	start := bytes.LastIndexByte(text[:at], '\n') + 1
	return string(text[start:at]), len(bytes.TrimSpace(text[start:at])) == 0
}

// lineIndent is the white space that a place's line begins with.
func lineIndent(text []byte, at int) string {
	l := text[bytes.LastIndexByte(text[:at], '\n')+1:]
	return string(l[:len(l)-len(bytes.TrimLeft(l, " \t"))])
}

// render is a value as JSON; the first line has no indent.
func render(value any, indent, unit, eol string, flat bool) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if !flat {
		e.SetIndent(indent, unit)
	}
	_ = e.Encode(value) // strings, lists and maps of them
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\n", eol)
}

// ending is the line ending that a text has, "\n" where it has none.
func ending(text []byte) string {
	if bytes.Contains(text, []byte("\r\n")) {
		return "\r\n"
	}
	return "\n"
}

// cut replaces the bytes from..to of a text.
type cut struct {
	from, to int
	by       string
}

// splice applies cuts that do not overlap; those at one place in their order.
func splice(text []byte, cuts ...cut) []byte {
	slices.SortStableFunc(cuts, func(a, b cut) int { return a.from - b.from })
	var out []byte
	at := 0
	for _, c := range cuts {
		out = append(append(out, text[at:c.from]...), c.by...)
		at = c.to
	}
	return append(out, text[at:]...)
}
