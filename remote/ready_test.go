//go:build unix

package remote_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest/machine"
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

// untilReady runs a job, behind which a shell is made ready, and waits until that has read all that it needs.
func untilReady(t *testing.T, p *remote.Pool, h *host, target remote.Target) int {
	t.Helper()
	_, _, _, err := p.Run(testContext(t), target, fmt.Sprintf("job-first-%d", time.Now().UnixNano()), remote.Command{Shell: "true"}, wait, 0, 0)
	require.NoError(t, err)
	return waitReady(t, h)
}

func waitReady(t *testing.T, h *host) int {
	t.Helper()
	var pid int
	require.Eventually(t, func() bool {
		found := readyShells(h)
		if len(found) != 1 {
			return false
		}
		pid = found[0]
		// It waits for input in its read, with no child left.
		call, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		home, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		return err == nil && bytes.HasPrefix(call, []byte("0 0x0 ")) && len(children) == 0 && home == h.home
	}, 20*time.Second, 5*time.Millisecond, "no shell is made ready")
	return pid
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
			pid = waitReady(t, h)
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

// ran is how often the command of a job has run that adds a line to a file.
func ran(t *testing.T, h *host) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(h.home, "ran"))
	require.NoError(t, err)
	return strings.Count(string(text), "\n")
}

func TestReadyShellIsKilled(t *testing.T) {
	t.Parallel()
	t.Run("Before", func(t *testing.T) {
		t.Parallel()
		h := startHost(t)
		p := newPool(t, remote.Config{})
		for i := range 5 { // also when nothing is made ready any more
			if pid := readyShells(h); len(pid) > 0 || i == 0 {
				require.NoError(t, syscall.Kill(untilReadyOr(t, p, h, pid), syscall.SIGKILL))
			}
			job, _, _, err := p.Run(testContext(t), h.Target, fmt.Sprintf("job-killed-%d", i), remote.Command{Shell: "echo >>ran"}, wait, 0, 0)
			require.NoError(t, err)
			require.Equal(t, remote.Exited, job.State)
			require.Equal(t, i+1, ran(t, h))
		}
	})
	t.Run("AsSupervisor", func(t *testing.T) {
		t.Parallel()
		h := startHost(t)
		p := newPool(t, remote.Config{})
		pid := untilReady(t, p, h, h.Target)
		job, _, _, err := p.Run(testContext(t), h.Target, "job-orphan", remote.Command{Shell: "echo >>ran; kill -9 $PPID; while [ -d /proc/$PPID ]; do sleep 0.01; done"}, wait, 0, 0)
		require.NoError(t, err)
		require.Equal(t, pid, supervisor(t, h, "job-orphan"))
		require.Equal(t, remote.Lost, job.State)
		require.Equal(t, 1, ran(t, h))
	})
}

func untilReadyOr(t *testing.T, p *remote.Pool, h *host, found []int) int {
	t.Helper()
	if len(found) > 0 {
		return found[0]
	}
	return untilReady(t, p, h, h.Target)
}

// A shell that hangs is not waited for, and when it goes on it finds the job started.
func TestReadyShellHangs(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	pid := untilReady(t, p, h, h.Target)
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	ctx := testContext(t)
	job, _, _, err := p.Run(ctx, h.Target, "job-hang", remote.Command{Shell: "echo >>ran"}, 100*time.Millisecond, 0, 0)
	require.NoError(t, err)
	require.NotEqual(t, pid, supervisor(t, h, "job-hang"))
	require.Equal(t, "job-hang", job.ID)
	job, err = p.Job(ctx, h.Target, "job-hang", wait)
	require.NoError(t, err)
	require.Equal(t, remote.Exited, job.State)
	// Nor does it keep a place among the commands.
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			_, _, _, err := p.Run(ctx, h.Target, fmt.Sprintf("job-beside-%d", i), remote.Command{Shell: fmt.Sprintf("echo >at%d; until [ -e at0 -a -e at1 -a -e at2 -a -e at3 ]; do sleep 0.02; done", i)}, wait, 0, 0)
			assert.NoError(t, err)
		})
	}
	group.Wait()
	require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
	require.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, 20*time.Second, 5*time.Millisecond)
	require.Equal(t, 1, ran(t, h))
}

func TestReadyShellTalksNonsense(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	setsid, err := exec.LookPath("setsid")
	require.NoError(t, err)
	for i, nonsense := range []string{
		`printf '\036gpulease\njob another\nstate exited\ncode 0\nexcerpt 0 0 0 0\n\n'`,
		`printf '\036gpulease\njob job-nonsense-1\nexcerpt 9000000000000000000 9000000000000000000 0 0\n\n'`,
		`printf 'no reply at all\n\n'`,
		`printf '\036gpulease\nerror notfound x\n\n'`,
	} {
		// It says this when it gets its first job.
		h.shim(t, "setsid", "#!/bin/sh\n[ \"$3\" = -s ] || exec "+setsid+" \"$@\"\nwhile read -r line; do case $line in gl_ready*) echo >>\"$HOME/asked\"; "+nonsense+"; exit;; esac; done\n")
		p.Forget(h.Key)
		_, _, _, err := p.Run(testContext(t), h.Target, fmt.Sprintf("job-sense-%d", i), remote.Command{Shell: "true"}, wait, 0, 0)
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			for _, pid := range marked(h.mark) {
				words, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				if strings.HasSuffix(string(words), "setsid\x00-f\x00sh\x00-s\x00") {
					return true
				}
			}
			return false
		}, 20*time.Second, 5*time.Millisecond)
		job, stdout, _, err := p.Run(testContext(t), h.Target, fmt.Sprintf("job-nonsense-%d", i), remote.Command{Shell: "echo >>ran; echo sense"}, wait, 100, 0)
		require.NoError(t, err)
		require.Equal(t, remote.Exited, job.State)
		require.Equal(t, "sense\n", string(stdout.Head))
		require.Equal(t, i+1, ran(t, h))
		asked, err := os.ReadFile(filepath.Join(h.home, "asked"))
		require.NoError(t, err)
		require.Len(t, asked, i+1, "it was asked")
	}
}

