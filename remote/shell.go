package remote

import (
	"context"
	"errors"
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
	type result struct {
		status int
		err    error
	}
	done := make(chan result, 1)
	opened := make(chan *ssh.Session, 1)
	if !n.spawn(func() {
		status, err := s.run(n, opened)
		done <- result{status, err}
	}) {
		return 0, n.lost(nil)
	}
	select {
	case r := <-done:
		return r.status, r.err
	case <-ctx.Done():
		n.spawn(func() {
			select {
			case session := <-opened:
				_ = session.Close()
			case <-done:
			}
		})
		return 0, ctx.Err()
	}
}

// run does the blocking work. All of it ends when the connection is closed.
func (s Shell) run(n *conn, opened chan<- *ssh.Session) (int, error) {
	session, err := n.client.NewSession()
	if err != nil {
		return 0, n.lost(err)
	}
	defer func() { _ = session.Close() }()
	opened <- session
	session.Stdin, session.Stdout, session.Stderr = s.Stdin, lenient{s.Stdout}, lenient{s.Stderr}
	if s.Terminal != "" {
		if err := session.RequestPty(s.Terminal, s.Height, s.Width, ssh.TerminalModes{}); err != nil {
			return 0, fmt.Errorf("ask for a terminal: %w", err)
		}
	}
	if s.Command == "" {
		err = session.Shell()
	} else {
		err = session.Start(s.Command)
	}
	if err != nil {
		return 0, n.lost(err)
	}
	err = session.Wait()
	var exit *ssh.ExitError
	var missing *ssh.ExitMissingError
	switch {
	case errors.As(err, &exit):
		return exit.ExitStatus(), nil
	case errors.As(err, &missing):
		return 0, n.lost(err)
	}
	return 0, nil // what else there is comes from input that nobody has read
}

// lenient takes everything, also when nobody reads it any more.
type lenient struct{ to io.Writer }

func (l lenient) Write(p []byte) (int, error) {
	if l.to != nil {
		_, _ = l.to.Write(p)
	}
	return len(p), nil
}
