//go:build unix

package hosts

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const claudePrefix = "mcp__gpulease__"

// claude starts Claude Code with the configuration in the home directory.
func (s *stage) claude() *hosted {
	s.t.Helper()
	m, err := StartMessages()
	require.NoError(s.t, err)
	s.env = append(s.env,
		"ANTHROPIC_BASE_URL="+m.URL, "ANTHROPIC_API_KEY=stand-in",
		"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1", "DISABLE_AUTOUPDATER=1",
		"MCP_CONNECTION_NONBLOCKING=0", // else a slow computer's first prompt has no tools
	)
	return s.host(m, "", claudePrefix, filepath.Join(s.npm, "node_modules/.bin/claude"),
		"-p", "go", "--allowedTools", "mcp__gpulease", "--output-format", "stream-json", "--verbose")
}

// claudeLoads checks what Claude Code's model has before its first call: the heart
// tools whole, the others by name; those that the loop needs are then loaded.
func (h *hosted) claudeLoads() {
	h.t.Helper()
	p, err := h.model.Prompt(h.ctx)
	require.NoError(h.t, err)
	h.understood(p, "list_capacity", "launch_lease", "run_command", "stop_lease")
	var others []string
	for _, name := range []string{"get_lease", "fetch_files"} {
		require.NotContains(h.t, p.Tools, claudePrefix+name, "deferred")
		require.Contains(h.t, p.Text, "\n"+claudePrefix+name+"\n", "by name")
		others = append(others, claudePrefix+name)
	}
	seen, err := h.model.Call(h.ctx, Call{Tool: "ToolSearch", Args: map[string]any{"query": "select:" + strings.Join(others, ","), "max_results": 5}})
	require.NoError(h.t, err)
	require.Contains(h.t, seen.Text, others[0])
	require.Contains(h.t, seen.Text, others[1])
}

// understood checks that tools and instructions reach the model whole.
func (h *hosted) understood(p Prompt, tools ...string) {
	h.t.Helper()
	require.NoError(h.t, h.model.Err())
	for _, name := range tools {
		got, ok := p.Tools[h.fix+name]
		require.True(h.t, ok, "%s is not in the first prompt", name)
		require.NotEmpty(h.t, got.Description)
		require.NotContains(h.t, got.Description, "[truncated]")
		require.Contains(h.t, string(got.Schema), `"properties"`)
	}
	said := p.Text
	if space, ok := p.Tools[h.space]; ok {
		said = space.Description
	}
	require.Contains(h.t, said, "A lease costs money from boot until its stop is confirmed.")
	require.Contains(h.t, said, "A failing test suite is a result (exit_code), not an error.", "the instructions' last words")
}

func TestClaudeCodeOverStdio(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	said := s.run(s.program, "install", "--client", "claude-code")
	require.Contains(t, said, "gpulease is now in "+filepath.Join(s.home, ".claude.json"))
	h := s.claude()
	h.claudeLoads()
	h.loop(filepath.Join(s.project, "results"))
	h.finish()
	s.onlyLease("claude-code", "toolu_standin_")
}

func TestClaudeCodeOverHTTP(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	token := strings.TrimSpace(s.run(s.program, "token", "create", "claude"))
	var ready struct {
		URL string `json:"url"`
	}
	root := filepath.Join(s.home, "files")
	s.write("files/.keep", "")
	s.daemon(&ready, s.env, s.program, "serve", "--transport", "http", "--listen", "127.0.0.1:0", "--root", root)
	s.run(filepath.Join(s.npm, "node_modules/.bin/claude"), "mcp", "add", "--scope", "user", "--transport", "http",
		"gpulease", ready.URL, "--header", "Authorization: Bearer "+token)
	h := s.claude()
	h.claudeLoads()
	h.loop(filepath.Join(root, "claude", "results"))
	h.finish()
	s.onlyLease("claude", "toolu_standin_")
}

func TestCodexOverStdio(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	m, err := StartResponses()
	require.NoError(t, err)
	s.write(".codex/config.toml", `model = "stand-in"
model_provider = "standin"

[model_providers.standin]
name = "standin"
base_url = "http://127.0.0.1:1/v1"
wire_api = "responses"
`)
	said := s.run(s.program, "install", "--client", "codex")
	require.Contains(t, said, "gpulease is now in "+filepath.Join(s.home, ".codex/config.toml"))
	codex := func(m *Model, args ...string) *hosted {
		args = append([]string{"exec", "--skip-git-repo-check", "--json", "-c", `model_providers.standin.base_url="` + m.URL + `/v1"`}, args...)
		return s.host(m, "mcp__gpulease", "mcp__gpulease__", filepath.Join(s.npm, "node_modules/.bin/codex"), append(args, "go")...)
	}

	// Where nobody can be asked and nothing else is set, Codex calls only what changes
	// nothing; see docs/clients.md.
	h := codex(m)
	typ := h.ok("list_capacity", map[string]any{}).Offers[0].Type
	seen := h.call("launch_lease", map[string]any{"type": typ})
	require.Contains(t, seen.Text, "requires approval")
	h.finish()
	require.Zero(t, s.launches())

	m, err = StartResponses()
	require.NoError(t, err)
	h = codex(m, "-c", `mcp_servers.gpulease.default_tools_approval_mode="approve"`)
	p, err := m.Prompt(h.ctx)
	require.NoError(t, err)
	h.understood(p, "list_capacity", "launch_lease", "run_command", "stop_lease", "get_lease", "fetch_files")
	h.loop(filepath.Join(s.project, "results"))
	h.finish()
	s.onlyLease("codex", "call_")
}
