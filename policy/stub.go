package policy

import (
	"errors"
	"io"

	"github.com/goccy/go-yaml/ast"
)

var errSoon = errors.New("policy: being written")

func scalarText(n ast.Node) (string, bool) { return "", false }

// Load reads a policy file.
func Load(path string) (*Policy, error) { return nil, errSoon }

// Source is where the policy comes from.
type Source struct {
	Path     string
	Explicit bool
}

// Current is the policy in force now.
func (s *Source) Current() (*Policy, error) { return nil, errSoon }

// With is a copy of p with one key set from text, as from a flag or the environment.
func (p *Policy) With(key, value, source string) (*Policy, error) { return nil, errSoon }

// Schema is the JSON Schema of the policy file.
func Schema() []byte { return nil }

// Starter is a commented policy file that holds the defaults.
func Starter() string { return "" }

// Show writes the effective values with their sources.
func (p *Policy) Show(w io.Writer) error { return errSoon }
