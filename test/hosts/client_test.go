//go:build unix

package hosts

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The official TypeScript client takes the loop in both eras, over every transport that there is.
func TestTypeScriptClient(t *testing.T) {
	t.Parallel()
	const legacy, newest = "2025-11-25", "2026-07-28"
	modes := map[string]string{legacy: "legacy", newest: "auto"}
	for revision, mode := range modes {
		t.Run(revision+" over stdio", func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.typeScript(s.project, mode, revision, s.program, "serve")
		})
	}
	for _, tt := range []struct{ revision, path string }{{legacy, "/mcp"}, {newest, "/mcp"}, {legacy, "/sse"}} {
		t.Run(tt.revision+" over HTTP at "+tt.path, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			url, token, files := s.web("ts")
			s.typeScript(files, modes[tt.revision], tt.revision, strings.TrimSuffix(url, "/mcp")+tt.path, token)
		})
	}
}

// typeScript runs the client on a server. dir is where files may be sent from.
func (s *stage) typeScript(dir, mode, revision string, server ...string) {
	s.t.Helper()
	script, err := filepath.Abs("client.mjs")
	require.NoError(s.t, err)
	s.env = append(s.env, installed+"="+s.npm)
	said := s.run(filepath.Join(s.npm, "node_modules/node/bin/node"), append([]string{script, dir, mode}, server...)...)
	s.t.Log(strings.ReplaceAll(said, "\n", "; "))
	require.Contains(s.t, said, "revision "+revision+"\n")
	require.Equal(s.t, 1, s.launches())
	require.Empty(s.t, s.alive())
}
