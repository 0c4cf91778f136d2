package client

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// tomlText is TOML. As with JSON, edits splice whole lines or single values.
type tomlText struct{}

// statement is a table's header or one key with its value, over one or several lines.
type statement struct {
	path        []string
	header      bool
	list        bool // an array of tables
	from, to    int  // its lines, with the last one's ending
	value, stop int  // its value's bytes, if it has one
}

func (tomlText) decode(text []byte) (map[string]any, error) {
	v := map[string]any{}
	err := toml.Unmarshal(text, &v)
	if bad := (*toml.DecodeError)(nil); errors.As(err, &bad) {
		l, c := bad.Position()
		return nil, fmt.Errorf("line %d, column %d: %s", l, c, strings.TrimPrefix(bad.Error(), "toml: "))
	}
	return v, err
}

// statements are a valid text's, in their order.
func statements(text []byte) ([]statement, error) {
	var p unstable.Parser
	p.Reset(text)
	var all []statement
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		var s statement
		var first, last unstable.Range
		for keys := e.Key(); keys.Next(); {
			k := keys.Node()
			if len(s.path) == 0 {
				first = k.Raw
			}
			s.path, last = append(s.path, string(k.Data)), k.Raw
		}
		end := int(last.Offset + last.Length)
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			s.header, s.list = true, e.Kind == unstable.ArrayTable
			table = s.path
		case unstable.KeyValue:
			s.path = slices.Concat(table, s.path)
			s.stop = int(e.Raw.Offset + e.Raw.Length)
			s.value = end + bytes.IndexByte(text[end:], '=') + 1
			s.value += len(text[s.value:]) - len(bytes.TrimLeft(text[s.value:], " \t"))
			end = s.stop
		default:
			continue
		}
		s.from = bytes.LastIndexByte(text[:first.Offset], '\n') + 1
		s.to = len(text)
		if i := bytes.IndexByte(text[end:], '\n'); i >= 0 {
			s.to = end + i + 1
		}
		all = append(all, s)
	}
	return all, p.Error()
}

func under(path, of []string) bool {
	return len(path) >= len(of) && slices.Equal(path[:len(of)], of)
}

// set gives the key at path a value: text, a list, or a table of texts.
func (d tomlText) set(text []byte, path []string, value any) ([]byte, error) {
	all, err := statements(text)
	if err != nil {
		return nil, err
	}
	own := path[:len(path)-1]
	at := -1
	for _, s := range all {
		switch {
		case !s.header && slices.Equal(s.path, path):
			return splice(text, cut{s.value, s.stop, tomlValue(value)}), nil
		case s.header && !s.list && slices.Equal(s.path, own), !s.header && slices.Equal(s.path[:len(s.path)-1], own):
			at = s.to
		}
	}
	if at < 0 {
		return d.addTable(text, own, map[string]any{path[len(path)-1]: value}, []string{path[len(path)-1]}), nil
	}
	eol := ending(text)
	whole := tomlKey(path[len(path)-1]) + " = " + tomlValue(value)
	if at > 0 && text[at-1] != '\n' {
		return splice(text, cut{at, at, eol + whole}), nil
	}
	return splice(text, cut{at, at, whole + eol}), nil
}

// addTable writes a table at the end, a blank line before it. A text that does
// not end with a line ending keeps that way.
func (tomlText) addTable(text []byte, path []string, values map[string]any, order []string) []byte {
	eol := ending(text)
	names := make([]string, len(path))
	for i, p := range path {
		names[i] = tomlKey(p)
	}
	lines := []string{"[" + strings.Join(names, ".") + "]"}
	for _, name := range order {
		lines = append(lines, tomlKey(name)+" = "+tomlValue(values[name]))
	}
	whole := strings.Join(lines, eol)
	switch {
	case len(text) == 0:
		whole += eol
	case text[len(text)-1] == '\n':
		whole = eol + whole + eol
	default:
		whole = eol + eol + whole
	}
	return append(bytes.Clone(text), whole...)
}

// remove cuts out what is at path and below it, each run of lines with the blank
// line before it. Comments on lines of their own stay.
func (tomlText) remove(text []byte, path []string) ([]byte, error) {
	all, err := statements(text)
	if err != nil {
		return nil, err
	}
	var cuts []cut
	for _, s := range all {
		if !under(s.path, path) {
			continue
		}
		if n := len(cuts); n > 0 && len(bytes.TrimSpace(text[cuts[n-1].to:s.from])) == 0 {
			cuts[n-1].to = s.to
			continue
		}
		cuts = append(cuts, cut{from: s.from, to: s.to})
	}
	for i, c := range cuts {
		if c.from == 0 { // no blank line before, so the one behind it
			next, _, ok := bytes.Cut(text[c.to:], []byte("\n"))
			if ok && len(bytes.TrimSpace(next)) == 0 {
				cuts[i].to += len(next) + 1
			}
		}
		if !endsBlank(text[:c.from]) {
			continue
		}
		cuts[i].from = lineBefore(text, c.from)
		if c.to == len(text) && text[c.to-1] != '\n' { // the ending before goes too
			cuts[i].from = len(bytes.TrimSuffix(bytes.TrimSuffix(text[:cuts[i].from], []byte("\n")), []byte("\r")))
		}
	}
	return splice(text, cuts...), nil
}

// endsBlank reports whether the last line of a text is blank.
func endsBlank(text []byte) bool {
	return len(text) > 0 && text[len(text)-1] == '\n' && len(bytes.TrimSpace(text[lineBefore(text, len(text)):])) == 0
}

// lineBefore is where the line begins that ends just before at.
func lineBefore(text []byte, at int) int {
	return bytes.LastIndexByte(text[:at-1], '\n') + 1
}

// tomlKey is a name as a key: bare where that can be.
func tomlKey(name string) string {
	bare := func(r rune) bool {
		return r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	}
	if name != "" && !strings.ContainsFunc(name, func(r rune) bool { return !bare(r) }) {
		return name
	}
	return tomlValue(name)
}

// tomlValue is a value without control characters; what JSON makes of a text is
// TOML as well.
func tomlValue(value any) string {
	if list, ok := value.([]string); ok {
		parts := make([]string, len(list))
		for i, v := range list {
			parts[i] = tomlValue(v)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return render(value, "", "", "\n", true)
}
