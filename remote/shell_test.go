//go:build unix

package remote_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

func TestShell(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, target remote.Target, home string, _ *proxy) {
		p, ctx := newPool(t, remote.Config{}), testContext(t)
		var out, errs bytes.Buffer
		status, err := p.Shell(ctx, target, remote.Shell{Command: "cat; echo err >&2; exit 7", Stdin: strings.NewReader("in"), Stdout: &out, Stderr: &errs})
		require.NoError(t, err)
		require.Equal(t, 7, status)
		require.Equal(t, "in", out.String())
		require.Equal(t, "err\n", errs.String())

		out.Reset()
		status, err = p.Shell(ctx, target, remote.Shell{Stdin: strings.NewReader("cd /; pwd; exit 3\n"), Stdout: &out})
		require.NoError(t, err)
		require.Equal(t, 3, status, "a login shell")
		require.Contains(t, out.String(), "/\n")

		out.Reset()
		status, err = p.Shell(ctx, target, remote.Shell{Command: "yes | head -c 5000000; kill -TERM $$", Stdout: brokenPipe{}})
		require.NoError(t, err, "a reader that has gone does not stop it")
		require.Equal(t, 128+15, status)

		brief, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		_, err = p.Shell(brief, target, remote.Shell{Command: "sleep 100"})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		wrong := target
		wrong.Key, wrong.HostKey = "wrong", newSigner(t).PublicKey()
		_, err = p.Shell(ctx, wrong, remote.Shell{Command: "true"})
		require.ErrorIs(t, err, remote.ErrHostKey)
	})
}

func TestShellWithATerminal(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	var out bytes.Buffer
	status, err := newPool(t, remote.Config{}).Shell(testContext(t), h.Target, remote.Shell{
		Command: "tty -s && stty size && echo $TERM", Stdout: &out, Terminal: "vt100", Width: 70, Height: 20,
	})
	require.NoError(t, err)
	require.Zero(t, status)
	require.Equal(t, "20 70\r\nvt100\r\n", out.String())
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
