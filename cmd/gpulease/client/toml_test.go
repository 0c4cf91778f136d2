package client

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const codexEntry = `[mcp_servers.gpulease]
command = "/usr/local/bin/gpulease"
args = ["serve"]

[mcp_servers.gpulease.env]
GPULEASE_INSTALLED = "SUM"
GPULEASE_PRINCIPAL = "x"
`

func TestTOMLChangesNothingElse(t *testing.T) {
	t.Parallel()
	h := host(t, "codex")
	ours := strings.Replace(codexEntry, "SUM", wanted.sum(), 1)
	for name, text := range map[string]string{
		"nothing":          "",
		"settings":         "model = \"gpt-5\" # mine\n\n[tui]\nx = 1_000\n",
		"other servers":    "[mcp_servers.a]\ncommand = 'x'\n[mcp_servers.a.env]\nK = \"v\"\n",
		"CRLF":             "model = \"a\"\r\n\r\n[mcp_servers.a]\r\ncommand = \"x\"\r\n",
		"no line ending":   "model = \"a\"",
		"CRLF, no ending":  "a = 1\r\nmodel = \"a\"",
		"comments at end":  "model = \"a\"\n\n# the end\n\n\n",
		"byte order mark":  "\xef\xbb\xbfmodel = \"a\"\n",
		"inline tables":    "x = { a = 1, b = [1,\n 2] }\n[mcp_servers]\na = { command = \"x\" }\n",
		"quoted and odd":   "\"mcp servers\" = 1\n[ mcp_servers . \"b\" ]\ncommand = \"\"\"\n[mcp_servers.gpulease]\n\"\"\"\n",
		"arrays of tables": "[[x]]\na = 1\n[[x]]\na = 2\n",
		"dates":            "d = 2026-11-27T10:00:00Z\nf = 1.50\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := file(t, text)
			after := installed(t, h, path, wanted)
			require.True(t, strings.HasPrefix(after, text), after)
			if !strings.Contains(text, "\r\n") {
				require.Contains(t, after+"\n", ours)
			} else {
				require.NotContains(t, strings.ReplaceAll(after, "\r\n", ""), "\n")
			}
			again, err := h.Install(path, wanted, false)
			require.NoError(t, err)
			require.False(t, again.Changes())
			require.Equal(t, text, uninstalled(t, h, path))
		})
	}
}

func TestTOMLUpdateKeepsWhatWasAdded(t *testing.T) {
	t.Parallel()
	h := host(t, "codex")
	path := file(t, "model = \"a\"\n")
	text := strings.Replace(installed(t, h, path, wanted), "args = [\"serve\"]\n", "args = [\"serve\"]\ntool_timeout_sec = 90 # mine\n", 1)
	text += "\n[mcp_servers.gpulease.tools.stop_lease]\napproval_mode = \"approve\"\n\n[tui]\nx = 1\n"
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	other := Entry{Command: "/opt/g \"q\"", Args: []string{"serve", "--root", "/work"}, Env: map[string]string{"LAMBDA_API_KEY_FILE": "/key"}}
	require.Equal(t, `model = "a"

[mcp_servers.gpulease]
command = "/opt/g \"q\""
args = ["serve", "--root", "/work"]
tool_timeout_sec = 90 # mine

[mcp_servers.gpulease.env]
GPULEASE_INSTALLED = "`+other.sum()+`"
LAMBDA_API_KEY_FILE = "/key"

[mcp_servers.gpulease.tools.stop_lease]
approval_mode = "approve"

[tui]
x = 1
`, installed(t, h, path, other))
	require.Equal(t, "model = \"a\"\n\n[tui]\nx = 1\n", uninstalled(t, h, path))
}

func TestTOMLEntriesOfOtherForms(t *testing.T) {
	t.Parallel()
	h := host(t, "codex")
	for text, left := range map[string]string{
		"[mcp_servers]\ngpulease = { command = \"g\", args = [\"serve\"] } # x\na = { command = \"x\" }\n": "[mcp_servers]\na = { command = \"x\" }\n",
		"[mcp_servers]\ngpulease.command = \"g\"\n[z]\na = 1\n":                                            "[mcp_servers]\n[z]\na = 1\n",
		"[ mcp_servers . \"gpulease\" ]\ncommand = \"g\"\n# mine\nargs = [\n  \"serve\",\n]\n":             "# mine\n",
		"[mcp_servers.gpulease]\ncommand = \"g\"\n\n[mcp_servers.b]\ncommand = \"x\"\n":                    "[mcp_servers.b]\ncommand = \"x\"\n",
		"a = 1\n[mcp_servers.gpulease]\ncommand = \"g\"\n[mcp_servers.b]\ncommand = \"x\"\n":               "a = 1\n[mcp_servers.b]\ncommand = \"x\"\n",
	} {
		path := file(t, text)
		_, err := h.Install(path, wanted, false)
		require.ErrorIs(t, err, ErrEdited, text)
		edit, err := h.Uninstall(path, true)
		require.NoError(t, err, text)
		require.Equal(t, left, string(edit.After))
	}
}

func TestTOMLRefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	h := host(t, "codex")
	for text, says := range map[string]string{
		"a = 1\nb = \n":     "line 2",
		"a = 1\n[x\n":       "line 2",
		"a = 1\na = 2\n":    "nothing was written",
		"mcp_servers = 1\n": "holds no servers",
		"mcp_servers = { a = { command = \"x\" } }\n":          "edit it by hand",
		"[[mcp_servers]]\na = 1\n":                             "holds no servers",
		"mcp_servers = { gpulease = { command = \"x\" } }\n":   "not as gpulease wrote it",
		"[mcp_servers.gpulease]\ncommand = \"g\"\nargs = 17\n": "not as gpulease wrote it",
	} {
		path := file(t, text)
		_, err := h.Install(path, wanted, false)
		require.ErrorContains(t, err, says, text)
	}
	_, err := h.Uninstall(file(t, "mcp_servers = { gpulease = { command = \"x\" } }\n"), true)
	require.ErrorContains(t, err, "edit it by hand")
}
