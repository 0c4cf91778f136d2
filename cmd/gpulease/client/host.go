package client

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// Host is a program that runs agents, and what is to be known about its file.
type Host struct {
	Name      string // for --client, and the principal where none is given
	Title     string // for people
	Root      string // what the host replaces by the project's directory; "" for nothing
	NeedsRoot bool   // it starts servers elsewhere than in the project
	Desktop   bool   // it may be started without a shell's PATH
	Then      string // what a person does next

	file    func(Place) (string, error)
	key     string         // the object that holds the servers
	kind    bool           // an entry says what kind of server it is
	toml    bool           // else JSON, with or without comments
	expands *regexp.Regexp // what it replaces in an entry's texts; nil for nothing
}

// Place is the computer whose files are meant.
type Place struct {
	System string // as runtime.GOOS has it
	Env    map[string]string
}

var (
	braces = regexp.MustCompile(`\$\{[^}]*\}?`)
	dollar = regexp.MustCompile(`\$\{[^}]*\}?|\$\w+`)
)

// Hosts are all that we know, by name. Where a host's own documentation leaves
// something open, the report that says it is named.
//
//   - claude-code: https://code.claude.com/docs/en/mcp (scopes; ${VAR} and
//     ${VAR:-default} in command, args and env). The file is the user's scope. It
//     starts servers where it was started (anthropics/claude-code#17565).
//   - claude-desktop: https://modelcontextprotocol.io/docs/tools/debugging (its file,
//     a working directory that may be /, an environment of a few variables). From
//     2026 on its Windows installer makes a package that reads a file within the
//     package (anthropics/claude-code#26073).
//   - codex: https://developers.openai.com/codex/mcp (CODEX_HOME, mcp_servers). It
//     hands on HOME, PATH and few others only (openai/codex#10206), replaces
//     nothing, and starts servers where it was started.
//   - cursor: https://cursor.com/docs/mcp (~/.cursor/mcp.json; ${env:NAME},
//     ${workspaceFolder} and others in command, args and env). Servers of the user's
//     file start in the home directory (vectorize-io/hindsight#4530).
//   - gemini: https://geminicli.com/docs/tools/mcp-server and
//     https://geminicli.com/docs/cli/configuration ($VAR and ${VAR} in every text;
//     comments, no trailing commas; user's servers run in trusted folders only).
//     Variables whose names look like a secret's reach a server only by its entry
//     (seen with 0.61.0).
//   - kiro: https://kiro.dev/docs/mcp/configuration (~/.kiro/settings/mcp.json, ${VAR}).
//   - vscode: https://code.visualstudio.com/docs/agents/reference/mcp-configuration
//     (servers, type, comments, ${workspaceFolder} and others). A server of the user's
//     file starts in the home directory (microsoft/vscode#250078).
//   - windsurf: https://docs.windsurf.com/windsurf/cascade/mcp
//     (~/.codeium/windsurf/mcp_config.json; ${env:NAME} and ${file:PATH}).
//   - zed: https://zed.dev/docs/ai/mcp and https://zed.dev/docs/configuring-zed
//     (context_servers, comments and trailing commas). Without a project, and before
//     its pull request 61365 always when started from a desktop, servers start
//     in / (zed-industries/zed#60879).
var Hosts = []Host{
	{
		Name: "claude-code", Title: "Claude Code", key: "mcpServers", kind: true, expands: braces,
		file: at("CLAUDE_CONFIG_DIR", ".claude.json", "~", ".claude.json"),
		Then: "start a new session; claude mcp get gpulease shows it",
	},
	{
		Name: "claude-desktop", Title: "Claude Desktop", key: "mcpServers", NeedsRoot: true, Desktop: true,
		file: claudeDesktop, Then: "quit Claude Desktop and start it again",
	},
	{
		Name: "codex", Title: "Codex", key: "mcp_servers", toml: true,
		file: at("CODEX_HOME", "config.toml", "~", ".codex", "config.toml"),
		Then: "start a new session; codex mcp get gpulease shows it",
	},
	{
		Name: "cursor", Title: "Cursor", key: "mcpServers", kind: true, expands: braces, Root: "${workspaceFolder}", Desktop: true,
		file: at("", "", "~", ".cursor", "mcp.json"), Then: "switch it on in Cursor's settings, under MCP",
	},
	{
		Name: "gemini", Title: "Gemini CLI", key: "mcpServers", expands: dollar,
		file: at("", "", "~", ".gemini", "settings.json"), Then: "start a new session, in a folder that you trust; /mcp shows it",
	},
	{
		Name: "kiro", Title: "Kiro", key: "mcpServers", expands: braces, NeedsRoot: true, Desktop: true,
		file: at("", "", "~", ".kiro", "settings", "mcp.json"), Then: "Kiro reads it by itself; its MCP panel shows it",
	},
	{
		Name: "vscode", Title: "VS Code", key: "servers", kind: true, expands: braces, Root: "${workspaceFolder}", Desktop: true,
		file: desktop("Code", "User", "mcp.json"), Then: "run MCP: List Servers in VS Code and start it",
	},
	{
		Name: "vscode-insiders", Title: "VS Code Insiders", key: "servers", kind: true, expands: braces, Root: "${workspaceFolder}", Desktop: true,
		file: desktop("Code - Insiders", "User", "mcp.json"), Then: "run MCP: List Servers in VS Code and start it",
	},
	{
		Name: "windsurf", Title: "Windsurf", key: "mcpServers", expands: braces, NeedsRoot: true, Desktop: true,
		file: at("", "", "~", ".codeium", "windsurf", "mcp_config.json"), Then: "refresh the MCP servers in Windsurf's settings",
	},
	{
		Name: "zed", Title: "Zed", key: "context_servers", NeedsRoot: true, Desktop: true,
		file: zed, Then: "Zed reads it by itself; the agent panel's settings show it",
	},
}

