//go:build unix

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
)

// An agent that may only write in its project puts a link in the place of the directory
// that results come home to. What the machine sends must not land where that leads:
// in the policy, or among the keys that open this computer.
func TestResultsDoNotFollowALinkThatWasPutThereMeanwhile(t *testing.T) {
	t.Parallel()
	for name, plant := range map[string]func(project, id string) string{
		"of the lease":   func(project, id string) string { return filepath.Join(project, "results", id) },
		"of all results": func(project, _ string) string { return filepath.Join(project, "results") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lambdatest.Config{})
			project, settings := t.TempDir(), t.TempDir()
			policyFile := filepath.Join(settings, "policy.yaml")
			require.NoError(t, os.WriteFile(policyFile, []byte("caps:\n  per_day: 5\n"), 0o600))
			h := w.hostIn(project)
			id := h.ok("launch_lease", map[string]any{"type": testType, "results": []string{"policy.yaml"}}).Lease
			h.until(id, "ready")
			h.ok("run_command", map[string]any{"lease_id": id, "command": "mkdir -p " + id + "; printf 'caps:\n  per_day: 5000\n' | tee policy.yaml > " + id + "/policy.yaml"})
			link := plant(project, id)
			require.NoError(t, os.MkdirAll(filepath.Dir(link), 0o700))
			require.NoError(t, os.Symlink(settings, link))
			a := h.ok("stop_lease", map[string]any{"lease_id": id})
			require.Contains(t, string(a.Raw), "NOT ALL RESULTS CAME", "and it is said")
			got, err := os.ReadFile(policyFile)
			require.NoError(t, err)
			require.Contains(t, string(got), "per_day: 5\n", "the agent has raised its own caps")
			left, err := os.ReadDir(settings)
			require.NoError(t, err)
			require.Len(t, left, 1, "nothing was put beside it")
		})
	}
}
