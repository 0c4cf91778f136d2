//go:build unix

package remote_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

// GNU grep takes gigabytes of memory for some patterns, and all there is for others, before it reads anything. It is bounded, and
// what it has no room for is refused, as is what takes it too long.
func TestSearchTakesNoMoreMemoryThanItMay(t *testing.T) {
	t.Parallel()
	onEachShell(t, func(t *testing.T, h *host, shell string) {
		if shell == "busybox" {
			return // its grep tells no offsets
		}
		p, ctx := newPool(t, remote.Config{}), testContext(t)
		const id = "bbbbbbbbbbbb-cccccccc"
		_, _, _, err := p.Run(ctx, h.Target, id, remote.Command{Shell: "echo found"}, wait, 0, 0)
		require.NoError(t, err)
		f, err := p.Search(ctx, h.Target, id, remote.Stdout, remote.Search{Pattern: "f.*d"})
		require.NoError(t, err)
		require.Len(t, f.Snippets, 1)
		h.shim(t, "grep", `#!/bin/sh
case "$*" in
*greedy*) [ "$(ulimit -v)" = unlimited ] || { echo "grep: memory exhausted" >&2; exit 2; } ;;
*slow*) exit 124 ;; # as timeout does
esac
exit 0
`)
		for pattern, says := range map[string]string{"greedy": "memory exhausted", "slow": "it takes too long"} {
			_, err = p.Search(ctx, h.Target, id, remote.Stdout, remote.Search{Pattern: pattern})
			require.ErrorIs(t, err, remote.ErrInvalid)
			require.ErrorContains(t, err, says)
		}
	})
}
