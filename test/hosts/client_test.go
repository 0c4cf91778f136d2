//go:build unix

package hosts

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The official TypeScript client takes the loop in both eras, over both transports.
func TestTypeScriptClient(t *testing.T) {
	t.Parallel()
	for mode, revision := range map[string]string{"legacy": "2025-11-25", "auto": "2026-07-28"} {
		t.Run(revision+" over stdio", func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.typeScript(mode, revision, s.program, "serve")
		})
		t.Run(revision+" over HTTP", func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			token := strings.TrimSpace(s.run(s.program, "token", "create", "ts"))
			var ready struct {
				URL string `json:"url"`
			}
			s.daemon(&ready, s.env, s.program, "serve", "--transport", "http", "--listen", "127.0.0.1:0")
			s.typeScript(mode, revision, ready.URL, token)
		})
	}
}

func (s *stage) typeScript(mode, revision string, server ...string) {
	s.t.Helper()
	script, err := filepath.Abs("client.mjs")
	require.NoError(s.t, err)
	s.env = append(s.env, installed+"="+s.npm)
	said := s.run(filepath.Join(s.npm, "node_modules/node/bin/node"), append([]string{script, mode}, server...)...)
	s.t.Log(strings.ReplaceAll(said, "\n", "; "))
	require.Contains(s.t, said, "revision "+revision+"\n")
	require.Equal(s.t, 1, s.launches())
	require.Empty(s.t, s.alive())
}