// The connection breaks while a ready shell runs a job.
func TestReadyShellLosesItsConnection(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	weather := startProxy(t, h.Addr)
	target := h.Target
	target.Addr = weather.addr
	p := newPool(t, remote.Config{})
	pid := untilReady(t, p, h, target)
	ctx := testContext(t)
	type answer struct {
		job    remote.Job
		stdout remote.Excerpt
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		job, stdout, _, err := p.Run(ctx, target, "job-cut", remote.Command{Shell: "echo >>ran; until [ -e go ]; do sleep 0.02; done; echo done"}, wait, 100, 0)
		answers <- answer{job, stdout, err}
	}()
	require.Eventually(t, func() bool { return exists(filepath.Join(h.home, "ran")) }, 20*time.Second, time.Millisecond)
	weather.cut()
	require.NoError(t, os.WriteFile(filepath.Join(h.home, "go"), nil, 0o600))
	a := <-answers
	require.NoError(t, a.err)
	require.Equal(t, pid, supervisor(t, h, "job-cut"))
	require.Equal(t, remote.Exited, a.job.State)
	require.Equal(t, "done\n", string(a.stdout.Head))
	require.Equal(t, 1, ran(t, h))
	require.Equal(t, 2, weather.accepted())
}

// The connection is dark before the job is sent: the shell never hears of it.
func TestReadyShellHearsNothing(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	weather := startProxy(t, h.Addr)
	target := h.Target
	target.Addr = weather.addr
	p := newPool(t, remote.Config{})
	pid := untilReady(t, p, h, target)
	weather.freeze()
	go func() {
		time.Sleep(100 * time.Millisecond)
		weather.cut()
	}()
	job, _, _, err := p.Run(testContext(t), target, "job-dark", remote.Command{Shell: "echo >>ran"}, wait, 0, 0)
	require.NoError(t, err)
	require.Equal(t, remote.Exited, job.State)
	require.Equal(t, 1, ran(t, h))
	require.NotEqual(t, pid, supervisor(t, h, "job-dark"))
	require.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, 20*time.Second, 5*time.Millisecond, "it goes with its connection")
}

func TestReadyShellAndAPowerCut(t *testing.T) {
	t.Parallel()
	m, target := startMachine(t, machine.Config{})
	h := &host{Target: target, home: m.Home()}
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	_, _, _, err := p.Run(ctx, target, "job-before", remote.Command{Shell: "true"}, wait, 0, 0)
	require.NoError(t, err)
	short, giveUp := context.WithCancel(ctx)
	defer giveUp()
	var group sync.WaitGroup
	group.Go(func() {
		_, _, _, _ = p.Run(short, target, "job-power", remote.Command{Shell: "echo >>ran; sleep 1011"}, wait, 0, 0)
	})
	require.Eventually(t, func() bool { return exists(filepath.Join(h.home, "ran")) }, 20*time.Second, time.Millisecond)
	require.NoError(t, m.EndProcesses(ctx))
	giveUp()
	group.Wait()
	job, err := p.Job(ctx, target, "job-power", wait)
	require.NoError(t, err)
	require.Equal(t, remote.Lost, job.State)
	require.Equal(t, 1, ran(t, h))
	job, _, _, err = p.Run(ctx, target, "job-after", remote.Command{Shell: "true"}, wait, 0, 0)
	require.NoError(t, err)
	require.Equal(t, remote.Exited, job.State)
}

// Variables that a login sets are those of the moment in which the job is started.
func TestReadyShellKnowsChangedVariables(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	pid := untilReady(t, p, h, h.Target)
	require.NoError(t, os.WriteFile(filepath.Join(h.home, ".bashrc"), []byte("export GREETING=hello\n"), 0o600))
	_, stdout, _, err := p.Run(testContext(t), h.Target, "job-rc", remote.Command{Shell: "echo $GREETING"}, wait, 100, 0)
	require.NoError(t, err)
	require.Equal(t, "hello\n", string(stdout.Head))
	require.NotEqual(t, pid, supervisor(t, h, "job-rc"))
	// Some shells tell times apart by the second, and until that is over a ready one takes itself for too old.
	for i, by := 0, 0; by != pid; i++ {
		require.Less(t, i, 200)
		pid = waitReady(t, h)
		id := fmt.Sprintf("job-rc-%d", i)
		_, stdout, _, err = p.Run(testContext(t), h.Target, id, remote.Command{Shell: "echo $GREETING"}, wait, 100, 0)
		require.NoError(t, err)
		require.Equal(t, "hello\n", string(stdout.Head))
		by = supervisor(t, h, id)
	}
}

// A server that allows few sessions: the ready shell gives way.
func TestReadyShellGivesWay(t *testing.T) {
	t.Parallel()
	h := startHost(t, "MaxSessions 1")
	p := newPool(t, remote.Config{})
	ctx, cancel := context.WithTimeout(testContext(t), 50*time.Second)
	defer cancel()
	for i := range 6 {
		id := fmt.Sprintf("job-few-%d", i)
		job, _, _, err := p.Run(ctx, h.Target, id, remote.Command{Shell: "true"}, wait, 0, 0)
		require.NoError(t, err)
		require.Equal(t, remote.Exited, job.State)
		_, err = p.Job(ctx, h.Target, id, 0)
		require.NoError(t, err)
	}
}
