//go:build unix

package remote_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

// To compress takes longer than to carry in the same network, and the reverse far away.
func TestFilesAreCompressedForAFarMachineOnly(t *testing.T) {
	t.Parallel()
	const size = 3 << 20
	for name, near := range map[string]time.Duration{"near": time.Hour, "far": -1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := startHost(t)
			way := startProxy(t, h.Addr)
			target := h.Target
			target.Addr = way.addr
			p, ctx, src, dst := newPool(t, remote.Config{Near: near}), patient(t), t.TempDir(), t.TempDir()
			text := strings.Repeat("compresses well\n", size/16)
			write(t, filepath.Join(src, "text"), text)
			write(t, filepath.Join(h.home, "out/text"), text)
			up := func(i int) int64 {
				before := way.passed.Load()
				_, err := p.Push(ctx, target, src, fmt.Sprintf("dst%d", i), remote.PushOptions{})
				require.NoError(t, err)
				return way.passed.Load() - before
			}
			carried := up(0)
			for i := 1; near > 0 && carried < size && ctx.Err() == nil; i++ {
				carried = up(i) // how near it is is known a moment after the connection
			}
			before := way.passed.Load()
			_, err := p.Fetch(ctx, target, []string{"out"}, dst, remote.FetchOptions{})
			require.NoError(t, err)
			require.Equal(t, map[string]string{"out/text": text}, contents(t, dst))
			fetched := way.passed.Load() - before
			if near > 0 {
				require.GreaterOrEqual(t, carried, int64(size))
				require.GreaterOrEqual(t, fetched, int64(size))
			} else {
				require.Less(t, carried, int64(size/4))
				require.Less(t, fetched, int64(size/4))
			}
		})
	}
}
