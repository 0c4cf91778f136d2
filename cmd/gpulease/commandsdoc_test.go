package main

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/cmd/gpulease/client"
)

// docs/commands.md has every command, each with an example.
func TestEveryCommandIsDocumented(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/commands.md")
	require.NoError(t, err)
	examples := map[string]bool{}
	for line := range strings.SplitSeq(string(b), "\n") {
		if code, indented := strings.CutPrefix(line, "    "); indented {
			if _, example, ok := strings.Cut(code+" ", "gpulease "); ok {
				examples[strings.TrimSpace(example)] = true
			}
		}
	}
	var check func(c *cobra.Command, path string)
	check = func(c *cobra.Command, path string) {
		for _, sub := range c.Commands() {
			name := strings.TrimSpace(path + " " + sub.Name())
			if sub.Hidden || sub.Name() == "help" || sub.Name() == "completion" {
				continue
			}
			check(sub, name)
			found := sub.HasSubCommands()
			for example := range examples {
				found = found || example == name || strings.HasPrefix(example, name+" ")
			}
			require.True(t, found, "docs/commands.md has no example of gpulease %s", name)
		}
	}
	check(newRoot(newSettings(nil), nil, nil, nil), "")
}

// docs/clients.md has every agent host.
func TestEveryClientIsDocumented(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/clients.md")
	require.NoError(t, err)
	for _, h := range client.Hosts {
		require.Contains(t, string(b), "`"+h.Name+"`")
	}
}
