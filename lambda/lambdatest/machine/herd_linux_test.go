package machine_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/gpulease/gpulease/lambda/lambdatest/machine"
)

// stubborn starts processes of each kind that outlives a careless end, and keeps
// their ids in the file "pids": a plain one, one in a session of its own, one that
// has been forked twice, one that ignores what can be ignored, and one that has
// dropped its environment.
const stubborn = `
spawn='echo $$ >>pids; exec sleep 600'
sh -c "$spawn" &
setsid sh -c "$spawn" &
(setsid sh -c "(sh -c '$spawn' &)" &)
setsid sh -c 'trap "" TERM INT HUP; echo $$ >>pids; while :; do sleep 1; done' &
env -i sh -c "$spawn" &
while [ "$(wc -l <pids)" -lt 5 ]; do sleep 0.01; done 2>/dev/null
`

// lives reports whether there is a process that is not a zombie.
func lives(pid string) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func (h *host) pids(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(h.Home(), "pids"))
	require.NoError(t, err)
	return strings.Fields(string(text))
}

func TestCloseEndsEveryProcess(t *testing.T) {
	h, bystander := start(t), start(t)
	beside := startCommand(t, bystander.dial(t), "echo ready; cat; echo done")
	for name, command := range map[string]string{"Ended": stubborn + ">/dev/null 2>&1", "Running": stubborn + "sleep 600"} {
		s, err := h.dial(t).NewSession()
		require.NoError(t, err)
		require.NoError(t, s.Start("rm -f pids.seen; ("+command+")"), name)
	}
	eventually(t, "ten processes", func() bool {
		text, _ := os.ReadFile(filepath.Join(h.Home(), "pids"))
		return len(strings.Fields(string(text))) == 10
	})
	pids := h.pids(t)
	for _, pid := range pids {
		require.True(t, lives(pid), pid)
		require.Contains(t, fmt.Sprint(h.Processes()), pid)
	}
	require.NoError(t, h.Close())
	for _, pid := range pids {
		require.False(t, lives(pid), pid)
	}
	require.Empty(t, h.Processes())
	// Nothing of another machine was touched.
	require.Equal(t, result{stdout: "done\n"}, beside())
}

// startCommand starts a command that prints a line when it is ready; the function
// that it returns ends the command's input and waits for its end.
func startCommand(t *testing.T, c *ssh.Client, command string) func() result {
	t.Helper()
	ch, requests := channel(t, c)
	require.True(t, ask(t, ch, "exec", command))
	buf := make([]byte, len("ready\n"))
	_, err := ch.Read(buf)
	require.NoError(t, err)
	return func() result {
		require.NoError(t, ch.CloseWrite())
		r := result{}
		var b strings.Builder
		for {
			n, err := ch.Read(buf)
			b.Write(buf[:n])
			if err != nil {
				break
			}
		}
		r.stdout = b.String()
		for q := range requests {
			if q.Type == "exit-status" {
				r.code = int(q.Payload[3])
			}
		}
		return r
	}
}

func TestEndProcesses(t *testing.T) {
	h := start(t)
	c := h.dial(t)
	require.Zero(t, run(t, c, "("+stubborn+") >/dev/null 2>&1", nil).code)
	require.NoError(t, h.EndProcesses(t.Context()))
	require.Empty(t, h.Processes())
	require.Equal(t, "still here\n", run(t, c, "echo still here", nil).stdout, "the connection and the files stay")
	require.FileExists(t, filepath.Join(h.Home(), "pids"))
}

// TestForkBomb: what breeds faster than one look takes is ended all the same.
func TestForkBomb(t *testing.T) {
	h := start(t)
	s, err := h.dial(t).NewSession()
	require.NoError(t, err)
	require.NoError(t, s.Start(`
breed() { n=$1; while [ "$n" -lt 200 ]; do n=$((n + 1)); (setsid sleep 600 &); done; }
breed 0 & wait`))
	eventually(t, "many processes", func() bool { return len(h.Processes()) > 30 })
	require.NoError(t, h.Close())
	require.Empty(t, h.Processes())
}

func TestSweep(t *testing.T) {
	id := "swept"
	own := func(id string) *exec.Cmd {
		cmd := exec.Command("sleep", "600")
		cmd.Env = []string{machine.Mark + "=" + id}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		require.NoError(t, cmd.Start())
		return cmd
	}
	gone, other := own(id), own(id+"2")
	require.NoError(t, machine.Sweep(t.Context(), id))
	require.ErrorContains(t, gone.Wait(), "killed")
	require.True(t, lives(fmt.Sprint(other.Process.Pid)), "an ID that begins alike is another machine")
	require.NoError(t, machine.Sweep(t.Context(), id+"2"))
	require.ErrorContains(t, other.Wait(), "killed")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	third := own("third")
	require.ErrorIs(t, machine.Sweep(ctx, "third"), context.Canceled)
	_ = third.Process.Kill()
	_ = third.Wait()
}

// TestTakeUp: the simulator has died, and another takes the machine up again.
func TestTakeUp(t *testing.T) {
	dir, given := filepath.Join(t.TempDir(), "machine"), newKey(t)
	change := func(c *machine.Config) {
		c.ID, c.Dir = "left", dir
		c.UserData = cloudConfig(given, "runcmd:\n- echo once >>log\n")
	}
	first := start(t, change)
	eventually(t, "cloud-init", first.CloudInitDone)
	require.Zero(t, first.run(t, "(setsid sleep 600 >/dev/null 2>&1 & echo $! >pids)").code)
	pid := first.pids(t)[0]

	first.SetRefuse(true) // as dead as it gets in one process
	second := start(t, change)
	require.True(t, second.CloudInitDone())
	require.Equal(t, given.signer.PublicKey(), second.HostKey())
	require.False(t, lives(pid), "what the first has left running is ended")
	require.Equal(t, "once\n", second.run(t, "cat log").stdout)
	_, err := connect(second.Addr(), first.config())
	require.NoError(t, err, "keys of before let in still")

	_, err = machine.Start(t.Context(), machine.Config{ID: "other", Dir: dir})
	require.ErrorContains(t, err, "belongs to another machine")
	_, err = machine.Start(t.Context(), machine.Config{ID: "left", Dir: dir, Addr: second.Addr()})
	require.ErrorContains(t, err, "in use")
	require.FileExists(t, filepath.Join(second.Home(), "log"), "a start that goes wrong takes nothing away")
}

// TestCloseWhileBusy closes a machine under clients in full flow.
func TestCloseWhileBusy(t *testing.T) {
	h := start(t)
	for range 5 {
		c := h.dial(t)
		for range 5 {
			s, err := c.NewSession()
			require.NoError(t, err)
			require.NoError(t, s.Start("while :; do sh -c 'yes | head -c 100000'; done"))
		}
	}
	began := time.Now()
	require.NoError(t, h.Close())
	require.Less(t, time.Since(began), 10*time.Second)
}
