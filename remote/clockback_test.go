//go:build unix

package remote_test

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

// The clock of this computer is set back while a call waits. The machine, which answers, is not given up for that.
func TestImpatientCallWhileTheClockIsSetBack(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	proxy := startProxy(t, h.Addr)
	target := h.Target
	target.Addr = proxy.addr
	var armed atomic.Bool
	var looks atomic.Int32
	p := newPool(t, remote.Config{Now: func() time.Time {
		if armed.Load() && looks.Add(1) > 2 { // the first two date the call
			return time.Now().Add(-time.Hour)
		}
		return time.Now()
	}})
	const id = "bbbbbbbbbbbb-cccccccc"
	_, err := p.Start(testContext(t), target, id, remote.Command{Shell: "until [ -e end ]; do sleep 0.1; done"})
	require.NoError(t, err)
	const patience = 18 * time.Second // after a sixth of it the machine is asked for a sign of life
	end := time.AfterFunc(patience/4, func() { _ = os.WriteFile(filepath.Join(h.home, "end"), nil, 0o600) })
	defer end.Stop()
	armed.Store(true)
	j, err := p.Job(remote.Impatient(testContext(t), patience), target, id, 40*time.Second)
	require.NoError(t, err)
	require.Equal(t, remote.Exited, j.State)
	require.Equal(t, 1, proxy.accepted(), "the connection was cut")
}
