package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/gpulease/gpulease/lambda/lambdatest"
)

// terminal is a pair of a person's keyboard and a process's standard input.
func terminal(t *testing.T) (keyboard, stdin *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = keyboard.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	stdin, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = stdin.Close() })
	return keyboard, stdin
}

// At a terminal a person is asked; only a clear yes counts.
func TestAPersonIsAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	w.under("approve_above: 0\n")
	h := w.host()
	id := h.ok("launch_lease", map[string]any{"type": testType}).Lease
	for _, c := range []struct {
		answer string
		code   int
		says   string
	}{
		{"\n", 1, "not confirmed; nothing was done"},
		{"no\n", 1, "not confirmed; nothing was done"},
		{"yes please\n", 1, "not confirmed; nothing was done"},
		{"\x04", 1, "not confirmed; nothing was done"}, // end of input
		{"Y\n", 0, id + ": approved by "},
	} {
		keyboard, stdin := terminal(t)
		_, err := io.WriteString(keyboard, c.answer)
		require.NoError(t, err)
		cmd := w.program("approve", id)
		cmd.Stdin = stdin
		out, _ := cmd.CombinedOutput()
		require.Equal(t, c.code, cmd.ProcessState.ExitCode(), "%q: %s", c.answer, out)
		require.Contains(t, string(out), "approve it? [y/N] ", "%q", c.answer)
		require.Contains(t, string(out), c.says, "%q", c.answer)
		if c.code != 0 {
			require.Equal(t, "awaiting_approval", h.ok("get_lease", map[string]any{"lease_id": id}).State)
		}
	}
	h.until(id, "ready")
	require.True(t, strings.HasPrefix(w.stop(h, id).State, "ended"))
}
