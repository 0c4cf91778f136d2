//go:build unix

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/cmd/gpulease/install"
)

// home is a person's home directory with a fake systemctl and launchctl that
// write down how they were called, and fail if a file "broken" is there.
type home struct {
	t   *testing.T
	dir string
	env []string
}

func newHome(t *testing.T) *home {
	t.Helper()
	h := &home{t: t, dir: t.TempDir()}
	bin := filepath.Join(h.dir, "bin")
	require.NoError(t, os.Mkdir(bin, 0o700))
	for _, name := range []string{"systemctl", "launchctl"} {
		script := "#!/bin/sh\necho " + name + " \"$@\" >> \"$HOME/called\"\nif [ -e \"$HOME/broken\" ]; then echo Failed to connect to bus; exit 1; fi\n"
		require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte(script), 0o700))
	}
	h.write("key", testKey+"\n")
	h.env = []string{"HOME=" + h.dir, "PATH=" + bin + ":/usr/bin:/bin", "LAMBDA_API_KEY_FILE=" + filepath.Join(h.dir, "key")}
	return h
}

const testKey = "secret_mine_0123456789abcdef0123456789abcdef.abcdefghijklmnop"

func (h *home) write(name, text string) {
	h.t.Helper()
	require.NoError(h.t, os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0o600))
}

// read is a file's text, with the home directory as ~; "" for none.
func (h *home) read(name string) string {
	b, _ := os.ReadFile(filepath.Join(h.dir, name))
	return h.tidy(string(b))
}

func (h *home) tidy(text string) string { return strings.ReplaceAll(text, h.dir, "~") }

var (
	keeperService = install.Service{Name: "keeper", About: "ends GPU leases at their deadlines", Args: []string{"keeper", "--stay"}}
	reapService   = install.Service{Name: "reap", About: "ends machines", Args: []string{"reap"}, Every: 5 * time.Minute}
)

// run installs or uninstalls under further variables and options.
func (h *home) run(service install.Service, env []string, with func(i *installation)) (said string, err error) {
	h.t.Helper()
	s := newSettings(append(append([]string{}, h.env...), env...))
	s.flags(pflag.NewFlagSet("", pflag.ContinueOnError))
	var out bytes.Buffer
	i := &installation{s: s, system: "linux", program: "/usr/local/bin/gpulease", out: &out}
	if with != nil {
		with(i)
	}
	err = i.run(h.t.Context(), service)
	return h.tidy(out.String()), err
}

func uninstall(i *installation) { i.remove = true }
func onMac(i *installation)     { i.system = "darwin" }

const unitPath = ".config/systemd/user/gpulease-keeper.service"

func TestInstallKeeper(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	said, err := h.run(keeperService, []string{"GPULEASE_SSH_PORT=2222", "HTTPS_PROXY=http://proxy:3128", "GPULEASE_POLICY=" + h.dir + "/p.yaml"}, nil)
	require.NoError(t, err)
	require.Contains(t, said, "wrote ~/"+unitPath)
	require.Contains(t, said, "installed and running")
	require.Contains(t, said, "loginctl enable-linger")
	unit := h.read(unitPath)
	for _, line := range []string{
		"ExecStart=/usr/local/bin/gpulease keeper --stay", "Environment=LAMBDA_API_KEY_FILE=~/key", "Environment=GPULEASE_STATE_DIR=~/.local/state/gpulease",
		"Environment=GPULEASE_SSH_PORT=2222", "Environment=GPULEASE_POLICY=~/p.yaml", "Environment=HTTPS_PROXY=http://proxy:3128",
	} {
		require.Contains(t, unit, line+"\n")
	}
	require.Equal(t, "systemctl --user daemon-reload\nsystemctl --user enable gpulease-keeper.service\nsystemctl --user restart gpulease-keeper.service\n", h.read("called"))

	// Once more, the same: nothing is written, nothing is restarted.
	h.write("called", "")
	_, err = h.run(keeperService, []string{"GPULEASE_SSH_PORT=2222", "HTTPS_PROXY=http://proxy:3128", "GPULEASE_POLICY=" + h.dir + "/p.yaml"}, nil)
	require.NoError(t, err)
	require.Equal(t, unit, h.read(unitPath))
	require.Equal(t, "systemctl --user daemon-reload\nsystemctl --user enable --now gpulease-keeper.service\n", h.read("called"))

	// A unit that somebody has changed is neither removed nor ended.
	h.write("called", "")
	h.write(unitPath, "# mine\n")
	_, err = h.run(keeperService, nil, uninstall)
	require.ErrorIs(t, err, install.ErrChanged)
	require.Empty(t, h.read("called"))
	said, err = h.run(keeperService, nil, nil)
	require.NoError(t, err)
	require.Contains(t, said, unitPath+".bak")
	require.Equal(t, "# mine\n", h.read(unitPath+".bak"))

	h.write("called", "")
	said, err = h.run(keeperService, nil, uninstall)
	require.NoError(t, err)
	require.Contains(t, said, "removed ~/"+unitPath)
	require.NoFileExists(t, filepath.Join(h.dir, unitPath))
	require.Equal(t, "systemctl --user disable --now gpulease-keeper.service\nsystemctl --user daemon-reload\n", h.read("called"))
	said, err = h.run(keeperService, nil, uninstall)
	require.NoError(t, err)
	require.Contains(t, said, "was not there")
}

func TestInstallWithoutASystemThatWorks(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.write("broken", "")
	said, err := h.run(keeperService, nil, nil)
	require.NoError(t, err)
	require.Contains(t, said, "NOT DONE YET (systemctl --user daemon-reload: exit status 1: Failed to connect to bus)")
	require.Contains(t, said, "\n  systemctl --user enable gpulease-keeper.service\n  systemctl --user restart gpulease-keeper.service\n")
	require.NotContains(t, said, "running as")
	require.NotEmpty(t, h.read(unitPath))

	said, err = h.run(keeperService, []string{"PATH=/nowhere"}, nil)
	require.NoError(t, err)
	require.Contains(t, said, "NOT DONE YET (there is no systemctl here)")
}

