package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gpulease/gpulease/cmd/gpulease/demo"
)

func newDemo(*settings) *cobra.Command {
	var o demo.Options
	c := &cobra.Command{
		Use:   "demo",
		Short: "Watch the whole loop on a simulated cloud; costs nothing",
		Long: `demo starts the simulated cloud and "gpulease serve", and drives it as an agent would: what is
free, a policy decision, a lease that boots, a project's tests running on it, a stop, a receipt.
The project and its tests are real. It leaves nothing behind, and exits with an error if any step fails.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if o.Binary, err = os.Executable(); err != nil {
				return fmt.Errorf("find our own binary: %w", err)
			}
			if o.BootTime < 0 {
				return usageError(fmt.Errorf("--boot-time %s: it cannot be negative", o.BootTime))
			}
			if c.Flags().Changed("command") && strings.TrimSpace(o.Command) == "" {
				return usageError(errors.New("--command is empty: say what to run, or leave it out"))
			}
			if err := completeProject(c.Context(), &o); err != nil {
				return err
			}
			o.Version = version
			if f, ok := c.OutOrStdout().(*os.File); ok {
				o.Terminal = term.IsTerminal(int(f.Fd()))
			}
			o.Detach = detach
			// With this, a closed pipe is an error to clean up after and no sudden end.
			pipe := make(chan os.Signal, 1)
			signal.Notify(pipe, syscall.SIGPIPE)
			defer signal.Stop(pipe)
			return runDemo(c.Context(), o, c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringVar(&o.Project, "project", "", "directory to carry to the lease (default: this repository, if it is run in it)")
	f.StringVar(&o.Command, "command", "", "what to run in it (default for a Go project: go test)")
	f.StringArrayVar(&o.Env, "env", nil, "NAME=value for the command; may be repeated")
	f.DurationVar(&o.BootTime, "boot-time", 3*time.Second, "how long the simulated machine boots")
	f.BoolVar(&o.JSON, "json", false, "write the transcript as JSON")
	return c
}

// demoEnds is how long an interrupted demo may take to end in order.
const demoEnds = 3 * time.Minute

// runDemo runs the demo, and gives up waiting for one that was interrupted and
// does not end: the process ends then, whatever holds the demo up.
func runDemo(ctx context.Context, o demo.Options, out io.Writer) error {
	done := make(chan error, 1)
	go func() { done <- demo.Run(ctx, o, out) }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		select {
		case err = <-done:
		case <-time.After(demoEnds):
			err = fmt.Errorf("%w: the demo did not end within %s; look for gpulease processes and gpulease-demo-* in %s", demo.ErrInterrupted, demoEnds, os.TempDir())
		}
	}
	if errors.Is(err, demo.ErrInterrupted) {
		return &exitError{code: exitInterrupted, err: err}
	}
	return err
}

// ourModule and ourPackage are what the demo tests where nothing else is named.
const (
	ourModule  = "github.com/gpulease/gpulease"
	ourPackage = "./policy/"
)

func completeProject(ctx context.Context, o *demo.Options) error {
	if o.Project == "" {
		if o.Command != "" {
			return usageError(errors.New("--command needs --project"))
		}
		dir, err := ourRepository()
		if err != nil {
			return err
		}
		o.Project, o.Command = dir, "set -o pipefail; go test -count=1 -v "+ourPackage+" | grep -E '^(--- |ok|FAIL|panic)'"
	}
	dir, err := filepath.Abs(o.Project)
	if err != nil {
		return usageError(fmt.Errorf("--project: %w", err))
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return usageError(fmt.Errorf("--project %s: not a directory", o.Project))
	}
	o.Project = dir
	for _, kv := range o.Env {
		if k, _, ok := strings.Cut(kv, "="); !ok || k == "" {
			return usageError(fmt.Errorf("--env %q: not NAME=value", kv))
		}
	}
	_, goErr := os.Stat(filepath.Join(dir, "go.mod"))
	if o.Command == "" {
		if goErr != nil {
			return usageError(errors.New("--command is needed: the project is not a Go module"))
		}
		o.Command = "go test ./..."
	}
	if goErr == nil {
		o.Env = append(goEnv(ctx, dir), o.Env...)
	}
	return nil
}

// ourRepository looks for this project's source from here upwards.
func ourRepository() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if b, readErr := os.ReadFile(filepath.Join(dir, "go.mod")); readErr == nil && strings.HasPrefix(string(b), "module "+ourModule+"\n") {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			break
		}
		dir = up
	}
	return "", usageError(errors.New("this is not gpulease's own repository: give --project DIR and --command CMD"))
}

// goEnv lets Go on the simulated machine use the caches of this computer, which
// is the same one: its home directory there is new and empty.
func goEnv(ctx context.Context, dir string) []string {
	names := []string{"GOCACHE", "GOMODCACHE", "GOPROXY", "GOSUMDB", "GOFLAGS", "GOTOOLCHAIN"}
	cmd := exec.CommandContext(ctx, "go", append([]string{"env", "-json"}, names...)...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return nil // no Go here: the command will say so itself
	}
	var values map[string]string
	if json.Unmarshal(out, &values) != nil {
		return nil
	}
	var env []string
	for _, n := range names {
		if values[n] != "" {
			env = append(env, n+"="+values[n])
		}
	}
	return env
}
