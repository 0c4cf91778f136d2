//go:build unix

package remote_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
		for i := range 3 {
			require.NoError(t, syscall.Kill(untilReady(t, p, h, h.Target), syscall.SIGKILL))
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

// What the ordinary way says has not been started is not started later, when the shell goes on.
func TestReadyShellHangsWhileTheJobIsRefused(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	pid := untilReady(t, p, h, h.Target)
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	_, _, _, err := p.Run(testContext(t), h.Target, "job-nowhere", remote.Command{Shell: "echo >>~/ran", Dir: "later"}, 100*time.Millisecond, 0, 0)
	require.ErrorIs(t, err, remote.ErrDirectory)
	require.NoError(t, os.Mkdir(filepath.Join(h.home, "later"), 0o700))
	require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
	require.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, 20*time.Second, 5*time.Millisecond)
	require.NoFileExists(t, filepath.Join(h.home, ".gpulease/jobs/job-nowhere/claim"))
	require.NoFileExists(t, filepath.Join(h.home, "ran"))
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
		`printf '\036gpulease\njob job-nonsense-4\nexcerpt 0 100 0 0\n\nhalf'`,
		`exec yes ''`,
		`exec cat /dev/zero`,
		`printf '\036gpulease\nexcerpt 0 0 0 0\n'; exec yes 'job x'`,
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
	// Some shells compare whole seconds, and one that is made ready in the second of the change takes itself for too old.
	for i, by := 0, 0; by != pid; i++ {
		require.Less(t, i, 5)
		time.Sleep(1100 * time.Millisecond)
		pid = untilReady(t, p, h, h.Target)
		id := fmt.Sprintf("job-rc-%d", i)
		_, stdout, _, err = p.Run(testContext(t), h.Target, id, remote.Command{Shell: "echo $GREETING"}, wait, 100, 0)
		require.NoError(t, err)
		require.Equal(t, "hello\n", string(stdout.Head))
		by = supervisor(t, h, id)
	}
}

// Nor does the time of a file tell all: one that is gone has none, and one that was moved there keeps its own.
func TestReadyShellKnowsVariablesThatAreGone(t *testing.T) {
	t.Parallel()
	readyOn(t, func(t *testing.T, p *remote.Pool, h *host, _ int) {
		rc := filepath.Join(h.home, ".bashrc")
		old := time.Now().Add(-time.Hour)
		greeting := func(id string) string {
			_, stdout, _, err := p.Run(testContext(t), h.Target, id, remote.Command{Shell: "echo $GREETING"}, wait, 100, 0)
			require.NoError(t, err)
			return strings.TrimSpace(string(stdout.Head))
		}
		prepared := func(text string) string {
			file := filepath.Join(h.home, "rc")
			require.NoError(t, os.WriteFile(file, []byte("export GREETING="+text+"\n"), 0o600))
			require.NoError(t, os.Chtimes(file, old, old))
			return file
		}
		require.NoError(t, os.Rename(prepared("hello"), rc), "made")
		require.Equal(t, "hello", greeting("job-made"))
		pid := untilReady(t, p, h, h.Target)
		require.Equal(t, "hello", greeting("job-same"))
		require.Equal(t, pid, supervisor(t, h, "job-same"), "nothing has changed")
		untilReady(t, p, h, h.Target)
		require.NoError(t, os.Rename(prepared("hullo"), rc))
		require.Equal(t, "hullo", greeting("job-moved"))
		untilReady(t, p, h, h.Target)
		require.NoError(t, os.Remove(rc))
		require.Equal(t, "", greeting("job-gone"))
	})
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
