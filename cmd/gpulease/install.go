package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpulease/gpulease/cmd/gpulease/install"
	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/ledger"
)

// installation is what `gpulease install` is to do.
type installation struct {
	s       *settings
	system  string // as runtime.GOOS has it
	program string
	envFile string
	dryRun  bool
	remove  bool
	out     io.Writer

	// For people: what is written, who reads it, and where a password goes instead.
	into, reader, instead string
}

// forService says that a service's file is written.
func (i *installation) forService() {
	i.into, i.reader = "a service's file", "the service"
	i.instead = "put it into a file that only you may read and give that as --env-file"
}

func newInstall(s *settings) *cobra.Command {
	i := &installation{s: s, system: runtime.GOOS}
	k := &clients{installation: i}
	c := &cobra.Command{
		Use:   "install",
		Short: "Make gpulease known to an agent host, or a service of yours",
		Long: `install --client NAME puts gpulease into the file in which an agent host keeps its MCP servers, and changes nothing
else in it. See docs/clients.md.

install keeper and install reap write a systemd user unit (Linux) or a launchd agent (macOS) and start it. They ask for no
privileges. What was there before is kept beside it, and --uninstall removes what install wrote. See docs/keeper.md.

The API key is never written into any of these: set LAMBDA_API_KEY_COMMAND or LAMBDA_API_KEY_FILE.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return noCommand(c, args)
			}
			if len(k.names) == 0 {
				return c.Help()
			}
			path, err := programPath()
			if err != nil {
				return err
			}
			i.program, i.out = path, c.OutOrStdout()
			return k.run(c.Context(), c.Flags().Changed("principal"))
		},
	}
	k.flags(c)
	k.installFlags(c)
	f := c.PersistentFlags()
	f.BoolVar(&i.dryRun, "dry-run", false, "only show what would be written and run")
	f.BoolVar(&i.remove, "uninstall", false, "remove what install wrote")
	f.StringVar(&i.envFile, "env-file", "", "a file of NAME=value lines that the service reads, for the key (systemd only)")
	run := func(c *cobra.Command, service install.Service) error {
		path, err := programPath()
		if err != nil {
			return err
		}
		i.program, i.out = path, c.OutOrStdout()
		return i.run(c.Context(), service)
	}
	keeper := &cobra.Command{
		Use:   "keeper",
		Short: "A keeper that is always there, as a service",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return run(c, install.Service{Name: "keeper", About: "ends GPU leases at their deadlines", Args: []string{"keeper", "--stay"}})
		},
	}
	var every time.Duration
	reap := &cobra.Command{
		Use:   "reap",
		Short: "A timer that runs gpulease reap, which needs nothing but the key",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if every < time.Minute || every > 24*time.Hour || every%time.Second != 0 {
				return usageError(fmt.Errorf("--every %s: give whole seconds from 1m to 24h", every))
			}
			return run(c, install.Service{Name: "reap", About: "ends machines that are past their hard stop", Args: []string{"reap"}, Every: every})
		},
	}
	reap.Flags().DurationVar(&every, "every", 5*time.Minute, "how often")
	c.AddCommand(keeper, reap)
	return c
}

func (i *installation) run(ctx context.Context, service install.Service) error {
	if err := i.s.check(); err != nil {
		return err
	}
	home := i.s.env["HOME"]
	if home == "" {
		return usageError(errors.New("HOME is not set"))
	}
	i.forService()
	service.Program, service.Home, service.EnvFile = i.program, home, i.envFile
	if !i.remove {
		if err := i.stays(); err != nil {
			return err
		}
		var err error
		if service.Env, err = i.environment(ctx, "PATH"); err != nil {
			return err
		}
	}
	switch i.system {
	case "linux":
		return errors.Join(i.systemd(ctx, service), i.keepOn(ctx))
	case "darwin":
		return errors.Join(i.launchd(ctx, service), i.keepOn(ctx))
	}
	return usageError(fmt.Errorf("there are services for Linux (systemd) and macOS (launchd) only; on %s, let the system run at logon: gpulease %s", i.system, strings.Join(service.Args, " ")))
}

// stays refuses a program that will soon be gone.
func (i *installation) stays() error {
	if !strings.Contains(i.program, string(filepath.Separator)+"go-build") {
		return nil
	}
	return usageError(fmt.Errorf("%s will not stay there: build gpulease and put it where it can stay, for instance into ~/.local/bin", i.program))
}

// keepOn makes sure that leases that are alive are not left alone with the service
// that was removed.
func (i *installation) keepOn(ctx context.Context) error {
	if _, err := os.Stat(i.s.stateDir); !i.remove || i.dryRun || err != nil {
		return nil
	}
	i.s.logLevel = quietLevel
	a, err := i.s.open(ctx, "install", io.Discard)
	if err != nil {
		return err
	}
	leases, err := a.manager.List(ctx, true, 0)
	if err == nil {
		i.s.mendGuard(ctx, a, leases, i.out)
	}
	return errors.Join(err, a.close())
}

// carried are variables without which gpulease might not reach Lambda.
var carried = []string{"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"}

// environment is what a service, or a host's server, needs to know of the settings
// that are in force, and of further variables. No secret is among it.
func (i *installation) environment(ctx context.Context, further ...string) ([]install.Variable, error) {
	env, err := i.keyVariable(ctx)
	if err != nil {
		return nil, err
	}
	add := func(name, value string) { env = append(env, install.Variable{Name: name, Value: value}) }
	s := i.s
	add("GPULEASE_STATE_DIR", s.stateDir)
	if s.ledgerPath != filepath.Join(s.stateDir, "ledger.db") {
		add("GPULEASE_LEDGER", s.ledgerPath)
	}
	if s.apiURL != lambda.DefaultBaseURL {
		add("GPULEASE_API_URL", s.apiURL)
	}
	if s.sshPort != 22 {
		add("GPULEASE_SSH_PORT", strconv.Itoa(s.sshPort))
	}
	if s.policyIsGiven {
		add("GPULEASE_POLICY", s.policyPath)
	} else if dir := s.env["XDG_CONFIG_HOME"]; filepath.IsAbs(dir) {
		add("XDG_CONFIG_HOME", dir) // where the policy is looked for
	}
	if rules := s.policySetText(); rules != "" {
		add(policySetVariable, rules)
	}
	if s.authKeyCommand != "" {
		if authKeyForms.MatchString(s.authKeyCommand) {
			return nil, usageError(fmt.Errorf("%s has the key itself in it, which does not belong into %s; use %s", authKeyCommandVariable, i.into, authKeyFileVariable))
		}
		add(authKeyCommandVariable, s.authKeyCommand)
	}
	if s.authKeyFile != "" {
		add(authKeyFileVariable, s.authKeyFile)
	}
	if s.tailscale != "tailscale" {
		add("GPULEASE_TAILSCALE", s.tailscale)
	}
	if s.logLevel != "info" {
		add("GPULEASE_LOG_LEVEL", s.logLevel)
	}
	for _, name := range slices.Concat(further, carried) {
		if v := s.env[name]; v != "" {
			add(name, v)
		}
	}
	for n, v := range env {
		if !hasPassword(v.Value) {
			continue
		}
		if i.envFile == "" {
			return nil, usageError(fmt.Errorf("%s has a password in it, which does not belong into %s; %s", v.Name, i.into, i.instead))
		}
		fmt.Fprintf(i.out, "%s has a password in it, so it has to be in %s\n", v.Name, i.envFile)
		env[n].Name = ""
	}
	return slices.DeleteFunc(env, func(v install.Variable) bool { return v.Name == "" }), nil
}

func hasPassword(value string) bool {
	if ledger.OnServer(value) {
		return ledger.HasPassword(value)
	}
	u, err := url.Parse(value)
	if err != nil || u.User == nil {
		return false
	}
	_, has := u.User.Password()
	return has
}

// literalKey is what Lambda's keys look like.
var literalKey = regexp.MustCompile(`secret_\w+_[0-9a-f]{16,}`)

// keyVariable says where the reader finds the key, and makes sure that it is there.
func (i *installation) keyVariable(ctx context.Context) ([]install.Variable, error) {
	s := i.s
	literal := s.env["LAMBDA_API_KEY"]
	switch {
	case i.envFile != "":
		return nil, i.checkEnvFile()
	case s.keyCommand != "" && (literalKey.MatchString(s.keyCommand) || literal != "" && strings.Contains(s.keyCommand, literal)):
		return nil, usageError(fmt.Errorf("LAMBDA_API_KEY_COMMAND has the key itself in it, which does not belong into %s; use LAMBDA_API_KEY_FILE", i.into))
	case s.keyCommand == "" && s.keyFile == "":
		had := "no API key is set"
		if literal != "" {
			had = "only LAMBDA_API_KEY is set, and the key is never written into " + i.into
		}
		return nil, usageError(fmt.Errorf(`%s. Put the key into a file that only you may read:
  (umask 077; mkdir -p ~/.config/gpulease; cat > ~/.config/gpulease/key)     paste the key, then Ctrl-D
and run this again with LAMBDA_API_KEY_FILE=~/.config/gpulease/key, or with LAMBDA_API_KEY_COMMAND set to a command that prints the key`, had))
	}
	v := install.Variable{Name: "LAMBDA_API_KEY_COMMAND", Value: s.keyCommand}
	if s.keyCommand == "" {
		v = install.Variable{Name: "LAMBDA_API_KEY_FILE", Value: s.keyFile}
	}
	if i.dryRun {
		return []install.Variable{v}, nil
	}
	// As the reader will do it: without LAMBDA_API_KEY, and from the home directory.
	delete(s.env, "LAMBDA_API_KEY")
	s.keyCommandDir = s.env["HOME"]
	if _, err := s.apiKey(ctx); err != nil {
		return nil, fmt.Errorf("%s would find no key: %w", i.reader, err)
	}
	return []install.Variable{v}, nil
}

func (i *installation) checkEnvFile() error {
	if i.system != "linux" {
		return usageError(errors.New("--env-file is for systemd only; use LAMBDA_API_KEY_FILE"))
	}
	if err := absolute("--env-file", &i.envFile); err != nil {
		return err
	}
	info, err := os.Stat(i.envFile)
	if err != nil {
		return usageError(fmt.Errorf("--env-file: %w", err))
	}
	if info.Mode().Perm()&0o077 != 0 {
		return usageError(fmt.Errorf("--env-file: others may read %s; chmod 600 it first", i.envFile))
	}
	return nil
}

// find looks for a program of the system in the PATH of the settings.
func (i *installation) find(name string) string {
	for _, dir := range filepath.SplitList(i.s.env["PATH"]) {
		if path := filepath.Join(dir, name); filepath.IsAbs(dir) {
			if _, err := exec.LookPath(path); err == nil {
				return path
			}
		}
	}
	return ""
}
