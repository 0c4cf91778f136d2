package client

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFilesOfHosts(t *testing.T) {
	t.Parallel()
	home := map[string]string{"HOME": "/h"}
	windows := map[string]string{"USERPROFILE": "/u", "APPDATA": "/u/R", "LOCALAPPDATA": "/u/L"}
	for _, tt := range []struct {
		host, system string
		env          map[string]string
		file         string
	}{
		{"claude-code", "linux", home, "/h/.claude.json"},
		{"claude-code", "windows", windows, "/u/.claude.json"},
		{"claude-code", "linux", map[string]string{"CLAUDE_CONFIG_DIR": "/c"}, "/c/.claude.json"},
		{"claude-desktop", "darwin", home, "/h/Library/Application Support/Claude/claude_desktop_config.json"},
		{"claude-desktop", "windows", windows, "/u/R/Claude/claude_desktop_config.json"},
		{"claude-desktop", "linux", home, "/h/.config/Claude/claude_desktop_config.json"},
		{"codex", "linux", home, "/h/.codex/config.toml"},
		{"codex", "darwin", map[string]string{"HOME": "/h", "CODEX_HOME": "/x"}, "/x/config.toml"},
		{"cursor", "darwin", home, "/h/.cursor/mcp.json"},
		{"gemini", "linux", home, "/h/.gemini/settings.json"},
		{"kiro", "linux", home, "/h/.kiro/settings/mcp.json"},
		{"vscode", "darwin", home, "/h/Library/Application Support/Code/User/mcp.json"},
		{"vscode", "linux", map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "/x"}, "/x/Code/User/mcp.json"},
		{"vscode", "windows", windows, "/u/R/Code/User/mcp.json"},
		{"vscode-insiders", "linux", home, "/h/.config/Code - Insiders/User/mcp.json"},
		{"windsurf", "windows", windows, "/u/.codeium/windsurf/mcp_config.json"},
		{"zed", "darwin", map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "/x"}, "/h/.config/zed/settings.json"},
		{"zed", "linux", map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "/x"}, "/x/zed/settings.json"},
		{"zed", "windows", windows, "/u/R/Zed/settings.json"},
	} {
		path, err := host(t, tt.host).File(Place{System: tt.system, Env: tt.env})
		require.NoError(t, err, tt)
		require.Equal(t, tt.file, filepath.ToSlash(path), tt)
	}
	for _, h := range Hosts {
		_, err := h.File(Place{System: "linux", Env: map[string]string{}})
		require.ErrorContains(t, err, "HOME is not set", h.Name)
	}
	_, err := Find("emacs")
	require.ErrorContains(t, err, "known are claude-code, claude-desktop, codex")
}

// The package that Claude Desktop is on Windows reads another file than the one
// that is documented.
func TestClaudeDesktopInAWindowsPackage(t *testing.T) {
	t.Parallel()
	local := t.TempDir()
	p := Place{System: "windows", Env: map[string]string{"APPDATA": "/u/R", "LOCALAPPDATA": local}}
	packaged := filepath.Join(local, "Packages", "Claude_pzs8sxrjxfjjc", "LocalCache", "Roaming", "Claude")
	require.NoError(t, os.MkdirAll(packaged, 0o700))
	path, err := host(t, "claude-desktop").File(p)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(packaged, "claude_desktop_config.json"), path)

	require.NoError(t, os.MkdirAll(filepath.Join(local, "Claude-Data", "claude_x"), 0o700))
	_, err = host(t, "claude-desktop").File(p)
	require.ErrorContains(t, err, "--config")
}
