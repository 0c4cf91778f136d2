package client

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEntryThatSomebodyEditedIsLeftAlone(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(string) string{
		"an argument": func(s string) string { return strings.Replace(s, `"serve"`, `"serve", "--read-only"`, 1) },
		"a variable": func(s string) string {
			return strings.Replace(s, `"GPULEASE_PRINCIPAL": "x"`, `"GPULEASE_PRINCIPAL": "me"`, 1)
		},
		"another variable": func(s string) string { return strings.Replace(s, `"env": {`, `"env": { "MINE": "1",`, 1) },
		"the program":      func(s string) string { return strings.Replace(s, "/usr/local/bin/gpulease", "gpulease", 1) },
		"made by hand":     func(string) string { return `{"mcpServers":{"gpulease":{"command":"gpulease","args":["serve"]}}}` },
		"a remote one": func(string) string {
			return `{"mcpServers":{"gpulease":{"type":"http","url":"http://127.0.0.1:7433/mcp"}}}`
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := host(t, "claude-code")
			path := file(t, "{}")
			edited := edit(installed(t, h, path, wanted))
			require.NoError(t, os.WriteFile(path, []byte(edited), 0o600))
			other := wanted
			other.Args = []string{"serve", "--root", "/work"}
			_, err := h.Install(path, other, false)
			require.ErrorIs(t, err, ErrEdited)
			require.ErrorContains(t, err, "--force")
			_, err = h.Uninstall(path, false)
			require.ErrorIs(t, err, ErrEdited)
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, edited, string(b))

			forced, err := h.Install(path, other, true)
			require.NoError(t, err)
			require.Contains(t, string(forced.After), "/work")
			require.NotContains(t, string(forced.After), "7433")
			forced, err = h.Uninstall(path, true)
			require.NoError(t, err)
			require.NotContains(t, string(forced.After), Name)
		})
	}
}

// What a host adds to our entry, for instance a tool that is allowed, is neither
// an edit nor lost when the entry is written anew.
func TestUpdateKeepsWhatTheHostAdded(t *testing.T) {
	t.Parallel()
	h := host(t, "kiro")
	path := file(t, "{}")
	text := strings.Replace(installed(t, h, path, wanted), `"command"`, `"autoApprove": ["list_capacity"], // mine
      "command"`, 1)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	other := Entry{Command: "/opt/gpulease", Args: []string{"serve", "--root", "/work"}, Env: map[string]string{"LAMBDA_API_KEY_FILE": "/key"}}
	after := installed(t, h, path, other)
	require.Equal(t, `{
  "mcpServers": {
    "gpulease": {
      "autoApprove": ["list_capacity"], // mine
      "command": "/opt/gpulease",
      "args": [
        "serve",
        "--root",
        "/work"
      ],
      "env": {
        "GPULEASE_INSTALLED": "`+other.sum()+`",
        "LAMBDA_API_KEY_FILE": "/key"
      }
    }
  }
}`, after)
	require.Equal(t, "{\n  \"mcpServers\": {}\n}", uninstalled(t, h, path))
}

func TestWriteKeepsACopyTheModeAndALink(t *testing.T) {
	t.Parallel()
	h := host(t, "cursor")
	real := file(t, "{\"secret\": \"s\"}")
	require.NoError(t, os.Chmod(real, 0o640))
	link := filepath.Join(t.TempDir(), "mcp.json")
	require.NoError(t, os.Symlink(real, link))
	for n, want := range []string{link + ".gpulease.bak", link + ".gpulease.bak1"} {
		e := wanted
		e.Args = append([]string{"serve"}, make([]string, n)...)
		edit, err := h.Install(link, e, false)
		require.NoError(t, err)
		backup, err := edit.Write()
		require.NoError(t, err)
		require.Equal(t, want, backup)
		info, err := os.Stat(backup)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "other servers' secrets are in it")
		b, err := os.ReadFile(backup)
		require.NoError(t, err)
		require.Equal(t, string(edit.Before), string(b))
	}
	info, err := os.Lstat(link)
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&os.ModeSymlink, "it is still a link")
	info, err = os.Stat(real)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o640), info.Mode().Perm())
	left, err := os.ReadDir(filepath.Dir(real))
	require.NoError(t, err)
	require.Len(t, left, 1, "nothing is left beside what the link leads to")
}

