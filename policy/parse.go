package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	yamlparser "github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// FileError is what is wrong with a policy file, and where.
type FileError struct {
	Path   string
	Line   int // from 1; 0 where it is about the file as a whole
	Column int // from 1, in characters; 0 with Line 0
	Msg    string
	Err    error // the cause, where there is one: an error of the file system
}

func (e *FileError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.Path, e.Msg)
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.Path, e.Line, e.Column, e.Msg)
}

// Unwrap is the cause.
func (e *FileError) Unwrap() error { return e.Err }

// Parse reads the text of a policy file; path is for sources and errors only. A key that is left out keeps its default. All
// that is not understood is a *FileError: an unknown or repeated key, a value of the wrong kind or unit, a negative cap, more
// than one document, anchors, aliases, tags and merge keys.
func Parse(path string, data []byte) (*Policy, error) {
	if err := checkText(path, data); err != nil {
		return nil, err
	}
	text := strings.TrimPrefix(string(data), byteOrderMark)
	// Repeated keys are found here rather than by the parser: it takes quadratic time for it.
	file, err := yamlparser.ParseBytes([]byte(text), 0, yamlparser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxError(path, err)
	}
	r := &reader{path: path, policy: Default(), read: make(map[int]bool), set: make(map[string]*token.Token)}
	r.policy.path = path
	r.policy.sources = make(map[string]string)
	var body ast.Node
	if len(file.Docs) > 0 {
		body = file.Docs[0].Body
	}
	if body == nil || len(file.Docs) != 1 {
		return nil, &FileError{Path: path, Msg: "the file has no single YAML mapping: for the defaults remove it, or write {}"}
	}
	if err := r.file(body); err != nil {
		return nil, err
	}
	if err := r.checkAllRead(text); err != nil {
		return nil, err
	}
	return r.policy, nil
}

func syntaxError(path string, err error) error {
	e := &FileError{Path: path, Msg: "not YAML: " + clip(err.Error())}
	var syntax yaml.Error
	if errors.As(err, &syntax) {
		e.Msg = "not YAML: " + syntax.GetMessage()
		if t := syntax.GetToken(); t != nil && t.Position != nil {
			e.Line, e.Column = t.Position.Line, t.Position.Column
		}
	}
	return e
}

// reader fills a policy from the syntax tree.
type reader struct {
	path   string
	policy *Policy
	read   map[int]bool            // lines with a key or a value that was taken
	set    map[string]*token.Token // rules that the file sets, and the key that does it
}

// entry is one key of a mapping with its value.
type entry struct {
	name  string
	at    *token.Token // of the key
	value ast.Node
}

func (r *reader) fail(at *token.Token, format string, args ...any) *FileError {
	e := &FileError{Path: r.path, Msg: fmt.Sprintf(format, args...)}
	if at != nil && at.Position != nil {
		e.Line, e.Column = at.Position.Line, at.Position.Column
	}
	return e
}

func (r *reader) mark(at *token.Token) {
	if at != nil && at.Position != nil {
		r.read[at.Position.Line] = true
	}
}

// entries are the keys of a mapping, each there once. under names the mapping in errors, and at is where to point for one that
// has no place of its own.
func (r *reader) entries(n ast.Node, at *token.Token, under string) ([]entry, error) {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
		r.mark(n.GetToken())
		r.mark(n.End)
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		return nil, r.fail(place(n, at), "%s: want a mapping of keys to values, not %s", under, kindOf(n))
	}
	list := make([]entry, 0, len(values))
	lines := make(map[string]int, len(values))
	for _, v := range values {
		name, ok := scalarText(v.Key)
		at := v.Key.GetToken()
		if !ok {
			return nil, r.fail(at, "%s: a key is %s, not a plain name", under, kindOf(v.Key))
		}
		if line, twice := lines[name]; twice {
			return nil, r.fail(at, "%s: %q is set twice, first in line %d", under, clip(name), line)
		}
		lines[name] = at.Position.Line
		r.mark(at)
		list = append(list, entry{name, at, v.Value})
	}
	return list, nil
}

func (r *reader) file(body ast.Node) error {
	list, err := r.entries(body, body.GetToken(), "policy")
	if err != nil {
		return err
	}
	for _, e := range list {
		switch {
		case e.name == keyPrincipals:
			err = r.principals(e)
		case e.name == keyNetwork:
			err = r.network(e)
		case slices.Contains(wholeKeys, e.name):
			err = r.scalar(e, e.name, func(text string) error { return r.policy.put(e.name, text) })
		default:
			err = r.limit(&r.policy.Limits, "", e, append(slices.Clone(wholeKeys), keyNetwork, keyPrincipals))
		}
		if err != nil {
			return err
		}
	}
	return r.checkTTLs("", r.policy.Limits)
}

func (r *reader) principals(e entry) error {
	list, err := r.entries(e.value, e.at, keyPrincipals)
	if err != nil {
		return err
	}
	if len(list) > maxEntries {
		return r.fail(e.at, "more than %d principals", maxEntries)
	}
	r.policy.Principals = make(map[string]Limits, len(list))
	for _, who := range list {
		if err := checkPrincipal(who.name); err != nil {
			return r.fail(who.at, "%v", err)
		}
		prefix := keyPrincipals + "." + who.name + "."
		keys, err := r.entries(who.value, who.at, strings.TrimSuffix(prefix, "."))
		if err != nil {
			return err
		}
		var limits Limits
		for _, k := range keys {
			if err := r.limit(&limits, prefix, k, nil); err != nil {
				return err
			}
		}
		if err := r.checkTTLs(prefix, limits); err != nil {
			return err
		}
		r.policy.Principals[who.name] = limits
	}
	return nil
}

