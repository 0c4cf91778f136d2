package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gpulease/gpulease/cmd/gpulease/client"
	"github.com/gpulease/gpulease/cmd/gpulease/install"
)

// clients is what `gpulease install --client` and `gpulease uninstall` are to do.
type clients struct {
	*installation
	names  []string
	config string // a host's file elsewhere than in its usual place
	roots  []string
	force  bool
}

func (k *clients) flags(c *cobra.Command) {
	names := make([]string, 0, len(client.Hosts))
	for _, h := range client.Hosts {
		names = append(names, h.Name)
	}
	f := c.Flags()
	f.StringSliceVar(&k.names, "client", nil, "an agent host, may be repeated: "+strings.Join(names, ", "))
	f.StringVar(&k.config, "config", "", "the host's file, if it is not in its usual place (for instance a project's .mcp.json)")
	f.BoolVar(&k.force, "force", false, "also replace or remove an entry that is not as gpulease wrote it")
}

func (k *clients) installFlags(c *cobra.Command) {
	c.Flags().StringArrayVar(&k.roots, "root", nil, "directory that agents may send from, as for serve; may be repeated (default: the project, where the host says which that is)")
}

func newUninstall(s *settings) *cobra.Command {
	k := &clients{installation: &installation{s: s, system: runtime.GOOS, remove: true}}
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "Take gpulease out of an agent host's file",
		Long: `uninstall --client NAME removes the entry that install --client NAME wrote, and nothing else; leases that are alive
go on. A service is removed by gpulease install keeper --uninstall.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if len(k.names) == 0 {
				return seeHelp(c, errors.New("--client says out of which host's file"))
			}
			k.out = c.OutOrStdout()
			return k.run(c.Context(), false)
		},
	}
	k.flags(c)
	c.Flags().BoolVar(&k.dryRun, "dry-run", false, "only show what would be changed")
	return c
}

// run changes the file of each host. named says that the principal was given as a flag.
func (k *clients) run(ctx context.Context, named bool) error {
	if err := k.s.check(); err != nil {
		return err
	}
	var hosts []client.Host
	for _, name := range k.names {
		h, err := client.Find(name)
		if err != nil {
			return usageError(err)
		}
		hosts = append(hosts, h)
	}
	if k.config != "" {
		if len(hosts) > 1 {
			return usageError(errors.New("--config is for one client"))
		}
		if err := absolute("--config", &k.config); err != nil {
			return err
		}
	}
	var env []install.Variable
	if !k.remove {
		k.into, k.reader = "a host's file", "the server"
		k.instead = "run this without it and put it into the environment that the host has; a ledger's password into ~/.pgpass"
		if k.envFile != "" {
			return usageError(errors.New("--env-file is for services; use LAMBDA_API_KEY_FILE"))
		}
		if err := k.stays(); err != nil {
			return err
		}
		var err error
		if env, err = k.environment(ctx); err != nil {
			return err
		}
	}
	var failed []error
	for _, h := range hosts {
		if err := k.change(h, env, named); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", h.Title, err))
		}
	}
	err := errors.Join(failed...)
	var e *exitError
	if errors.As(err, &e) {
		return &exitError{code: e.code, err: err} // else only what is inside it would be shown, without its host and the others
	}
	return err
}

// change installs into one host's file, or uninstalls.
func (k *clients) change(h client.Host, env []install.Variable, named bool) error {
	path := k.config
	if path == "" {
		var err error
		if path, err = h.File(client.Place{System: k.system, Env: k.s.env}); err != nil {
			return usageError(err)
		}
	}
	var edit client.Edit
	var err error
	if k.remove {
		edit, err = h.Uninstall(path, k.force)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	} else {
		var entry client.Entry
		if entry, err = k.entry(h, env, named); err == nil {
			edit, err = h.Install(path, entry, k.force)
		}
	}
	if err != nil {
		return err
	}
	return k.apply(h, path, edit)
}

// apply makes a change, or shows it.
func (k *clients) apply(h client.Host, path string, edit client.Edit) error {
	switch {
	case !edit.Changes() && k.remove:
		fmt.Fprintf(k.out, "%s: gpulease was not in %s\n", h.Title, path)
		return nil
	case !edit.Changes():
		fmt.Fprintf(k.out, "%s: %s is as it should be\n", h.Title, path)
		return nil
	case k.dryRun:
		fmt.Fprintf(k.out, "%s: would change %s:\n%s", h.Title, path, k.hideKey(edit.Diff()))
		return nil
	}
	backup, err := edit.Write()
	if err != nil {
		return err
	}
	did := "gpulease is now in " + path
	if k.remove {
		did = "gpulease is no more in " + path
	}
	if backup != "" {
		did += "; a copy of what was there is " + backup
	}
	fmt.Fprintf(k.out, "%s: %s\n", h.Title, did)
	if !k.remove {
		fmt.Fprintf(k.out, "%s: %s\n", h.Title, h.Then)
	}
	return nil
}

// entry is how this host is to start the server.
func (k *clients) entry(h client.Host, env []install.Variable, named bool) (client.Entry, error) {
	e := client.Entry{Command: k.program, Args: []string{"serve"}, Env: map[string]string{"GPULEASE_PRINCIPAL": h.Name}}
	if named || k.s.env["GPULEASE_PRINCIPAL"] != "" {
		e.Env["GPULEASE_PRINCIPAL"] = k.s.principal
	}
	for _, v := range env {
		e.Env[v.Name] = v.Value
	}
	// A host that was started from a desktop has not the PATH in which the command is found, or tailscale.
	if path := k.s.env["PATH"]; h.Desktop && (k.s.keyCommand != "" || k.s.authKeySource() != "") && path != "" && k.system != "windows" {
		e.Env["PATH"] = path
	}
	roots := k.roots
	if len(roots) == 0 && h.Root != "" {
		roots = []string{h.Root}
	}
	if len(roots) == 0 && h.NeedsRoot {
		return e, usageError(errors.New("it does not start servers in your project but, for instance, in /: say with --root DIR which directory agents may send files from"))
	}
	for _, root := range roots {
		if h.Root == "" || !strings.Contains(root, h.Root) {
			abs, err := workRoots([]string{root}, false)
			if err != nil {
				return e, err
			}
			root = abs[0]
		}
		e.Args = append(e.Args, "--root", root)
	}
	return e, nil
}

// keyInText is a literal key with all that belongs to it.
var keyInText = regexp.MustCompile(literalKey.String() + `[.\w]*`)

// hideKey hides a key that somebody has written into an entry by hand.
func (k *clients) hideKey(text string) string {
	if key := k.s.env["LAMBDA_API_KEY"]; len(key) > 3 {
		text = strings.ReplaceAll(text, key, "[key]")
	}
	return authKeyForms.ReplaceAllString(keyInText.ReplaceAllString(text, "[key]"), "[key]")
}