// Find is the host of that name.
func Find(name string) (Host, error) {
	names := make([]string, 0, len(Hosts))
	for _, h := range Hosts {
		if h.Name == name {
			return h, nil
		}
		names = append(names, h.Name)
	}
	return Host{}, fmt.Errorf("there is no client %q; known are %s", name, strings.Join(names, ", "))
}

// File is where the host keeps its servers.
func (h Host) File(p Place) (string, error) { return h.file(p) }

func (p Place) home() (string, error) {
	for _, name := range []string{"HOME", "USERPROFILE"} {
		if v := p.Env[name]; v != "" && (name == "HOME" || p.System == "windows") {
			return v, nil
		}
	}
	return "", errors.New("HOME is not set")
}

// at is a file below the directory that a variable names, else below the home
// directory.
func at(variable, file string, otherwise ...string) func(Place) (string, error) {
	return func(p Place) (string, error) {
		if dir := p.Env[variable]; variable != "" && dir != "" {
			return filepath.Join(dir, file), nil
		}
		home, err := p.home()
		return filepath.Join(append([]string{home}, otherwise[1:]...)...), err
	}
}

// config is where programs with a window keep their settings.
func (p Place) config() (string, error) {
	if p.System == "windows" {
		if dir := p.Env["APPDATA"]; dir != "" {
			return dir, nil
		}
		return "", errors.New("APPDATA is not set")
	}
	home, err := p.home()
	if p.System == "darwin" {
		return filepath.Join(home, "Library", "Application Support"), err
	}
	if dir := p.Env["XDG_CONFIG_HOME"]; filepath.IsAbs(dir) {
		return dir, nil
	}
	return filepath.Join(home, ".config"), err
}

func desktop(path ...string) func(Place) (string, error) {
	return func(p Place) (string, error) {
		dir, err := p.config()
		return filepath.Join(append([]string{dir}, path...)...), err
	}
}

func zed(p Place) (string, error) {
	if p.System == "darwin" {
		return at("", "", "~", ".config", "zed", "settings.json")(p)
	}
	name := "zed"
	if p.System == "windows" {
		name = "Zed"
	}
	return desktop(name, "settings.json")(p)
}

// claudeDesktop is the file within the Windows package, if that is installed.
func claudeDesktop(p Place) (string, error) {
	const file = "claude_desktop_config.json"
	if local := p.Env["LOCALAPPDATA"]; p.System == "windows" && local != "" {
		var found []string
		for _, pattern := range []string{
			filepath.Join(local, "Claude-Data", "claude_*"),
			filepath.Join(local, "Packages", "Claude_*", "LocalCache", "Roaming", "Claude"),
		} {
			dirs, err := filepath.Glob(pattern)
			if err != nil {
				return "", err
			}
			found = append(found, dirs...)
		}
		if len(found) > 1 {
			return "", fmt.Errorf("there are several of Claude Desktop's directories; name the file with --config: %s", strings.Join(found, ", "))
		}
		if len(found) == 1 {
			return filepath.Join(found[0], file), nil
		}
	}
	return desktop("Claude", file)(p)
}
