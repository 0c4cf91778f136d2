// Command gpulease leases GPU machines on Lambda Cloud to AI agents, over the
// Model Context Protocol. See "gpulease help".
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(run(os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program. Its result is the exit code: 0 fine, 1 the thing
// asked for failed, 2 it was asked for wrongly, 3 a stop is not confirmed, 130 a
// demo was interrupted.
func run(args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once: all that matters is in the ledger
	}()
	root := newRoot(newSettings(env), stdin, stdout, stderr)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var e *exitError
	if errors.As(err, &e) {
		if e.err != nil {
			fmt.Fprintln(stderr, "gpulease:", e.err)
		}
		return e.code
	}
	fmt.Fprintln(stderr, "gpulease:", err)
	return 1
}

// exitError is an error with an exit code of its own. A nil err was shown
// already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

const (
	exitUsage       = 2
	exitUnconfirmed = 3
	exitInterrupted = 130 // as shells have it for Ctrl-C
)

func usageError(err error) error { return &exitError{code: exitUsage, err: err} }
