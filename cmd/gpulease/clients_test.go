//go:build unix

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/cmd/gpulease/client"
)

// client installs into hosts' files, or uninstalls, under further variables and options.
func (h *home) client(names string, env []string, with func(k *clients)) (said string, err error) {
	h.t.Helper()
	s := newSettings(append(append([]string{}, h.env...), env...))
	s.flags(pflag.NewFlagSet("", pflag.ContinueOnError))
	var out bytes.Buffer
	k := &clients{installation: &installation{s: s, system: "linux", program: "/usr/local/bin/gpulease", out: &out}, names: strings.Fields(names)}
	if with != nil {
		with(k)
	}
	err = k.run(h.t.Context(), false)
	return h.tidy(out.String()), err
}

func (h *home) mkdir(name string) {
	h.t.Helper()
	require.NoError(h.t, os.MkdirAll(filepath.Join(h.dir, name), 0o700))
}

func TestInstallIntoAClient(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.write(".claude.json", "{\n  \"numStartups\": 3,\n  \"mcpServers\": {}\n}\n")
	said, err := h.client("claude-code", []string{"GPULEASE_POLICY=" + h.dir + "/p.yaml", "HTTPS_PROXY=http://proxy:3128", "GPULEASE_SSH_PORT=2222"}, nil)
	require.NoError(t, err)
	require.Equal(t, "Claude Code: gpulease is now in ~/.claude.json; a copy of what was there is ~/.claude.json.gpulease.bak\n"+
		"Claude Code: start a new session; claude mcp get gpulease shows it\n", said)
	text := h.read(".claude.json")
	for _, line := range []string{
		`"command": "/usr/local/bin/gpulease"`, `"LAMBDA_API_KEY_FILE": "~/key"`, `"GPULEASE_STATE_DIR": "~/.local/state/gpulease"`,
		`"GPULEASE_POLICY": "~/p.yaml"`, `"GPULEASE_PRINCIPAL": "claude-code"`, `"HTTPS_PROXY": "http://proxy:3128"`, `"GPULEASE_SSH_PORT": "2222"`, `"numStartups": 3`,
	} {
		require.Contains(t, text, line)
	}
	require.NotContains(t, text, "PATH\"", "a terminal's host has one")
	require.NotContains(t, text, "--root", "it starts servers in the project")

	said, err = h.client("claude-code", []string{"GPULEASE_POLICY=" + h.dir + "/p.yaml", "HTTPS_PROXY=http://proxy:3128", "GPULEASE_SSH_PORT=2222"}, nil)
	require.NoError(t, err)
	require.Equal(t, "Claude Code: ~/.claude.json is as it should be\n", said)

	said, err = h.client("claude-code", []string{"GPULEASE_PRINCIPAL=ann"}, nil)
	require.NoError(t, err, "ours, so it is brought up to date")
	require.Contains(t, said, "is now in")
	require.Contains(t, h.read(".claude.json"), `"GPULEASE_PRINCIPAL": "ann"`)
	require.NotContains(t, h.read(".claude.json"), "GPULEASE_POLICY")

	said, err = h.client("claude-code", nil, func(k *clients) { k.remove = true })
	require.NoError(t, err)
	require.Contains(t, said, "gpulease is no more in ~/.claude.json; a copy")
	require.Equal(t, "{\n  \"numStartups\": 3,\n  \"mcpServers\": {}\n}\n", h.read(".claude.json"))
	said, err = h.client("claude-code zed", nil, func(k *clients) { k.remove = true })
	require.NoError(t, err)
	require.Equal(t, "Claude Code: gpulease was not in ~/.claude.json\nZed: gpulease was not in ~/.config/zed/settings.json\n", said)
}

func TestInstallIntoSeveralClients(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	for _, dir := range []string{".cursor", ".codex", ".config/zed", "work"} {
		h.mkdir(dir)
	}
	key := "cat " + h.dir + "/key"
	said, err := h.client("cursor codex windsurf zed", []string{"LAMBDA_API_KEY_FILE=", "LAMBDA_API_KEY_COMMAND=" + key, "XDG_CONFIG_HOME=" + h.dir + "/.config"}, nil)
	require.ErrorContains(t, err, "Windsurf: it does not start servers in your project", "the others are done all the same")
	require.ErrorContains(t, err, "Zed: ")
	require.Contains(t, said, "Cursor: gpulease is now in ~/.cursor/mcp.json\n")
	cursor := h.read(".cursor/mcp.json")
	require.Contains(t, cursor, `"${workspaceFolder}"`)
	require.Contains(t, cursor, `"PATH": "~/bin:/usr/bin:/bin"`, "a desktop's host has not the PATH in which a key command is found")
	require.Contains(t, cursor, `"LAMBDA_API_KEY_COMMAND": "cat ~/key"`)
	require.Contains(t, cursor, `"XDG_CONFIG_HOME": "~/.config"`, "else another policy would be in force")
	require.NotContains(t, h.read(".codex/config.toml"), "\nPATH")

	_, err = h.client("zed", nil, func(k *clients) { k.roots = []string{filepath.Join(h.dir, "work")} })
	require.NoError(t, err)
	require.Contains(t, h.read(".config/zed/settings.json"), `"~/work"`)
	_, err = h.client("zed", nil, func(k *clients) { k.roots = []string{filepath.Join(h.dir, "nowhere")} })
	require.ErrorContains(t, err, "nowhere: no such file")
	_, err = h.client("windsurf", nil, func(k *clients) { k.roots = []string{h.dir} })
	require.ErrorContains(t, err, "is it installed")
}