func TestInstallDryRunChangesNothing(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	for _, with := range []func(*installation){nil, onMac} {
		said, err := h.run(reapService, nil, func(i *installation) {
			i.dryRun = true
			if with != nil {
				with(i)
			}
		})
		require.NoError(t, err)
		require.Contains(t, said, "would write ~/")
		require.Contains(t, said, "would run:\n")
	}
	require.NoDirExists(t, filepath.Join(h.dir, ".config"))
	require.NoDirExists(t, filepath.Join(h.dir, "Library"))
	require.Empty(t, h.read("called"))
}

func TestInstallReap(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	said, err := h.run(reapService, nil, nil)
	require.NoError(t, err)
	require.Contains(t, h.read(".config/systemd/user/gpulease-reap.timer"), "OnUnitActiveSec=300s\n")
	require.Contains(t, h.read(".config/systemd/user/gpulease-reap.service"), "ExecStart=/usr/local/bin/gpulease reap\n")
	require.Contains(t, h.read("called"), "restart gpulease-reap.timer\n")
	require.Contains(t, said, "*/5 * * * * LAMBDA_API_KEY_FILE=~/key ")
	_, err = h.run(reapService, nil, uninstall)
	require.NoError(t, err)
	left, err := os.ReadDir(filepath.Join(h.dir, ".config/systemd/user"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestInstallOnAMac(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	_, err := h.run(keeperService, nil, onMac)
	require.NoError(t, err)
	const path = "Library/LaunchAgents/ai.gpulease.keeper.plist"
	require.Contains(t, h.read(path), "<string>~/.local/state/gpulease/keeper.log</string>", "nobody else keeps its log small")
	calls := strings.Split(strings.TrimSpace(h.read("called")), "\n")
	require.Len(t, calls, 2)
	require.Regexp(t, `^launchctl bootout gui/\d+/ai.gpulease.keeper$`, calls[0])
	require.Regexp(t, `^launchctl bootstrap gui/\d+ ~/`+path+"$", calls[1])
	_, err = h.run(keeperService, nil, func(i *installation) { onMac(i); uninstall(i) })
	require.NoError(t, err)
	require.NoFileExists(t, filepath.Join(h.dir, path))
}

func TestInstallNeverWritesASecret(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.write("env", "LAMBDA_API_KEY="+testKey+"\n")
	for name, tt := range map[string]struct {
		env  []string
		with func(*installation)
		says string
	}{
		"only the key itself":     {[]string{"LAMBDA_API_KEY_FILE=", "LAMBDA_API_KEY=" + testKey}, nil, "only LAMBDA_API_KEY is set"},
		"nothing":                 {[]string{"LAMBDA_API_KEY_FILE="}, nil, "umask 077"},
		"a key in the command":    {[]string{"LAMBDA_API_KEY_COMMAND=echo " + testKey}, nil, "has the key itself in it"},
		"another key, the same":   {[]string{"LAMBDA_API_KEY_COMMAND=echo abc", "LAMBDA_API_KEY=abc"}, nil, "has the key itself in it"},
		"a ledger's password":     {[]string{"GPULEASE_LEDGER=postgres://u:hunter2@h/db"}, nil, "GPULEASE_LEDGER has a password"},
		"one for two hosts":       {[]string{"GPULEASE_LEDGER=postgres://u:hunter2@one:1,two:2/db"}, nil, "GPULEASE_LEDGER has a password"},
		"a proxy's password":      {[]string{"HTTPS_PROXY=http://u:hunter2@proxy"}, nil, "HTTPS_PROXY has a password"},
		"a command without a key": {[]string{"LAMBDA_API_KEY_COMMAND=true"}, nil, "the service would find no key"},
		"a file that is not here": {[]string{"LAMBDA_API_KEY_FILE=/nowhere/key", "LAMBDA_API_KEY=" + testKey}, nil, "the service would find no key"},
		"a program of go run":     {nil, func(i *installation) { i.program = "/tmp/go-build1/exe/gpulease" }, "will not stay there"},
		"an env file on a Mac":    {nil, func(i *installation) { onMac(i); i.envFile = filepath.Join(h.dir, "env") }, "systemd only"},
		"an env file, not there":  {nil, func(i *installation) { i.envFile = "/nowhere/env" }, "no such file"},
	} {
		said, err := h.run(keeperService, tt.env, tt.with)
		require.ErrorContains(t, err, tt.says, name)
		require.NotContains(t, said+err.Error(), "secret_mine", name)
		require.NotContains(t, said+err.Error(), "hunter2", name)
	}
	require.NoDirExists(t, filepath.Join(h.dir, ".config"))

	withFile := func(i *installation) { i.envFile = filepath.Join(h.dir, "env") }
	require.NoError(t, os.Chmod(filepath.Join(h.dir, "env"), 0o644))
	_, err := h.run(keeperService, nil, withFile)
	require.ErrorContains(t, err, "chmod 600")
	require.NoError(t, os.Chmod(filepath.Join(h.dir, "env"), 0o600))
	said, err := h.run(keeperService, []string{"GPULEASE_LEDGER=postgres://u:hunter2@h/db"}, withFile)
	require.NoError(t, err)
	require.Contains(t, said, "has to be in ~/env")
	require.Contains(t, h.read(unitPath), "EnvironmentFile=~/env\n")
	require.NotContains(t, h.read(unitPath), "hunter2")
	require.NotContains(t, h.read(unitPath), "secret_mine")
}
