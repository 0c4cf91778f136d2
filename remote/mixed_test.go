//go:build unix

package remote_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

func TestMixed(t *testing.T) {
	t.Parallel()
	onEachShell(t, func(t *testing.T, h *host, shell string) {
		p, id := newPool(t, remote.Config{}), "job-mixed-"+shell
		ctx := testContext(t)
		_, err := p.Start(ctx, h.Target, id, remote.Command{Shell: "echo one; sleep 0.5; echo two >&2; sleep 0.5; echo three; until [ -e go ]; do sleep 0.02; done; echo four >&2"})
		require.NoError(t, err)

		// What is read while it goes on is in the order of writing, and the offsets go on to the end.
		text, offset := "", int64(0)
		for range 100 {
			m, err := p.Mixed(ctx, h.Target, id, offset, 7, wait)
			require.NoError(t, err)
			require.Equal(t, offset, m.Offset)
			text += joined(m)
			offset = m.NextOffset
			if m.EOF {
				break
			}
			if strings.HasSuffix(text, "three\n") {
				require.NoError(t, os.WriteFile(filepath.Join(h.home, "go"), nil, 0o600))
			}
		}
		require.Equal(t, "one\ntwo\nthree\nfour\n", text)

		m, err := p.Mixed(ctx, h.Target, id, -11, 100, 0)
		require.NoError(t, err)
		require.Equal(t, "three\nfour\n", joined(m))
		require.Equal(t, []remote.Stream{remote.Stdout, remote.Stderr}, []remote.Stream{m.Chunks[0].Stream, m.Chunks[1].Stream})
		require.Equal(t, int64(19), m.Size)
		m, err = p.Mixed(ctx, h.Target, id, 1000, 0, wait)
		require.NoError(t, err)
		require.True(t, m.EOF)
		require.Empty(t, m.Chunks)
		_, err = p.Mixed(ctx, h.Target, id+"-none", 0, 0, 0)
		require.ErrorIs(t, err, remote.ErrJobNotFound)
	})
}

func joined(m remote.Mixed) string {
	var b strings.Builder
	for _, c := range m.Chunks {
		b.Write(c.Data)
	}
	return b.String()
}
