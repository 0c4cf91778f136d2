package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

type pkg struct {
	ImportPath string
	Doc        string
	Imports    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Doc,Imports", ourModule+"/...").Output()
	require.NoError(t, err)
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p pkg
		require.NoError(t, d.Decode(&p))
		all = append(all, p)
	}
	return all
}

// Imports run one way: cmd to server to tools to lease; lambda, remote and
// policy are leaves.
func TestImportsRunOneWay(t *testing.T) {
	may := map[string][]string{
		"policy":                    {},
		"lambda":                    {},
		"remote":                    {},
		"lambda/lambdatest/machine": {},
		"lambda/lambdatest":         {"lambda/lambdatest/machine"},
		"lease":                     {"policy", "lambda", "remote"},
		"ledger":                    {"lease", "policy", "lambda"},
		"tools/testreport":          {},
		"tools":                     {"lease", "policy", "remote", "tools/testreport"},
		"server":                    {"tools", "lease"},
	}
	const mcpGo = "github.com/mark3labs/mcp-go/"
	seen := 0
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, ourModule+"/")
		allowed, ruled := may[name]
		if !ruled {
			continue
		}
		seen++
		for _, i := range p.Imports {
			if ours, ok := strings.CutPrefix(i, ourModule+"/"); ok {
				require.True(t, slices.Contains(allowed, ours), "%s imports %s", name, ours)
			}
			require.True(t, name == "server" || !strings.HasPrefix(i, mcpGo), "%s imports mcp-go, which is package server's alone", name)
		}
	}
	require.Equal(t, len(may), seen)
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		require.NotEmpty(t, p.Doc, "%s has no package comment", p.ImportPath)
		require.NotContains(t, p.Doc, "Copyright")
	}
}
