//go:build unix

package hosts

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	"github.com/stretchr/testify/require"
)

// answer is what is looked at in our answers. What the host cuts or loses on the
// way is missing here.
type answer struct {
	Offers []struct {
		Type    string   `json:"instance_type"`
		GPUs    int      `json:"gpus"`
		Regions []string `json:"regions"`
		Allowed bool     `json:"allowed"`
	} `json:"offers"`
	Lease     string          `json:"lease_id"`
	State     string          `json:"state"`
	Decision  string          `json:"decision"`
	Worst     float64         `json:"worst_case_usd"`
	Cost      *float64        `json:"cost_usd"`
	Deadline  string          `json:"deadline"`
	ExitCode  *int            `json:"exit_code"`
	Stdout    string          `json:"stdout"`
	Stderr    string          `json:"stderr"`
	Bytes     int64           `json:"stdout_bytes"`
	Truncated bool            `json:"truncated"`
	Complete  bool            `json:"complete"`
	Files     int             `json:"files"`
	Dir       string          `json:"local_dir"`
	Confirmed bool            `json:"confirmed"`
	Warnings  []string        `json:"warnings"`
	Next      json.RawMessage `json:"next"` // a text, or a text with a call
}

// largest is what an answer may have unless more is asked for; see docs/tools.md.
const largest = 8 << 10

// ok is a call whose result the model sees whole, as structured content.
func (h *hosted) ok(tool string, args map[string]any) answer {
	h.t.Helper()
	seen := h.call(tool, args)
	require.False(h.t, seen.Error, seen.Text)
	// One of the hosts puts a line of its own before an output.
	text := seen.Text
	if i := strings.Index(text, "{"); i > 0 && strings.HasPrefix(text, "Wall time:") {
		text = text[i:]
	}
	var a answer
	require.NoError(h.t, json.Unmarshal([]byte(text), &a), "%s: the model does not see the whole structured content: %s", tool, seen.Text)
	require.NotEmpty(h.t, a.Next, "%s: what follows", tool)
	require.LessOrEqual(h.t, len(text), largest, tool)
	return a
}

// refused is a call whose error the model sees as text, and what it can do.
func (h *hosted) refused(code, tool string, args map[string]any) string {
	h.t.Helper()
	seen := h.call(tool, args)
	require.Contains(h.t, seen.Text, "error "+code+": ", tool)
	require.Equal(h.t, h.space == "", seen.Error, "only the Messages API can mark an error")
	require.Contains(h.t, seen.Text, "next: ", tool)
	require.Contains(h.t, seen.Text, "retryable: ", tool)
	return seen.Text
}

// loop is what an agent does, with the mistakes that agents make. files is where
// its files come home.
func (h *hosted) loop(files string) {
	h.t.Helper()
	typ := ""
	for _, o := range h.ok("list_capacity", map[string]any{}).Offers {
		if typ == "" && o.Allowed && o.GPUs == 1 && len(o.Regions) > 0 {
			typ = o.Type
		}
	}
	require.NotEmpty(h.t, typ)

	h.mistakes(typ)

	l := h.ok("launch_lease", map[string]any{"type": typ, "ttl_minutes": 8, "purpose": "a test of hosts"})
	require.NotEmpty(h.t, l.Lease)
	require.Contains(h.t, string(l.Next), "get_lease")
	lease := map[string]any{"lease_id": l.Lease}
	for range 8 {
		if l.State == "ready" {
			break
		}
		l = h.ok("get_lease", map[string]any{"lease_id": l.Lease, "wait_seconds": 20})
	}
	require.Equal(h.t, "ready", l.State)
	require.NotEmpty(h.t, l.Deadline)
	require.Contains(h.t, strings.Join(l.Warnings, "\n"), "the deadline is in", "the model sees warnings")
	require.Equal(h.t, 1, h.launches(), "one call, one launch")

	r := h.ok("run_command", map[string]any{
		"lease_id": l.Lease, "command": "mkdir -p out && printf 'accuracy 0.93\n' > out/report.txt; echo heard; echo lost >&2; exit 3",
	})
	require.Equal(h.t, []any{3, "heard", "lost"}, []any{*r.ExitCode, strings.TrimSpace(r.Stdout), strings.TrimSpace(r.Stderr)})
	r = h.ok("run_command", map[string]any{"lease_id": l.Lease, "command": "seq 30000"})
	require.True(h.t, r.Truncated)
	require.EqualValues(h.t, 168894, r.Bytes)
	require.True(h.t, strings.HasPrefix(r.Stdout, "1\n2\n"), "its start")
	require.Contains(h.t, r.Stdout, "\n30000", "its end")

	f := h.ok("fetch_files", map[string]any{"lease_id": l.Lease, "paths": []string{"out"}})
	require.True(h.t, f.Complete)
	require.Equal(h.t, 1, f.Files)
	require.Equal(h.t, filepath.Join(files, l.Lease), f.Dir)
	report, err := os.ReadFile(filepath.Join(f.Dir, "out/report.txt"))
	require.NoError(h.t, err)
	require.Equal(h.t, "accuracy 0.93\n", string(report))

	for range 6 {
		if l = h.ok("stop_lease", lease); l.State == "ended" {
			break
		}
	}
	require.Equal(h.t, "ended", l.State)
	require.True(h.t, l.Confirmed)
	require.Positive(h.t, *l.Cost)
	require.Empty(h.t, h.alive(), "the cloud agrees")
	h.refused("lease_ended", "run_command", map[string]any{"lease_id": l.Lease, "command": "true"})
	require.Equal(h.t, 1, h.launches())
}

// mistakes are a quote, and what agents get wrong; nothing is launched by them.
func (h *hosted) mistakes(typ string) {
	h.t.Helper()
	quote := h.ok("launch_lease", map[string]any{"type": typ, "ttl_minutes": 8, "dry_run": true})
	require.Equal(h.t, "allow", quote.Decision)
	require.Positive(h.t, quote.Worst)
	text := h.refused("policy_denied", "launch_lease", map[string]any{"type": typ, "ttl_minutes": 6000})
	require.Contains(h.t, text, "max_ttl")
	text = h.refused("invalid_input", "launch_lease", map[string]any{"type": typ, "ttl_minute": 8})
	require.Contains(h.t, text, "ttl_minutes", "the nearest name that there is")
	h.refused("lease_not_found", "get_lease", map[string]any{"lease_id": "abcdefghijkl"})
	require.Zero(h.t, h.launches(), "nothing was launched so far")
}
