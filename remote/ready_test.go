//go:build unix

package remote_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

// readyShells are the shells on the machine that wait for a job, or have started one.
func readyShells(h *host) []int {
	var pids []int
	for _, pid := range marked(h.mark) {
		words, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && string(words) == "sh\x00-s\x00" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// untilReady runs a job, behind which a shell is made ready, and waits until that has read all that it needs. On a slow machine
// one may have to give way, so that it takes another job.
func untilReady(t *testing.T, p *remote.Pool, h *host, target remote.Target) int {
	t.Helper()
	for range 8 {
		_, _, _, err := p.Run(testContext(t), target, fmt.Sprintf("job-first-%d", time.Now().UnixNano()), remote.Command{Shell: "true"}, wait, 0, 0)
		require.NoError(t, err)
		for deadline := time.Now().Add(8 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if found := readyShells(h); len(found) == 1 && waits(h, found[0]) {
				return found[0]
			}
		}
	}
	require.FailNow(t, "no shell is made ready")
	return 0
}

// waits reports whether a shell waits for input in its read, with no child left.
func waits(h *host, pid int) bool {
	call, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	home, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	return err == nil && bytes.HasPrefix(call, []byte("0 0x0 ")) && len(children) == 0 && home == h.home
}

// supervisor is the process that has started a job.
func supervisor(t *testing.T, h *host, jobID string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(h.home, ".gpulease/jobs", jobID, "pid"))
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.Fields(string(text))[0])
	require.NoError(t, err)
	return pid
}

// readyOn runs a test on a machine of each kind of shell that has a shell ready.
func readyOn(t *testing.T, f func(t *testing.T, p *remote.Pool, h *host, pid int)) {
	t.Helper()
	onEachShell(t, func(t *testing.T, h *host, shell string) {
		if shell == "busybox" { // its own setsid knows no -f
			setsid, err := exec.LookPath("setsid")
			require.NoError(t, err)
			h.unshim(t, "setsid")
			require.NoError(t, os.Symlink(setsid, filepath.Join(h.bin, "setsid")))
		}
		p := newPool(t, remote.Config{})
		f(t, p, h, untilReady(t, p, h, h.Target))
	})
}

func TestReadyShellStartsJobs(t *testing.T) {
	t.Parallel()
	readyOn(t, func(t *testing.T, p *remote.Pool, h *host, pid int) {
		ctx := testContext(t)
		require.NoError(t, os.MkdirAll(filepath.Join(h.home, "pro ject's"), 0o755))
		for i, tt := range []struct {
			command        remote.Command
			code           int
			signal         string
			stdout, stderr string
		}{
			{remote.Command{Shell: "echo out; echo err >&2; exit 7"}, 7, "", "out\n", "err\n"},
			{remote.Command{Shell: `printf '\001\000\377\n\n'`}, 0, "", "\x01\x00\xff\n\n", ""},
			{remote.Command{Shell: "kill -SEGV $$"}, 139, "SIGSEGV", "", ""},
			{remote.Command{Shell: "kill -INT $$"}, 130, "SIGINT", "", ""},
			{remote.Command{Shell: "kill -PIPE $$"}, 141, "SIGPIPE", "", ""},
			{remote.Command{Shell: "pwd; cat", Dir: "~/pro ject's"}, 0, "", h.home + "/pro ject's\n", ""},
			{remote.Command{Argv: []string{"printf", "%s|", "a b", "$HOME", "it's", "", "\n"}}, 0, "", "a b|$HOME|it's||\n|", ""},
			{remote.Command{Shell: `printf %s "$A$B"`, Env: map[string]string{"A": "it's\n$x", "B": "`"}}, 0, "", "it's\n$x`", ""},
			{remote.Command{Shell: "umask; env | grep ^gl_; for n in 3 4 5 6 7 8 9 10 11; do [ ! -e /proc/$$/fd/$n ] || echo $n; done"}, 0, "", "0022\n", ""},
			{remote.Command{Shell: "env | grep ^GPULEASE_JOB_ID="}, 0, "", "GPULEASE_JOB_ID=job-by-ready-9\n", ""},
		} {
			id := fmt.Sprintf("job-by-ready-%d", i)
			before := time.Now()
			job, stdout, stderr, err := p.Run(ctx, h.Target, id, tt.command, wait, 1000, 1000)
			require.NoError(t, err)
			require.Equal(t, pid, supervisor(t, h, id), "the ready shell has started it")
			require.Equal(t, tt.code, job.ExitCode, string(stderr.Head))
			require.Equal(t, tt.signal, job.Signal)
			require.Equal(t, tt.stdout, string(stdout.Head))
			require.Equal(t, tt.stderr, string(stderr.Head))
			require.WithinRange(t, job.Started, before.Add(-time.Second), job.Ended)
			require.WithinRange(t, job.Ended, job.Started, time.Now().Add(time.Second))
			again, err := p.Job(ctx, h.Target, id, 0)
			require.NoError(t, err)
			require.Equal(t, job, again)
			pid = untilReady(t, p, h, h.Target)
		}
	})
}

// The wait ends before the job does: the session is free again, and the job goes on.
func TestReadyShellOfALongJob(t *testing.T) {
	t.Parallel()
	readyOn(t, func(t *testing.T, p *remote.Pool, h *host, pid int) {
		ctx := testContext(t)
		const id = "job-ready-long"
		job, stdout, _, err := p.Run(ctx, h.Target, id, remote.Command{Shell: "echo begun; until [ -e go ]; do sleep 0.02; done; echo done"}, 300*time.Millisecond, 100, 0)
		require.NoError(t, err)
		require.Equal(t, remote.Running, job.State)
		require.Equal(t, "begun\n", string(stdout.Head))
		require.Equal(t, pid, supervisor(t, h, id))
		require.NoError(t, p.Close())
		const parent = "read -r gl_i" // in the arguments of who has started the shell
		require.Eventually(t, func() bool {
			for _, other := range marked(h.mark) {
				words, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", other))
				if strings.Contains(string(words), parent) {
					return false
				}
			}
			return true
		}, 20*time.Second, 5*time.Millisecond, "the session is held")
		require.NoError(t, os.WriteFile(filepath.Join(h.home, "go"), nil, 0o600))
		p = newPool(t, remote.Config{})
		job, err = p.Job(ctx, h.Target, id, wait)
		require.NoError(t, err)
		require.Equal(t, remote.Exited, job.State)
		require.Equal(t, int64(len("begun\ndone\n")), job.StdoutBytes)
		require.NoFileExists(t, filepath.Join(h.home, ".gpulease/jobs", id, "answered"))
	})
}

// A command that runs does not hold up another one.
func TestReadyShellBlocksNobody(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	untilReady(t, p, h, h.Target)
	ctx := testContext(t)
	var group sync.WaitGroup
	group.Go(func() {
		_, stdout, _, err := p.Run(ctx, h.Target, "job-slow", remote.Command{Shell: "echo >there; until [ -e go ]; do sleep 0.02; done; echo done"}, wait, 100, 0)
		assert.NoError(t, err)
		assert.Equal(t, "done\n", string(stdout.Head))
	})
	require.Eventually(t, func() bool { return exists(filepath.Join(h.home, "there")) }, 20*time.Second, time.Millisecond)
	_, _, _, err := p.Run(ctx, h.Target, "job-quick", remote.Command{Shell: "echo >go"}, wait, 0, 0)
	require.NoError(t, err)
	group.Wait()
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
