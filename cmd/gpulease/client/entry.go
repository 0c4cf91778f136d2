// Package client makes gpulease known to agent hosts, by an entry in the file in
// which each host keeps its MCP servers. It changes that entry and nothing else:
// comments, order, indentation and line endings of the file stay byte for byte.
package client

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// Name is what our entry is called, in every host.
const Name = "gpulease"

// mark is the variable of an entry that holds the sum of all the rest that we
// wrote, so that an entry that somebody has edited is known as such. The server
// does not read it.
const mark = "GPULEASE_INSTALLED"

// ErrEdited says that an entry is not, or is no more, as we wrote it.
var ErrEdited = errors.New("is not as gpulease wrote it")

// Entry is how a host starts the server. No secret belongs into it.
type Entry struct {
	Command string // absolute path
	Args    []string
	Env     map[string]string
}

// check refuses what a host would not hand on as it is.
func (e Entry) check(h Host) error {
	said := map[string]string{"the program's path": e.Command}
	for name, value := range e.Env {
		said[name] = value
	}
	for _, a := range e.Args {
		said["the argument "+a] = strings.ReplaceAll(a, h.Root, "")
		if h.Root == "" {
			said["the argument "+a] = a
		}
	}
	for _, what := range sorted(said) {
		if strings.ContainsFunc(said[what], unicode.IsControl) {
			return fmt.Errorf("%s has a control character in it", what)
		}
		if h.expands == nil {
			continue
		}
		if at := h.expands.FindString(said[what]); at != "" {
			return fmt.Errorf("%s has %s in it, which %s would replace; give it without, for instance as a script of yours that does it", what, at, h.Title)
		}
	}
	return nil
}

func (e Entry) sum() string {
	env := maps.Clone(e.Env)
	delete(env, mark)
	b, _ := json.Marshal([]any{e.Command, e.Args, env}) // texts only
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:6])
}

// marked is the entry with its sum in it.
func (e Entry) marked() Entry {
	env := maps.Clone(e.Env)
	if env == nil {
		env = map[string]string{}
	}
	e.Env = env
	if e.Args == nil {
		e.Args = []string{}
	}
	env[mark] = e.sum()
	return e
}

// ours reports whether the entry is as marked made it.
func (e Entry) ours() bool { return e.Env[mark] != "" && e.Env[mark] == e.sum() }

// read makes an entry of what a file has. What is of another form is not ours.
func read(v any) (e Entry) {
	m, _ := v.(map[string]any)
	e.Command, _ = m["command"].(string)
	args, _ := m["args"].([]any)
	e.Args = []string{}
	for _, a := range args {
		s, ok := a.(string)
		if !ok {
			return Entry{}
		}
		e.Args = append(e.Args, s)
	}
	env, _ := m["env"].(map[string]any)
	e.Env = map[string]string{}
	for name, v := range env {
		s, ok := v.(string)
		if !ok {
			return Entry{}
		}
		e.Env[name] = s
	}
	return e
}

func (e Entry) equal(o Entry) bool {
	return e.Command == o.Command && slices.Equal(e.Args, o.Args) && maps.Equal(e.Env, o.Env)
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
