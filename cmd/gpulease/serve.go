package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/server"
	"github.com/gpulease/gpulease/tools"
)

// instructions go to the model with every request; every word is paid for.
const instructions = `gpulease leases GPU machines on Lambda Cloud. A lease costs money from boot until its stop is confirmed.
Order: list_capacity (free) -> launch_lease (costs money; dry_run: true only quotes) -> get_lease with wait_seconds until state is "ready" -> sync_files, run_command -> stop_lease. Always stop_lease when done: nothing on the machine is kept but what results name or fetch_files has brought.
run_command returns within wait_seconds; a longer job goes on by itself, follow it with read_output.
Every answer has state, cost_usd, deadline, budget_left_usd, warnings and next. Errors start with "error CODE:" and say what to call next. A failing test suite is a result (exit_code), not an error.`

func newServe(s *settings) *cobra.Command {
	var keep bool
	var roots []string
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve MCP over standard input and output",
		Long: `serve speaks the Model Context Protocol over standard input and output; an agent host
starts it. It needs a Lambda API key at the first call that reaches Lambda: LAMBDA_API_KEY, or
LAMBDA_API_KEY_COMMAND, or LAMBDA_API_KEY_FILE. Logs go to standard error as JSON lines.

Leases go on when it ends. A keeper process, started before the first launch, enforces their
deadlines; the next server on the same state directory sees them and can stop them.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			a, err := s.openGuarded(ctx, lease.GuardServer, keep, c.ErrOrStderr())
			if err != nil {
				return err
			}
			roots, err := workRoots(roots)
			if err != nil {
				return errors.Join(err, a.close())
			}
			srv, err := server.New(server.Config{
				Name: "gpulease", Title: "gpulease: GPU leases on Lambda Cloud", Version: version, Instructions: instructions,
				Tools: tools.All(tools.Deps{Leases: a.manager, Roots: roots, Denied: s.ownDirs(), Kept: s.ownFiles()}), Logger: a.log, Redact: a.redact,
			})
			if err != nil {
				return err
			}
			return a.whileReconciling(ctx, func(ctx context.Context) error {
				return srv.ServeStdio(ctx, c.InOrStdin(), c.OutOrStdout())
			})
		},
	}
	c.Flags().BoolVar(&keep, "keeper", true, "start a keeper before the first launch, which enforces deadlines after this server has ended")
	c.Flags().StringArrayVar(&roots, "root", nil, "local directory that agents may send from and fetch to, and below the first of which results come home; may be repeated (default: where the server was started)")
	return c
}

// ownDirs hold keys, ledger and settings: no agent sends them anywhere. A policy
// file that was named may lie among an agent's own files.
func (s *settings) ownDirs() []string {
	dirs := []string{s.stateDir}
	if !s.policyIsGiven {
		dirs = append(dirs, filepath.Dir(s.policyPath))
	}
	return dirs
}

// ownFiles are what must not be overwritten by what comes from a machine, wherever
// they lie.
func (s *settings) ownFiles() []string {
	files := []string{s.policyPath}
	if !ledger.OnServer(s.ledgerPath) {
		files = append(files, s.ledgerPath)
	}
	if s.keyFile != "" {
		files = append(files, s.keyFile)
	}
	return files
}

// workRoots are the local directories that agents may send from and fetch to.
func workRoots(given []string) ([]string, error) {
	if len(given) == 0 {
		given = []string{"."}
	}
	roots := make([]string, 0, len(given))
	for _, dir := range given {
		abs, err := filepath.Abs(dir)
		if err == nil {
			abs, err = filepath.EvalSymlinks(abs)
		}
		if err != nil {
			return nil, usageError(fmt.Errorf("--root %s: %w", dir, err))
		}
		if st, err := os.Stat(abs); err != nil || !st.IsDir() {
			return nil, usageError(fmt.Errorf("--root %s: not a directory", dir))
		}
		roots = append(roots, abs)
	}
	return roots, nil
}
