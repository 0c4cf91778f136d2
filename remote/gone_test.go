//go:build unix

package remote_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

// A fetch and a push are given up while the machine reads a large file for its hash. Nothing of them runs on there, where it
// would take the machine's processors, and the connection's sessions from what comes next.
func TestWhatIsGivenUpEndsOnTheMachine(t *testing.T) {
	t.Parallel()
	onEachShell(t, func(t *testing.T, h *host, _ string) {
		p := newPool(t, remote.Config{})
		write(t, filepath.Join(h.home, "dst/large"), "")
		require.NoError(t, os.Truncate(filepath.Join(h.home, "dst/large"), 400<<30)) // takes no room, and minutes to read
		src := t.TempDir()
		write(t, filepath.Join(src, "large"), "small here")
		for name, begin := range map[string]func(context.Context) error{
			"fetch": func(ctx context.Context) error {
				_, err := p.Fetch(ctx, h.Target, []string{"dst"}, t.TempDir(), remote.FetchOptions{MaxBytes: -1})
				return err
			},
			"push": func(ctx context.Context) error {
				_, err := p.Push(ctx, h.Target, src, "dst", remote.PushOptions{})
				return err
			},
		} {
			ctx, cancel := context.WithCancel(patient(t))
			ended := make(chan error, 1)
			go func() { ended <- begin(ctx) }()
			require.Eventually(t, func() bool { return h.runs("sha256") }, 30*time.Second, 20*time.Millisecond, name)
			cancel()
			require.ErrorIs(t, <-ended, context.Canceled)
			require.Eventually(t, func() bool { return !h.runs("sha256") && !h.runs("/files-") }, 30*time.Second, 20*time.Millisecond, name)
		}
	})
}

// runs reports whether the machine has a process with such a command line, and has had it for a moment.
func (h *host) runs(what string) bool {
	for _, pid := range marked(h.mark) {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		info, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
		if err == nil && strings.Contains(string(line), what) && time.Since(info.ModTime()) > 100*time.Millisecond {
			return true
		}
	}
	return false
}