func TestWriteRefusesWhatItMustNotTouch(t *testing.T) {
	t.Parallel()
	h := host(t, "cursor")
	dir := t.TempDir()
	_, err := h.Install(filepath.Join(dir, "no", "mcp.json"), wanted, false)
	require.ErrorContains(t, err, "is it installed")

	path := file(t, "{}")
	require.NoError(t, os.Chmod(path, 0o400))
	_, err = h.Install(path, wanted, false)
	require.ErrorContains(t, err, "read-only")
	require.NoError(t, os.Chmod(path, 0o600))

	require.NoError(t, os.Symlink(filepath.Join(dir, "gone"), filepath.Join(dir, "dangling")))
	_, err = h.Install(filepath.Join(dir, "dangling"), wanted, false)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = h.Install(dir, wanted, false)
	require.ErrorContains(t, err, "is not a file")

	// Somebody writes between the look and the change.
	edit, err := h.Install(path, wanted, false)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, []byte(`{"new": 1}`), 0o600))
	_, err = edit.Write()
	require.ErrorContains(t, err, "just been changed")
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.JSONEq(t, `{"new": 1}`, string(b))
	require.NoFileExists(t, path+".gpulease.bak")

	fresh := filepath.Join(dir, "fresh.json")
	edit, err = h.Install(fresh, wanted, false)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(fresh, []byte(`{"new": 1}`), 0o600))
	_, err = edit.Write()
	require.ErrorContains(t, err, "just been changed")
}

func TestWhatTheHostWouldReplaceIsRefused(t *testing.T) {
	t.Parallel()
	path := file(t, "{}")
	for _, tt := range []struct{ host, value, says string }{
		{"gemini", "pass show $HOME/key", "$HOME"},
		{"gemini", "echo ${A}", "${A}"},
		{"claude-code", "echo ${A:-x}", "${A:-x}"},
		{"cursor", "cat ${env:KEYFILE}", "${env:KEYFILE}"},
		{"windsurf", "echo ${file:/key}", "${file:/key}"},
		{"vscode", "cat ${workspaceFolder}/key", "${workspaceFolder}"},
		{"codex", "a\nb", "control character"},
	} {
		_, err := host(t, tt.host).Install(path, Entry{Command: "/g", Args: []string{"serve"}, Env: map[string]string{"LAMBDA_API_KEY_COMMAND": tt.value}}, false)
		require.ErrorContains(t, err, tt.says, tt)
	}
	for _, name := range []string{"claude-code", "cursor", "vscode", "windsurf", "zed", "codex"} {
		_, err := host(t, name).Install(file(t, ""), Entry{Command: "/g", Env: map[string]string{"LAMBDA_API_KEY_COMMAND": "pass show $USER/key"}}, false)
		require.NoError(t, err, "%s hands $USER on to the shell", name)
	}
	_, err := host(t, "cursor").Install(path, Entry{Command: "/g", Args: []string{"serve", "--root", "${workspaceFolder}"}}, false)
	require.NoError(t, err, "that one is meant")
	_, err = host(t, "cursor").Install(path, Entry{Command: "/g", Args: []string{"serve", "--root", "${userHome}"}}, false)
	require.ErrorContains(t, err, "${userHome}")
}

// Other servers' secrets are in the lines next to ours, or in the same line.
func TestDiffShowsOnlyWhatChanges(t *testing.T) {
	t.Parallel()
	h := host(t, "claude-code")
	for name, text := range map[string]string{
		"lines":    "{\n  \"mcpServers\": {\n    \"a\": {\"env\": {\"TOKEN\": \"hunter2\"}}\n  }\n}\n",
		"one line": `{"mcpServers":{"a":{"env":{"TOKEN":"hunter2"}}},"more":"` + strings.Repeat("x", 200) + `"}`,
	} {
		edit, err := h.Install(file(t, text), wanted, false)
		require.NoError(t, err)
		diff := edit.Diff()
		require.Contains(t, diff, "/usr/local/bin/gpulease", name)
		require.NotContains(t, diff, "hunter2", name)
		require.Less(t, len(diff), 600, name)

		require.NoError(t, os.WriteFile(edit.Path, edit.After, 0o600))
		edit, err = h.Uninstall(edit.Path, false)
		require.NoError(t, err)
		require.Contains(t, edit.Diff(), "/usr/local/bin/gpulease", name)
		require.NotContains(t, edit.Diff(), "hunter2", name)
	}
	same, err := h.Install(filepath.Join(t.TempDir(), "x"), wanted, false)
	require.NoError(t, err)
	require.Contains(t, same.Diff(), "--- /dev/null\n")
	require.NotContains(t, same.Diff(), "\n-")
}
