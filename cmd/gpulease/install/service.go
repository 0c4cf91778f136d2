// Package install writes the files that make gpulease a service of one user: a
// systemd user unit or timer, or a launchd agent. It only makes texts, writes them
// and removes them; who starts services is up to its caller.
package install

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Service is what the system shall run.
type Service struct {
	Name    string // "keeper": one word
	About   string // for people, one line
	Program string // absolute path
	Args    []string
	Every   time.Duration // 0: all the time, restarted whenever it ends
	Env     []Variable
	EnvFile string // systemd only: a file with further variables; "" for none
	Home    string // working directory
	Log     string // launchd only: where standard error goes; "" for nowhere
}

// Variable is one of the environment. No secret belongs into it.
type Variable struct{ Name, Value string }

// File is a text and where it belongs.
type File struct {
	Path string
	Text string
}

// errControl is for what no quoting of ours can carry.
var errControl = errors.New("it has a control character in it")

func (s Service) check() error {
	said := map[string]string{"the program's path": s.Program, "the home directory": s.Home, "the variables' file": s.EnvFile, "the log's path": s.Log}
	for _, v := range s.Env {
		said[v.Name] = v.Value
	}
	for _, a := range s.Args {
		said["argument "+a] = a
	}
	for name, text := range said {
		if strings.ContainsFunc(text, unicode.IsControl) {
			return fmt.Errorf("%s: %w", name, errControl)
		}
	}
	return nil
}

const documentation = "https://github.com/gpulease/gpulease/blob/main/docs/keeper.md"
