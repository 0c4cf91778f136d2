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
	"path/filepath"
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
}

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

// Run shows the loop. It fails with the step that failed.
func Run(ctx context.Context, o Options, out io.Writer) (err error) {
	s := newShow(o, out)
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
	if err != nil {
		return fmt.Errorf("step start gpulease serve: %w", err)
	}
	loop := &loop{show: s, agent: a, options: o, cloud: cloud}
	err = loop.run(ctx)
	// Whatever failed, the machine is given back and the server ends.
	cleanCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	return errors.Join(err, loop.giveBack(cleanCtx), a.Close(), keeperEnds(cleanCtx, work), loop.leftovers())
}

const cleanUpTimeout = 90 * time.Second

func keeperEnds(ctx context.Context, work string) error {
	if err := agent.KeeperEnds(ctx, filepath.Join(work, "state")); err != nil {
		return fmt.Errorf("step clean-up: %w", err)
	}
	return nil
}
