package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/server"
	"github.com/gpulease/gpulease/tools"
)

// serving is what serve was told.
type serving struct {
	s      *settings
	keep   bool
	roots  []string
	choice tools.Selection
	ask    bool

	transport string
	web       webFlags
}

func newServe(s *settings) *cobra.Command {
	o := &serving{s: s}
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve MCP over standard input and output, or over HTTP",
		Long: `serve speaks the Model Context Protocol over standard input and output; an agent host
starts it. It needs a Lambda API key at the first call that reaches Lambda: LAMBDA_API_KEY, or
LAMBDA_API_KEY_COMMAND, or LAMBDA_API_KEY_FILE. Logs go to standard error as JSON lines.

With --transport http it serves any number of clients, at /mcp (Streamable HTTP) and /sse (the older
HTTP+SSE), until it is told to end. It prints one JSON line with its url when it is ready. Who may use it
is said by bearer tokens, see gpulease token and docs/http.md.

Leases go on when it ends. A keeper process, started before the first launch, enforces their
deadlines; the next server on the same state directory sees them and can stop them.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	f := c.Flags()
	f.BoolVar(&o.keep, "keeper", true, "start a keeper before the first launch, which enforces deadlines after this server has ended")
	f.StringArrayVar(&o.roots, "root", nil, "local directory that agents may send from and fetch to, and below the first of which results come home; may be repeated (default: where the server was started; over HTTP none)")
	f.StringVar(&o.transport, "transport", "stdio", "stdio or http")
	f.StringSliceVar(&o.choice.Toolsets, "toolsets", nil, "only the tools of these groups: lease, run, files, ports, spend")
	f.StringSliceVar(&o.choice.Tools, "tools", nil, "only these tools, beside those of --toolsets")
	f.StringSliceVar(&o.choice.Exclude, "exclude-tools", nil, "without these tools")
	f.BoolVar(&o.choice.ReadOnly, "read-only", false, "only tools that change nothing and cost nothing")
	f.BoolVar(&o.ask, "approve-by-elicitation", false, "let the person behind a client approve what waits for approval, by a form of the client; some clients answer by themselves (GPULEASE_APPROVE_BY_ELICITATION)")
	o.web.add(f)
	return c
}

const askVariable = "GPULEASE_APPROVE_BY_ELICITATION"

// mayAskPerson reads the switch's variable, before which the flag goes. What is neither
// yes nor no is an error, and no yes.
func (o *serving) mayAskPerson(f *pflag.FlagSet) error {
	given := o.s.env[askVariable]
	if given == "" || f.Changed("approve-by-elicitation") {
		return nil
	}
	on, err := strconv.ParseBool(given)
	if err != nil {
		return usageError(fmt.Errorf("%s is true or false, not %q", askVariable, given))
	}
	o.ask = on
	return nil
}

func (o *serving) run(c *cobra.Command) error {
	switch o.transport {
	case "stdio", "http":
	default:
		return usageError(fmt.Errorf("--transport is stdio or http, not %q", o.transport))
	}
	if err := o.web.check(c.Flags(), o.transport == "http"); err != nil {
		return err
	}
	if err := o.mayAskPerson(c.Flags()); err != nil {
		return err
	}
	if _, err := o.choice.Of(tools.All(tools.Deps{})); err != nil {
		return usageError(err)
	}
	roots, err := workRoots(o.roots, o.transport == "stdio")
	if err != nil {
		return err
	}
	ctx := c.Context()
	a, err := o.s.openGuarded(ctx, lease.GuardServer, o.keep, c.ErrOrStderr())
	if err != nil {
		return err
	}
	all, err := o.tools(a, roots)
	if err != nil {
		return errors.Join(usageError(err), a.close())
	}
	config := server.Config{
		Name: "gpulease", Title: "gpulease: GPU leases on Lambda Cloud", Version: version, Instructions: instructions(all),
		Tools: all, Logger: a.log, Redact: a.redact, Icon: icon, AskPerson: o.ask,
		Resources: tools.Resources(a.manager, a.manager), Prompts: tools.Prompts(a.manager),
		Live: func(ctx context.Context) ([]tools.Listed, error) { return tools.LiveResources(ctx, a.manager) },
		Complete: func(ctx context.Context, argument, prefix string, others map[string]string) []string {
			return tools.Complete(ctx, a.manager, argument, prefix, others)
		},
	}
	if o.ask {
		a.log.Warn("clients may approve what waits for a person: a client can answer by itself, without anybody having seen the question")
	}
	if o.transport == "http" {
		return o.serveHTTP(ctx, a, config, roots, c.OutOrStdout())
	}
	srv, err := server.New(config)
	if err != nil {
		return errors.Join(err, a.close())
	}
	return a.whileReconciling(ctx, func(ctx context.Context) error {
		return srv.ServeStdio(ctx, c.InOrStdin(), c.OutOrStdout())
	})
}

// tools are those that were chosen, with these directories.
func (o *serving) tools(a *app, roots []string) ([]tools.Tool, error) {
	return o.choice.Of(tools.All(tools.Deps{Leases: a.manager, Roots: roots, Denied: o.s.private(), Secrets: a.secrets, Kept: o.s.ownFiles(), Remote: o.transport == "http"}))
}

// private is what no agent sends anywhere: the directories that hold keys, ledger and
// settings, and the files of key and ledger wherever they were put. A policy file that
// was named may lie among an agent's own files.
func (s *settings) private() []string {
	paths := []string{s.stateDir}
	if !s.policyIsGiven {
		paths = append(paths, filepath.Dir(s.policyPath))
	}
	for _, file := range []string{s.keyFile, s.authKeyFile} {
		if file != "" {
			paths = append(paths, file)
		}
	}
	if !ledger.OnServer(s.ledgerPath) {
		paths = append(paths, s.ledgerPath, s.ledgerPath+"-wal", s.ledgerPath+"-shm")
	}
	return paths
}

// ownFiles are what must not be overwritten by what comes from a machine, wherever
// they lie. A keeper goes on as the program that takes the place of its own.
func (s *settings) ownFiles() []string {
	files := []string{s.policyPath}
	if program, err := programPath(); err == nil {
		files = append(files, program)
	}
	if !ledger.OnServer(s.ledgerPath) {
		files = append(files, s.ledgerPath)
	}
	for _, file := range []string{s.keyFile, s.authKeyFile} {
		if file != "" {
			files = append(files, file)
		}
	}
	return files
}

// workRoots are the local directories that agents may send from: with here, where we
// are if none was given.
func workRoots(given []string, here bool) ([]string, error) {
	if len(given) == 0 && here {
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
