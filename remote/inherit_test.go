//go:build unix

package remote_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

// A process that was killed in the midst of a fetch leaves a part of a large file under a name of its own. The next
// fetch goes on from there, and leaves nothing behind; what a living process works on it does not touch.
func TestFetchTakesUpWhatAKilledProcessHasLeft(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p, dst, want := newPool(t, remote.Config{}), t.TempDir(), string(noise(70_000_000))
	write(t, filepath.Join(h.home, "out/large"), want)
	ctx, cancel := context.WithCancel(patient(t))
	defer cancel()
	_, err := p.Fetch(ctx, h.Target, []string{"out"}, dst, remote.FetchOptions{Progress: func(_ int, bytes int64) {
		if bytes > 8<<20 {
			cancel()
		}
	}})
	require.ErrorIs(t, err, context.Canceled)
	left := filesBelow(t, dst)
	require.Len(t, left, 1)

	killed := exec.Command("sleep", "1000")
	require.NoError(t, killed.Start())
	require.NoError(t, killed.Process.Kill())
	require.Error(t, killed.Wait())
	text, err := os.ReadFile(left[0])
	require.NoError(t, err)
	alive := fmt.Sprintf("%s-%d-7", left[0], os.Getppid())
	write(t, alive, string(text))
	write(t, fmt.Sprintf("%s-%d-8", left[0], killed.Process.Pid), string(text))
	require.NoError(t, os.Rename(left[0], fmt.Sprintf("%s-%d-9", left[0], killed.Process.Pid)))
	came := int64(0)
	_, err = p.Fetch(patient(t), h.Target, []string{"out"}, dst, remote.FetchOptions{Progress: func(_ int, bytes int64) { came = bytes }})
	require.NoError(t, err)
	require.Less(t, came, int64(len(want)), "what was there did not come again")
	require.ElementsMatch(t, []string{alive, filepath.Join(dst, "out/large")}, filesBelow(t, dst))
	got, err := os.ReadFile(filepath.Join(dst, "out/large"))
	require.NoError(t, err)
	require.True(t, string(got) == want)
}
