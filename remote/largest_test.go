//go:build unix

package remote_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

// The last part of a large file has a single byte, of which dd does not say "bytes". That of busybox may say nothing at all.
func TestLargeFileWhoseLastPartIsOneByte(t *testing.T) {
	t.Parallel()
	onEachShell(t, func(t *testing.T, h *host, _ string) {
		src, want := t.TempDir(), string(noise(16<<20+1))
		write(t, filepath.Join(src, "large"), want)
		_, err := newPool(t, remote.Config{}).Push(patient(t), h.Target, src, "dst", remote.PushOptions{})
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(h.home, "dst/large"))
		require.NoError(t, err)
		require.True(t, string(got) == want)
	})
}

// A large file changes after it was compared with what the machine has. What is sent is what it is then.
func TestLargeFileThatChangesAfterItWasCompared(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	src := t.TempDir()
	p := newPool(t, remote.Config{Now: func() time.Time { return time.Now().Add(time.Hour) }}) // its hash is remembered at once
	write(t, filepath.Join(src, "large"), string(noise(17<<20)))
	write(t, filepath.Join(src, "small"), "1")
	_, err := p.Push(patient(t), h.Target, src, "dst", remote.PushOptions{})
	require.NoError(t, err)
	want, sent := string(noise(17<<20+3)), 0
	write(t, filepath.Join(src, "large"), string(noise(17<<20+2)))
	write(t, filepath.Join(src, "small"), "2")
	_, err = p.Push(patient(t), h.Target, src, "dst", remote.PushOptions{Progress: func(files int, _ int64) {
		if sent++; sent == 1 { // the small one goes first
			write(t, filepath.Join(src, "large"), want)
		}
	}})
	require.NoError(t, err)
	got, err := os.ReadFile(filepath.Join(h.home, "dst/large"))
	require.NoError(t, err)
	require.True(t, string(got) == want)
}
