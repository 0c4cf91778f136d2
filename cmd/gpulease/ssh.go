package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

func newSSH(s *settings) *cobra.Command {
	var config, known bool
	c := &cobra.Command{
		Use:   "ssh LEASE [-- COMMAND...]",
		Short: "Open a shell on a lease's machine, or run a command there",
		Long: `ssh connects you with the machine of a ready lease, by the computer's own ssh with the lease's key and
the pinned host key, and nothing else: your own ssh configuration is not read. Without an ssh it
connects by itself. What follows -- is run by the machine's shell, as with ssh; its exit code is this
command's, and 255 says that there was no connection. A lease does not count as idle meanwhile.

--config and --known-hosts print what your own ssh, an editor or rsync needs to reach the machine.`,
		RunE: func(c *cobra.Command, args []string) error {
			var command []string
			if at := c.ArgsLenAtDash(); at >= 0 {
				args, command = args[:at], args[at:]
			}
			id, err := oneLease(args)
			if err != nil {
				return err
			}
			if (config || known) && len(command) > 0 {
				return usageError(errors.New("--config and --known-hosts only print: leave the command out"))
			}
			s.quiet(c)
			a, err := s.open(c.Context(), "ssh", c.ErrOrStderr())
			if err != nil {
				return err
			}
			err = a.manager.Visit(c.Context(), id, func(l lease.Lease, t remote.Target) error {
				v, err := s.admit(l, t)
				if err != nil || !config && !known {
					return cmp.Or(err, a.visit(c, v, command))
				}
				for _, part := range []struct {
					wanted bool
					file   string
				}{{config, v.config}, {known, v.known}} {
					if !part.wanted {
						continue
					}
					text, err := os.ReadFile(part.file)
					if err != nil {
						return err
					}
					if _, err := c.OutOrStdout().Write(text); err != nil {
						return err
					}
				}
				return nil
			})
			return cmp.Or(withNext(err), a.close()) // the command's exit code goes first
		},
	}
	c.Flags().BoolVar(&config, "config", false, "print an entry for ssh_config and connect to nothing")
	c.Flags().BoolVar(&known, "known-hosts", false, "print the lines of known_hosts and connect to nothing")
	return c
}

// visitor is how a person reaches a machine.
type visitor struct {
	target remote.Target
	alias  string // what ssh calls the machine
	config string // files that ssh reads
	known  string
}

// admit writes the files that ssh needs. They are kept, since other programs of the
// person may be told to read them, until the lease's key is gone.
func (s *settings) admit(l lease.Lease, t remote.Target) (visitor, error) {
	keys := lease.KeyDir(filepath.Join(s.stateDir, "keys"))
	all := filepath.Join(s.stateDir, "ssh")
	if err := forgetVisits(all, keys); err != nil {
		return visitor{}, err
	}
	dir := filepath.Join(all, string(l.ID))
	v := visitor{target: t, alias: "gpulease-" + string(l.ID), config: filepath.Join(dir, "config"), known: filepath.Join(dir, "known_hosts")}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return v, fmt.Errorf("write the files for ssh: %w", err)
	}
	for path, text := range map[string]string{
		v.known: remote.KnownHosts(t), v.config: remote.SSHConfig(v.alias, t, keys.File(l.ID), v.known),
	} {
		if err := replaceFile(path, []byte(text)); err != nil {
			return v, fmt.Errorf("write the files for ssh: %w", err)
		}
	}
	return v, nil
}

// forgetVisits removes the files of leases whose keys are gone.
func forgetVisits(dir string, keys lease.KeyDir) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for old files for ssh: %w", err)
	}
	for _, e := range entries {
		if _, err := os.Lstat(keys.File(lease.ID(e.Name()))); !lease.ValidID(e.Name()) || !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("remove old files for ssh: %w", err)
		}
	}
	return nil
}

// noConnection is ssh's own exit code for that.
const noConnection = 255

// visit runs the command, or a shell, with our standard streams.
func (a *app) visit(c *cobra.Command, v visitor, command []string) error {
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		return a.visitWithoutSSH(c, v, strings.Join(command, " "))
	}
	cmd := exec.CommandContext(c.Context(), ssh, append([]string{"-F", v.config, "--", v.alias}, command...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.InOrStdin(), c.OutOrStdout(), c.ErrOrStderr()
	// A Ctrl-C reaches ssh by itself, at a terminal as a byte for the machine; what only
	// we were sent is passed on.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return &exitError{code: exit.ExitCode()}
	case err != nil:
		return &exitError{code: noConnection, err: fmt.Errorf("run ssh: %w", err)}
	}
	return nil
}

// visitWithoutSSH does the same over a connection of our own.
func (a *app) visitWithoutSSH(c *cobra.Command, v visitor, command string) error {
	shell := remote.Shell{Command: command, Stdin: c.InOrStdin(), Stdout: c.OutOrStdout(), Stderr: c.ErrOrStderr()}
	if in, ok := c.InOrStdin().(*os.File); ok && command == "" && term.IsTerminal(int(in.Fd())) {
		fd := int(in.Fd())
		shell.Terminal = cmp.Or(os.Getenv("TERM"), "xterm")
		shell.Width, shell.Height = 80, 24
		if w, h, err := term.GetSize(fd); err == nil {
			shell.Width, shell.Height = w, h
		}
		was, err := term.MakeRaw(fd)
		if err != nil {
			return fmt.Errorf("make the terminal raw: %w", err)
		}
		defer func() { _ = term.Restore(fd, was) }()
	}
	status, err := a.pool.Shell(c.Context(), v.target, shell)
	switch {
	case errors.Is(err, context.Canceled):
		return &exitError{code: exitInterrupted}
	case err != nil:
		return &exitError{code: noConnection, err: err}
	case status != 0:
		return &exitError{code: status}
	}
	return nil
}