// limit reads one key of the account's or a principal's limits, with what is nested in it. also are further names to offer when
// the key is unknown.
func (r *reader) limit(l *Limits, prefix string, e entry, also []string) error {
	if k, ok := findKey(e.name); ok && !strings.Contains(e.name, ".") {
		return r.setting(l, prefix, k, e)
	}
	var known []string
	section := false
	for _, k := range limitKeys {
		top, _, nested := strings.Cut(k.name, ".")
		section = section || nested && top == e.name
		if !slices.Contains(known, top) {
			known = append(known, top)
		}
	}
	if !section {
		return r.fail(e.at, "unknown key %q: the keys here are %s", clip(prefix+e.name), strings.Join(append(known, also...), ", "))
	}
	list, err := r.entries(e.value, e.at, prefix+e.name)
	if err != nil {
		return err
	}
	for _, inner := range list {
		k, ok := findKey(e.name + "." + inner.name)
		if !ok {
			return r.fail(inner.at, "unknown key %q: the keys here are %s", clip(prefix+e.name+"."+inner.name), keysOf(e.name))
		}
		if err := r.setting(l, prefix, k, inner); err != nil {
			return err
		}
	}
	return nil
}

func keysOf(section string) string {
	var names []string
	for _, k := range limitKeys {
		if rest, ok := strings.CutPrefix(k.name, section+"."); ok {
			names = append(names, rest)
		}
	}
	return strings.Join(names, ", ")
}

func (r *reader) setting(l *Limits, prefix string, k key, e entry) error {
	if k.list == nil {
		return r.scalar(e, prefix+k.name, func(text string) error { return k.set(l, text) })
	}
	return r.list(e, prefix+k.name, "patterns", func(patterns []string) (int, error) { return k.setList(l, patterns) })
}

// list reads a list of what is called want in errors. set says which one is at fault, -1 for the list as a whole.
func (r *reader) list(e entry, rule, want string, set func([]string) (bad int, err error)) error {
	seq, ok := e.value.(*ast.SequenceNode)
	if !ok {
		return r.fail(place(e.value, e.at), "%s: want a list such as %s, not %s", rule, listExamples[want], kindOf(e.value))
	}
	r.mark(seq.Start)
	r.mark(seq.End)
	var texts []string
	for _, n := range seq.Values {
		text, ok := scalarText(n)
		if !ok {
			return r.fail(place(n, e.at), "%s: want %s, not %s", rule, want, kindOf(n))
		}
		r.mark(n.GetToken())
		texts = append(texts, text)
	}
	if bad, err := set(texts); err != nil {
		at := seq.GetToken()
		if bad >= 0 {
			at = seq.Values[bad].GetToken()
		}
		return r.fail(at, "%s: %v", rule, err)
	}
	r.remember(rule, e.at)
	return nil
}

var listExamples = map[string]string{"patterns": "[gpu_1x_*]", "tags": "[gpulease]"}

func (r *reader) scalar(e entry, rule string, set func(text string) error) error {
	text, ok := scalarText(e.value)
	if !ok {
		return r.fail(place(e.value, e.at), "%s: want one value, not %s", rule, kindOf(e.value))
	}
	at := e.value.GetToken()
	if err := set(text); err != nil {
		return r.fail(at, "%s: %v", rule, err)
	}
	r.mark(at)
	r.remember(rule, e.at)
	return nil
}

func (r *reader) remember(rule string, at *token.Token) {
	r.set[rule] = at
	r.policy.sources[rule] = fmt.Sprintf("%s:%d", r.path, at.Position.Line)
}

// checkTTLs refuses a default above the maximum where the file sets both; a default that the file leaves out is cut by TTLFor.
func (r *reader) checkTTLs(prefix string, l Limits) error {
	at, own := r.set[prefix+"default_ttl"]
	_, most := r.set[prefix+"max_ttl"]
	if !own || !most || l.DefaultTTL <= l.MaxTTL {
		return nil
	}
	return r.fail(at, "%sdefault_ttl: %s is longer than max_ttl, %s", prefix, span(l.DefaultTTL), span(l.MaxTTL))
}

// checkAllRead refuses text that the parser passed over: every line that is neither blank nor a comment nor mere punctuation
// must have given a key or a value.
func (r *reader) checkAllRead(text string) error {
	for i, line := range strings.Split(text, "\n") {
		rest := strings.TrimSpace(line)
		if rest == "" || rest[0] == '#' || r.read[i+1] {
			continue
		}
		rest, _, _ = strings.Cut(rest, " #")
		if rest == "---" || rest == "-" || strings.Trim(rest, "[]{}, \t\r") == "" {
			continue
		}
		column := len([]rune(line)) - len([]rune(strings.TrimLeft(line, " \t"))) + 1
		return &FileError{Path: r.path, Line: i + 1, Column: column, Msg: "this line was not understood: a value stands on one line"}
	}
	return nil
}

// scalarText is the exact text of a plain or quoted value on one line.
func scalarText(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// place is where n stands, or at where it is empty and so stands nowhere.
func place(n ast.Node, at *token.Token) *token.Token {
	if n == nil || n.GetToken() == nil || n.Type() == ast.NullType {
		return at
	}
	if _, ok := n.(*ast.MappingNode); ok {
		return at // its own token is some colon inside
	}
	return n.GetToken()
}

func kindOf(n ast.Node) string {
	switch n.(type) {
	case nil, *ast.NullNode:
		return "nothing"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		return "an anchor, an alias or a merge key (the file has none of them)"
	case *ast.TagNode:
		return "a tag"
	case *ast.LiteralNode:
		return "a block of text"
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return "a single value"
	}
	return "something else"
}
