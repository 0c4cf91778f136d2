package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	mcpserver "github.com/mark3labs/mcp-go/server"
)

const (
	// stdioWorkers is the library's most. With its default of five, five waiting
	// calls would hold up a stop_lease.
	stdioWorkers = 100
	stdioQueue   = 1000
)

var (
	errParentGone = errors.New("the parent process is gone")
	errClientGone = errors.New("the client reads no more")
)

// ServeStdio serves one client over a pair of streams until the client closes
// its end, ctx ends, the client reads no more or the parent process is gone. All
// of these are clean ends, for which it returns nil.
//
// When the client closes its end, calls under way have half of StopGrace for
// their answers before their contexts end; at the other ends, these end at once.
// What still runs StopGrace later is left behind: the end never hangs, whatever
// handlers do. A read of stdin may stay blocked behind it until the stream closes.
//
// The library keeps one stdio session per process: do not call ServeStdio twice
// at once. On Unix it takes SIGPIPE for the rest of the process's life, so that
// a host that dies ends the server in order and not in the middle of a write.
func (s *Server) ServeStdio(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	ignoreBrokenPipes()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)

	open := newTally()
	out := &lineWriter{to: stdout, open: open, broken: func(err error) {
		end(fmt.Errorf("%w: %w", errClientGone, err))
	}}
	in := newLineReader(stdin, open, ctx.Done(), s.config.StopGrace/2)

	var again sync.WaitGroup
	defer func() { end(nil); again.Wait() }()
	in.cancel = func(id json.RawMessage, line []byte) {
		again.Go(func() { s.cancelAgain(ctx, open, id, line) })
	}

	watched := make(chan struct{})
	first := os.Getppid()
	go func() {
		defer close(watched)
		watchParent(ctx, s.config.ParentPoll, first, func() { end(errParentGone) })
	}()
	defer func() { end(nil); <-watched }()

	in.answer = func(line []byte) bool { return s.questions.answer("", line) }

	stdio := mcpserver.NewStdioServer(s.mcp)
	logger := slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)
	mcpserver.WithErrorLogger(logger)(stdio)
	mcpserver.WithWorkerPoolSize(stdioWorkers)(stdio)
	mcpserver.WithQueueSize(stdioQueue)(stdio)

	client := context.WithValue(context.WithValue(ctx, notifierKey{}, out), lifeKey{}, ctx)
	defer func() { end(nil); s.watches.wait(s.config.StopGrace) }()
	done := make(chan error, 1)
	go func() {
		done <- stdio.Listen(client, in, out)
	}()
	err := s.awaitEnd(ctx, in, done)
	if cause := context.Cause(ctx); cause != nil {
		s.log.Info("stdio ended", "cause", cause.Error()) // err, if any, is what that cause led to
		return nil
	}
	if err != nil {
		return fmt.Errorf("serve stdio: %w", err)
	}
	s.log.Info("stdio ended", "cause", "the client closed its end")
	return nil
}

// awaitEnd waits for the library to be done. Once the end has begun, it waits
// for a bounded time: the library waits for every handler and every write.
func (s *Server) awaitEnd(ctx context.Context, in *lineReader, done <-chan error) error {
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	case <-in.ended:
	}
	timer := time.NewTimer(s.config.StopGrace)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		s.log.Error("calls still run at the end and are left behind")
		return nil
	}
}

// watchParent calls gone when the process has another parent than first: hosts
// that are killed often leave their servers running with stdin open. (On Windows
// a process keeps the number of its parent for ever, and only stdin tells.)
func watchParent(ctx context.Context, every time.Duration, first int, gone func()) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if os.Getppid() != first {
				gone()
				return
			}
		}
	}
}
