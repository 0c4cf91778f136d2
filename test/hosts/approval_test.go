//go:build unix

package hosts

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// codexAsked is Codex with a server that may ask it, and all of it said by flags.
func (s *stage) codexAsked() *hosted {
	s.t.Helper()
	m, err := StartResponses()
	require.NoError(s.t, err)
	args := []string{"exec", "--skip-git-repo-check", "--json"}
	for key, value := range map[string]string{
		"model": `"stand-in"`, "model_provider": `"standin"`,
		"model_providers.standin":                          fmt.Sprintf(`{name="standin",base_url="%s/v1",wire_api="responses"}`, m.URL),
		"mcp_servers.gpulease.command":                     fmt.Sprintf("%q", s.program),
		"mcp_servers.gpulease.args":                        `["serve","--approve-by-elicitation"]`,
		"mcp_servers.gpulease.env":                         s.passed(),
		"mcp_servers.gpulease.default_tools_approval_mode": `"approve"`,
	} {
		args = append(args, "-c", key+"="+value)
	}
	return s.host(m, "mcp__gpulease", "mcp__gpulease__", filepath.Join(s.npm, "node_modules/.bin/codex"), append(args, "go")...)
}

// passed is this person's environment as Codex hands it to a server.
func (s *stage) passed() string {
	text := ""
	for _, pair := range s.env {
		name, value, _ := strings.Cut(pair, "=")
		text += fmt.Sprintf("%s=%q,", name, value)
	}
	return "{" + text + "}"
}

// The operator lets the person behind the host approve, and nobody is there: the hosts
// answer by themselves, each in its own era and its own way, and nothing is launched.
func TestHostsWithoutAPersonApproveNothing(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		start func(*stage) *hosted
		why   string
	}{
		"Claude Code": {func(s *stage) *hosted {
			s.run(s.program, "install", "--client", "claude-code")
			s.env = append(s.env, "GPULEASE_APPROVE_BY_ELICITATION=true")
			return s.claude()
		}, "put aside without an answer"},
		"Codex": {(*stage).codexAsked, "declined"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.write(".config/gpulease/policy.yaml", "max_ttl: 2h\napprove_above: 0\n")
			h := tc.start(s)
			seen := h.call("launch_lease", map[string]any{"type": "gpu_1x_a10"})
			require.Contains(t, seen.Text, "awaiting_approval")
			require.Contains(t, seen.Text, "the person behind this client has not approved it here: "+tc.why)
			id := regexp.MustCompile(`gpulease approve ([a-z0-9]+)`).FindStringSubmatch(seen.Text)
			require.NotNil(t, id)
			require.Contains(t, h.call("stop_lease", map[string]any{"lease_id": id[1]}).Text, "cancelled", "the keeper has nothing left to wait for")
			h.finish()
			require.Zero(t, s.launches())
		})
	}
}
