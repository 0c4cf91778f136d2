package tools_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/tools"
)

func TestNearest(t *testing.T) {
	known := []string{"lease_id", "command", "wait_seconds", "timeout_seconds", "instance_type", "region", "env", "cwd"}
	for name, want := range map[string]string{
		"lease_id":     "lease_id",
		"leaseId":      "lease_id",
		"lease-id":     "lease_id",
		"lease":        "lease_id",
		"cmd":          "command",
		"comand":       "command",
		"commnad":      "command",
		"regoin":       "region",
		"type":         "instance_type",
		"instance":     "instance_type",
		"wait":         "wait_seconds",
		"timeout":      "timeout_seconds",
		"timeout_secs": "timeout_seconds",
		"environment":  "env",
		"ewd":          "cwd",
		"id":           "",
		"gpu":          "",
		"":             "",
		"_":            "",
	} {
		require.Equal(t, want, tools.Nearest(name, known), "nearest to %q", name)
	}
	require.Empty(t, tools.Nearest("x", nil))
}
