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
	url, token, files := s.web("claude")
	s.run(filepath.Join(s.npm, "node_modules/.bin/claude"), "mcp", "add", "--scope", "user", "--transport", "http",
		"gpulease", url, "--header", "Authorization: Bearer "+token)
	h := s.claude()
	h.claudeLoads()
	h.loop(filepath.Join(files, "results"))
	h.finish()
	s.onlyLease("claude", "toolu_standin_")
}

// codex starts Codex with the configuration in the home directory and these settings beside it.
func (s *stage) codex(settings ...string) *hosted {
	s.t.Helper()
	m, err := StartResponses()
	require.NoError(s.t, err)
	args := []string{"exec", "--skip-git-repo-check", "--json", "-c", `model_providers.standin.base_url="` + m.URL + `/v1"`}
	for _, setting := range settings {
		args = append(args, "-c", setting)
	}
	return s.host(m, "mcp__gpulease", "mcp__gpulease__", filepath.Join(s.npm, "node_modules/.bin/codex"), append(args, "go")...)
}

// codexLoop lets Codex call what changes something, and takes the loop. files is where its files come home.
func (s *stage) codexLoop(files string) {
	s.t.Helper()
	h := s.codex(`mcp_servers.gpulease.default_tools_approval_mode="approve"`)
	p, err := h.model.Prompt(h.ctx)
	require.NoError(s.t, err)
	h.understood(p, "list_capacity", "launch_lease", "run_command", "stop_lease", "get_lease", "fetch_files")
	h.loop(files)
	h.finish()
	s.onlyLease("codex", "call_")
}

const codexConfig = `model = "stand-in"
model_provider = "standin"

[model_providers.standin]
name = "standin"
base_url = "http://127.0.0.1:1/v1"
wire_api = "responses"
`

func TestCodexOverStdio(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.write(".codex/config.toml", codexConfig)
	said := s.run(s.program, "install", "--client", "codex")
	require.Contains(t, said, "gpulease is now in "+filepath.Join(s.home, ".codex/config.toml"))

	// Where nobody can be asked and nothing else is set, Codex calls only what changes
	// nothing; see docs/clients.md.
	h := s.codex()
	typ := h.ok("list_capacity", map[string]any{}).Offers[0].Type
	seen := h.call("launch_lease", map[string]any{"type": typ})
	require.Contains(t, seen.Text, "requires approval")
	h.finish()
	require.Zero(t, s.launches())

	s.codexLoop(filepath.Join(s.project, "results"))
}

func TestCodexOverHTTP(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.write(".codex/config.toml", codexConfig)
	url, token, files := s.web("codex")
	s.env = append(s.env, "GPULEASE_TOKEN="+token)
	s.run(filepath.Join(s.npm, "node_modules/.bin/codex"), "mcp", "add", "gpulease", "--url", url, "--bearer-token-env-var", "GPULEASE_TOKEN")
	s.codexLoop(filepath.Join(files, "results"))
}
