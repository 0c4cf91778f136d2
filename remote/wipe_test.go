//go:build unix

package remote_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

// A job may take away what is noted of it, and that it was started with it. It is not started again for that, nor is it said
// that it was not started.
func TestJobThatRemovesItsRecords(t *testing.T) {
	t.Parallel()
	onEachShell(t, func(t *testing.T, h *host, shell string) {
		began := 0
		run := func(way string, c remote.Command) {
			for _, removed := range []string{"~/.gpulease", "~/.gpulease/jobs", "~/.gpulease/jobs/job-*/claim"} {
				p := newPool(t, remote.Config{}) // which has no ready shell yet
				if way == "ready" {
					untilReady(t, p, h, h.Target)
				}
				c.Shell = "echo >>ran; rm -rf " + removed + "; exit 5"
				began++
				_, _, _, err := p.Run(testContext(t), h.Target, fmt.Sprintf("job-wipes-%s-%d", way, began), c, wait, 0, 0)
				require.ErrorIs(t, err, remote.ErrMachine, "%s, %s", way, removed)
				require.NotErrorIs(t, err, remote.ErrStorage)
				require.Equal(t, began, ran(t, h), "%s, %s", way, removed)
				require.NoError(t, p.Close())
				require.Eventually(t, func() bool { return len(readyShells(h)) == 0 }, 20*time.Second, 5*time.Millisecond, "its watch is left")
			}
		}
		run("brief", remote.Command{Env: map[string]string{"A": "b"}})
		run("long", remote.Command{Stdin: []byte("x")})
		if shell != "busybox" {
			run("ready", remote.Command{})
		}
	})
}
