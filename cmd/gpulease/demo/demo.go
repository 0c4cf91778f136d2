// Package demo shows the whole loop of gpulease as an agent goes through it: an
// MCP client drives a real "gpulease serve" against the simulated cloud, leases
// a simulated machine, tests a real project on it and gives it back.
//
// It launches nothing real and leaves nothing behind: no process, no simulated
// instance, no file.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gpulease/gpulease/cmd/gpulease/agent"
	"github.com/gpulease/gpulease/lambda/lambdatest"
)

// Options say what the demo does.
type Options struct {
	Binary   string   // the gpulease binary to start as the server
	Project  string   // directory to carry to the lease
	Command  string   // what to run in it
	Env      []string // NAME=value for the command
	BootTime time.Duration
	JSON     bool // write the transcript as one JSON document instead of the show
	Terminal bool // the output is a terminal: show progress in place
	Version  string
	Detach   func(*exec.Cmd) // puts the server beyond the reach of our terminal's signals
}

// ErrInterrupted says that the demo was ended early: its context has ended, or
// nobody reads its output any more. It has cleaned up all the same, unless the
// error says more.
var ErrInterrupted = errors.New("interrupted")

// policyFile is what the demo's agent is allowed. It is strict on purpose, so
// that a refusal can be shown.
const policyFile = `# The policy of this demo.
max_price_per_hour: 5
default_ttl: 30m
max_ttl: 2h
caps:
  per_lease: 5
  per_day: 10
`

// Run shows the loop. It fails with the step that failed, or with
// [ErrInterrupted]; either way the lease is given back, the server ended and the
// files removed before it returns.
func Run(ctx context.Context, o Options, out io.Writer) (err error) {
	ctx, interrupt := context.WithCancelCause(ctx)
	defer interrupt(nil)
	s := newShow(o, &output{w: out, broken: interrupt})
	defer func() { err = errors.Join(err, s.finish(err)) }()

	work, err := os.MkdirTemp("", "gpulease-demo-")
	if err != nil {
		return fmt.Errorf("step set-up: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()

	cloud, err := lambdatest.New(lambdatest.Config{SSHHosts: true, HostGPU: true, BootTime: o.BootTime, TerminateTime: 2 * time.Second, RateLimit: true, Dir: filepath.Join(work, "cloud")})
	if err != nil {
		return fmt.Errorf("step simulated cloud: %w", err)
	}
	defer func() { err = errors.Join(err, cloud.Close()) }()
	if err := cloud.Listen("127.0.0.1:0"); err != nil {
		return fmt.Errorf("step simulated cloud: %w", err)
	}
	if err := os.WriteFile(filepath.Join(work, "policy.yaml"), []byte(policyFile), 0o600); err != nil {
		return fmt.Errorf("step set-up: %w", err)
	}
	a, err := newAgent(ctx, o, work, cloud)
	switch {
	case err != nil && ctx.Err() != nil:
		return interruption(ctx)
	case err != nil:
		return fmt.Errorf("step start gpulease serve: %w", err)
	}
	loop := &loop{show: s, agent: a, options: o, cloud: cloud, dir: work}
	err = loop.run(ctx)
	if err != nil && ctx.Err() != nil {
		err = interruption(ctx) // not what a call says that was given up
		s.printf("\nInterrupted: the machine is given back, then the demo ends. Interrupt again to quit at once and leave a keeper and %s behind.\n", work)
	}
	// Whatever failed, the machine is given back and the server ends.
	cleanCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	return errors.Join(err, loop.giveBack(cleanCtx), a.Close(), keeperEnds(cleanCtx, work), loop.leftovers())
}

const cleanUpTimeout = 90 * time.Second

// interruption is why ctx has ended.
func interruption(ctx context.Context) error {
	if err := context.Cause(ctx); errors.Is(err, errOutput) {
		if errors.Is(err, syscall.EPIPE) {
			return ErrInterrupted // head has seen enough
		}
		return err
	}
	return ErrInterrupted
}

var errOutput = errors.New("write the output")

// output interrupts the demo when it cannot be written to, and takes everything
// from then on: cleaning up is more important than saying so.
type output struct {
	w      io.Writer
	broken context.CancelCauseFunc
	failed bool
}

func (o *output) Write(p []byte) (int, error) {
	if o.failed {
		return len(p), nil
	}
	if _, err := o.w.Write(p); err != nil {
		o.failed = true
		o.broken(fmt.Errorf("%w: %w", errOutput, err))
	}
	return len(p), nil
}

func keeperEnds(ctx context.Context, work string) error {
	if err := agent.KeeperEnds(ctx, filepath.Join(work, "state")); err != nil {
		return fmt.Errorf("step clean-up: %w", err)
	}
	return nil
}
