//go:build unix

package server

import (
	"os"
	"os/signal"
	"syscall"
)

// ignoreBrokenPipes makes writes to a closed stdout or stderr fail instead of
// killing the process. Not signal.Ignore, which child processes would inherit.
func ignoreBrokenPipes() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
}
