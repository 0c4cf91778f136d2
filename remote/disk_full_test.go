//go:build unix

package remote_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

// withSmallTemporary runs a test on machines whose temporary files are on a disk of 4 MiB.
func withSmallTemporary(t *testing.T, f func(t *testing.T, h *host, tmp string)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a small disk")
	}
	onEachShell(t, func(t *testing.T, h *host, _ string) {
		tmp := filepath.Join(h.home, "small")
		smallDisk(t, tmp)
		h.shim(t, "mktemp", "#!/bin/sh\nd=${TMPDIR:-"+tmp+"}/gpulease-test.$$\ncase $* in -d) mkdir \"$d\" ;; *) : >\"$d\" ;; esac && echo \"$d\"\n")
		f(t, h, tmp)
	})
}

// The list of what is to come does not fit on the machine's disk: half of it would look like all there is.
func TestFetchFromAFullDisk(t *testing.T) {
	t.Parallel()
	withSmallTemporary(t, func(t *testing.T, h *host, tmp string) {
		const many = 300
		name := func(i int) string { return fmt.Sprintf("out/%03d%s", i, strings.Repeat("n", 200)) }
		for i := range many {
			write(t, filepath.Join(h.home, name(i)), "x")
		}
		p, ctx := newPool(t, remote.Config{}), testContext(t)
		sum, err := p.Fetch(ctx, h.Target, []string{"out"}, t.TempDir(), remote.FetchOptions{})
		require.NoError(t, err)
		require.Len(t, sum.Files, many)
		for _, free := range []int64{0, 4 << 10, 16 << 10, 64 << 10, 100 << 10, 200 << 10} {
			fill := filepath.Join(tmp, "fill")
			write(t, fill, string(pattern(4<<20-int(free)-8<<10)))
			sum, err := p.Fetch(ctx, h.Target, []string{"out"}, t.TempDir(), remote.FetchOptions{})
			require.NoError(t, err)
			require.Len(t, sum.Files, many, "with %d bytes free", free)
			require.NoError(t, os.Remove(fill))
		}
	})
}

// What has changed on the machine is not taken for unchanged because its hash could not be written down.
func TestPushWithFullTemporaryDisk(t *testing.T) {
	t.Parallel()
	withSmallTemporary(t, func(t *testing.T, h *host, tmp string) {
		src := t.TempDir()
		for i := range 300 {
			write(t, filepath.Join(src, fmt.Sprintf("%03d%s", i, strings.Repeat("n", 60))), "x")
		}
		p, ctx := newPool(t, remote.Config{}), testContext(t)
		_, err := p.Push(ctx, h.Target, src, "there", remote.PushOptions{})
		require.NoError(t, err)
		last := filepath.Join(h.home, "there", "299"+strings.Repeat("n", 60))
		failed := 0
		for _, free := range []int64{28 << 10, 44 << 10, 60 << 10, 76 << 10, 92 << 10, 200 << 10} {
			require.NoError(t, os.WriteFile(last, []byte("y"), 0o600))
			fill := filepath.Join(tmp, "fill")
			write(t, fill, string(pattern(4<<20-int(free)-8<<10)))
			_, err := p.Push(ctx, h.Target, src, "there", remote.PushOptions{})
			if err == nil {
				text, err := os.ReadFile(last)
				require.NoError(t, err)
				require.Equal(t, "x", string(text), "with %d bytes free", free)
			} else {
				require.ErrorIs(t, err, remote.ErrStorage)
				failed++
			}
			require.NoError(t, os.Remove(fill))
		}
		require.NotZero(t, failed)
	})
}
