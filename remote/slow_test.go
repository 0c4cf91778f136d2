//go:build unix

package remote_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

// Over a slow connection a push that has only a moment each time comes to its end all the same: each one leaves
// something in its place.
func TestPushInManyCalls(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, target remote.Target, home string, weather *proxy) {
		src, want := t.TempDir(), map[string]string{}
		for i := range 180 {
			name := fmt.Sprintf("d%d/f%d", i%7, i)
			want[name] = string(noise(100_000 + i))
			write(t, filepath.Join(src, name), want[name])
		}
		weather.rate.Store(4_000_000)
		calls := 0
		for done := false; !done; calls++ {
			require.Less(t, calls, 12, "it does not get on")
			p := newPool(t, remote.Config{})
			require.NoError(t, p.Check(patient(t), target))
			ctx, cancel := context.WithTimeout(patient(t), 4*time.Second)
			_, err := p.Push(ctx, target, src, "dst", remote.PushOptions{})
			cancel()
			require.NoError(t, p.Close()) // nor does what is still on its way hold up the next one
			if done = err == nil; !done {
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}
		}
		require.Greater(t, calls, 1)
		require.Equal(t, want, contents(t, filepath.Join(home, "dst")))
	})
}