func TestInstallIntoAClientDryRun(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.write(".claude.json", "{\"mcpServers\": {\"gpulease\": {\n\"command\": \"gpulease\", \"env\": {\n\"LAMBDA_API_KEY\": \""+testKey+"\"}}}}\n")
	was := h.read(".claude.json")
	_, err := h.client("claude-code", nil, func(k *clients) { k.dryRun = true })
	require.ErrorIs(t, err, client.ErrEdited)
	said, err := h.client("claude-code", nil, func(k *clients) { k.dryRun, k.force = true, true })
	require.NoError(t, err)
	require.Contains(t, said, "would change ~/.claude.json:\n--- ~/.claude.json\n")
	require.Contains(t, said, `-"LAMBDA_API_KEY": "[key]"`)
	require.NotContains(t, said, "0123456789abcdef")
	require.NotContains(t, said, "abcdefghijklmnop")
	require.Equal(t, was, h.read(".claude.json"))
	require.NoFileExists(t, filepath.Join(h.dir, ".claude.json.gpulease.bak"))
}

func TestInstallNeverWritesASecretIntoAClient(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	for name, tt := range map[string]struct {
		env  []string
		with func(*clients)
		says string
	}{
		"only the key itself":     {[]string{"LAMBDA_API_KEY_FILE=", "LAMBDA_API_KEY=" + testKey}, nil, "never written into a host's file"},
		"nothing":                 {[]string{"LAMBDA_API_KEY_FILE="}, nil, "LAMBDA_API_KEY_FILE=~/.config/gpulease/key"},
		"a key in the command":    {[]string{"LAMBDA_API_KEY_COMMAND=echo " + testKey}, nil, "has the key itself in it"},
		"a ledger's password":     {[]string{"GPULEASE_LEDGER=postgres://u:hunter2@h/db"}, nil, "pgpass"},
		"a proxy's password":      {[]string{"HTTPS_PROXY=http://u:hunter2@proxy"}, nil, "HTTPS_PROXY has a password"},
		"a command without a key": {[]string{"LAMBDA_API_KEY_COMMAND=true"}, nil, "the server would find no key"},
		"a file that is not here": {[]string{"LAMBDA_API_KEY_FILE=/nowhere/key", "LAMBDA_API_KEY=" + testKey}, nil, "the server would find no key"},
		"a program of go run":     {nil, func(k *clients) { k.program = "/tmp/go-build1/exe/gpulease" }, "will not stay there"},
		"an env file":             {nil, func(k *clients) { k.envFile = "/env" }, "--env-file is for services"},
		"a client unknown":        {nil, func(k *clients) { k.names = []string{"emacs"} }, "known are claude-code"},
		"a file for two":          {nil, func(k *clients) { k.names, k.config = []string{"cursor", "zed"}, "x" }, "--config is for one client"},
		"what it would replace":   {[]string{"LAMBDA_API_KEY_FILE=", "LAMBDA_API_KEY_COMMAND=cat ${KEYFILE:-" + h.dir + "/key}"}, nil, "which Claude Code would replace"},
	} {
		said, err := h.client("claude-code", tt.env, tt.with)
		require.ErrorContains(t, err, tt.says, name)
		require.NotContains(t, said+err.Error(), "secret_mine", name)
		require.NotContains(t, said+err.Error(), "hunter2", name)
	}
	require.NoFileExists(t, filepath.Join(h.dir, ".claude.json"))

	_, err := h.client("claude-code", []string{"LAMBDA_API_KEY=" + testKey}, nil)
	require.NoError(t, err)
	require.NotContains(t, h.read(".claude.json"), "secret_mine")
}

func TestInstallAndUninstallAsCommands(t *testing.T) {
	t.Parallel()
	code, out, _ := cli(t, nil, "install")
	require.Zero(t, code)
	require.Contains(t, out, "keeper")
	code, _, errs := cli(t, nil, "install", "keepr")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, `there is no command "keepr" (perhaps keeper); see gpulease install --help`)
	code, _, errs = cli(t, nil, "install", "--client", "cursor")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "will not stay there", "it is the test's program")
	code, _, errs = cli(t, nil, "uninstall")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "--client")
	code, out, _ = cli(t, nil, "uninstall", "--client", "cursor,zed")
	require.Zero(t, code)
	require.Contains(t, out, "Cursor: gpulease was not in ")
	require.Contains(t, out, "Zed: gpulease was not in ")
}
