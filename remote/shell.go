package remote

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/crypto/ssh"
)

// Shell is what [Pool.Shell] runs, with the streams of whoever runs it.
type Shell struct {
	Command        string // "" is a login shell
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Terminal       string // its kind, such as "xterm-256color"; "" for none
	Width, Height  int    // of the terminal, in characters
}

// Shell runs a command or a login shell for a person, as ssh does, and returns its exit status: 128 and the number of
// the signal where one ended it. It is no job: it may end with the connection, nothing of it is kept, and it is not tried
// again.
func (p *Pool) Shell(ctx context.Context, t Target, s Shell) (int, error) {
	if err := t.validate(); err != nil {
		return 0, err
	}
	n, err := p.connect(ctx, t)
	if err != nil {
		return 0, err
	}
	return n.exec(ctx, execution{
		command: s.Command, stdin: s.Stdin, stdout: lenient{s.Stdout}, stderr: lenient{s.Stderr},
		prepare: func(session *ssh.Session) error {
			if s.Terminal == "" {
				return nil
			}
			if err := session.RequestPty(s.Terminal, s.Height, s.Width, ssh.TerminalModes{}); err != nil {
				return fmt.Errorf("ask for a terminal: %w", err)
			}
			return nil
		},
	})
}

// lenient takes everything, also when nobody reads it any more.
type lenient struct{ to io.Writer }

func (l lenient) Write(p []byte) (int, error) {
	if l.to != nil {
		_, _ = l.to.Write(p)
	}
	return len(p), nil
}
