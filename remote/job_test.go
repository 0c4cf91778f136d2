//go:build unix

package remote_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

const wait = 20 * time.Second

func TestRun(t *testing.T) {
	t.Parallel()
	for _, shell := range shells(t) {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			testRun(t, shell)
		})
	}
}

func testRun(t *testing.T, shell string) {
	h := startHostWith(t, shell)
	p := newPool(t, remote.Config{})
	require.NoError(t, os.MkdirAll(filepath.Join(h.home, "pro ject's"), 0o755))
	binary := make([]byte, 256)
	for i := range binary {
		binary[i] = byte(i)
	}
	tests := map[string]struct {
		command        remote.Command
		code           int
		signal, reason string
		stdout, stderr string
	}{
		"OK":            {command: remote.Command{Shell: "echo out; echo err >&2"}, stdout: "out\n", stderr: "err\n"},
		"Bash":          {command: remote.Command{Shell: `a=(1 2); echo "${a[1]}" <(:) | cut -c1`}, stdout: "2\n"},
		"Code":          {command: remote.Command{Shell: "exit 7"}, code: 7},
		"Signal":        {command: remote.Command{Shell: "kill -SEGV $$"}, code: 139, signal: "SIGSEGV", reason: remote.ReasonSignal},
		"Argv":          {command: remote.Command{Argv: []string{"printf", "%s|", "a b", "$HOME", "it's", "", "\n"}}, stdout: "a b|$HOME|it's||\n|"},
		"NoProgram":     {command: remote.Command{Argv: []string{"no-such-program"}}, code: 127, stderr: "no-such-program"},
		"Home":          {command: remote.Command{Shell: "pwd"}, stdout: h.home + "\n"},
		"Dir":           {command: remote.Command{Shell: "pwd", Dir: "pro ject's"}, stdout: h.home + "/pro ject's\n"},
		"TildeDir":      {command: remote.Command{Shell: "pwd", Dir: "~/pro ject's"}, stdout: h.home + "/pro ject's\n"},
		"AbsoluteDir":   {command: remote.Command{Shell: "pwd", Dir: "/usr"}, stdout: "/usr\n"},
		"Env":           {command: remote.Command{Shell: `printf %s "$A$B"`, Env: map[string]string{"A": "it's\n$x", "B": "`"}}, stdout: "it's\n$x`"},
		"PathInEnv":     {command: remote.Command{Shell: "echo $PATH", Env: map[string]string{"PATH": "/nowhere"}}, stdout: "/nowhere\n"},
		"Mark":          {command: remote.Command{Shell: "echo $GPULEASE_JOB_ID"}, stdout: "job-" + shell + "-mark\n"},
		"Stdin":         {command: remote.Command{Argv: []string{"cat"}, Stdin: binary}, stdout: string(binary)},
		"NoStdin":       {command: remote.Command{Argv: []string{"cat"}}},
		"Umask":         {command: remote.Command{Shell: "umask"}, stdout: "0022\n"},
		"NoNewline":     {command: remote.Command{Shell: "printf x"}, stdout: "x"},
		"Timeout":       {command: remote.Command{Shell: "sleep 60", Timeout: 300 * time.Millisecond}, code: 130, signal: "SIGINT", reason: remote.ReasonTimeout},
		"TimeoutInTime": {command: remote.Command{Shell: "echo a", Timeout: time.Minute}, stdout: "a\n"},
		"Terminal":      {command: remote.Command{Shell: "test -t 0 || test -t 1 || echo none"}, stdout: "none\n"},
	}
	if shell == "busybox" {
		// Without bash there is no job control that would leave SIGINT alone, and the job ignores it.
		delete(tests, "Bash")
		late := tests["Timeout"]
		late.code, late.signal = 143, "SIGTERM"
		tests["Timeout"] = late
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.reason == "" {
				tt.reason = remote.ReasonExit
			}
			before := time.Now()
			// The machines of this test are one computer, and jobs are found by their mark: no two may share an ID.
			job, stdout, stderr, err := p.Run(testContext(t), h.Target, "job-"+shell+"-"+strings.ToLower(name), tt.command, wait, 1000, 1000)
			require.NoError(t, err)
			require.Equal(t, remote.Exited, job.State)
			require.Equal(t, tt.reason, job.Reason)
			require.Equal(t, tt.code, job.ExitCode, "%s%s", stdout.Head, stderr.Head)
			require.Equal(t, tt.signal, job.Signal)
			require.Equal(t, tt.stdout, string(stdout.Head))
			if name == "NoProgram" {
				require.Contains(t, string(stderr.Head), tt.stderr)
			} else {
				require.Equal(t, tt.stderr, string(stderr.Head))
			}
			require.Equal(t, int64(len(stdout.Head)), job.StdoutBytes)
			require.WithinRange(t, job.Started, before.Add(-time.Second), job.Ended)
			require.WithinRange(t, job.Ended, job.Started, time.Now().Add(time.Second))
		})
	}
}

// The start is told to the nanosecond, and how long a job ran to the hundredth: one that is over at once still ends no
// earlier than it starts.
func TestJobEndsNoEarlierThanItStarts(t *testing.T) {
	t.Parallel()
	for _, shell := range shells(t) {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			h := startHostWith(t, shell)
			p := newPool(t, remote.Config{})
			ctx := testContext(t)
			_, _, _, err := p.Run(ctx, h.Target, "job-over", remote.Command{Shell: "true"}, wait, 0, 0)
			require.NoError(t, err)
			dir := filepath.Join(h.home, ".gpulease/jobs/job-over")
			for ran, want := range map[string]string{
				"+0":   "2026-11-28T01:54:49.999862255Z",
				"+1":   "2026-11-28T01:54:50.009862255Z",
				"+123": "2026-11-28T01:54:51.229862255Z",
			} {
				require.NoError(t, os.WriteFile(filepath.Join(dir, "began"), []byte("1795830889.999862255\n"), 0o600))
				require.NoError(t, os.WriteFile(filepath.Join(dir, "exit"), []byte("0 "+ran+" exit\n0 -1 no\n"), 0o600))
				job, err := p.Job(ctx, h.Target, "job-over", 0)
				require.NoError(t, err)
				require.Equal(t, "2026-11-28T01:54:49.999862255Z", job.Started.Format(time.RFC3339Nano))
				require.Equal(t, want, job.Ended.Format(time.RFC3339Nano))
			}
		})
	}
}

func TestStartIsRefused(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	ok := remote.Command{Shell: "true"}
	for name, tt := range map[string]struct {
		id      string
		command remote.Command
		want    string
	}{
		"ShortID":     {"abc", ok, "job id"},
		"PathID":      {"../../x", ok, "job id"},
		"UpperID":     {"JOB-1", ok, "job id"},
		"Nothing":     {"job-1", remote.Command{}, "not both"},
		"Both":        {"job-1", remote.Command{Shell: "a", Argv: []string{"b"}}, "not both"},
		"NUL":         {"job-1", remote.Command{Shell: "a\x00b"}, "NUL"},
		"EnvName":     {"job-1", remote.Command{Shell: "a", Env: map[string]string{"A B": ""}}, "variable name"},
		"EnvMark":     {"job-1", remote.Command{Shell: "a", Env: map[string]string{"GPULEASE_JOB_ID": "x"}}, "mark"},
		"DashProgram": {"job-1", remote.Command{Argv: []string{"-x"}}, "program"},
		"Huge":        {"job-1", remote.Command{Shell: strings.Repeat("x", 1<<20)}, "bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := p.Start(testContext(t), h.Target, tt.id, tt.command)
			require.ErrorIs(t, err, remote.ErrInvalid)
			require.ErrorContains(t, err, tt.want)
		})
	}
	t.Run("Directory", func(t *testing.T) {
		ctx := testContext(t)
		_, err := p.Start(ctx, h.Target, "job-dir", remote.Command{Shell: "pwd", Dir: "not/there"})
		require.ErrorIs(t, err, remote.ErrDirectory)
		require.ErrorContains(t, err, "not/there")
		_, err = p.Job(ctx, h.Target, "job-dir", 0)
		require.ErrorIs(t, err, remote.ErrJobNotFound)
		require.NoError(t, os.MkdirAll(filepath.Join(h.home, "not/there"), 0o755))
		job, stdout, _, err := p.Run(ctx, h.Target, "job-dir", remote.Command{Shell: "pwd", Dir: "not/there"}, wait, 100, 0)
		require.NoError(t, err, "the ID is still free")
		require.Equal(t, remote.ReasonExit, job.Reason)
		require.Equal(t, h.home+"/not/there\n", string(stdout.Head))
	})
}

func TestJobIsStartedOnce(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	pools := []*remote.Pool{newPool(t, remote.Config{}), newPool(t, remote.Config{}), newPool(t, remote.Config{})}
	ctx := testContext(t)
	var group sync.WaitGroup
	for i := range 30 {
		group.Go(func() {
			job, err := pools[i%len(pools)].Start(ctx, h.Target, "job-once", remote.Command{Shell: "echo ran >>ran; sleep 0.2; echo done"})
			assert.NoError(t, err)
			assert.NotEqual(t, remote.Lost, job.State)
		})
	}
	group.Wait()
	job, err := pools[0].Job(ctx, h.Target, "job-once", wait)
	require.NoError(t, err)
	require.Equal(t, remote.Exited, job.State)
	ran, err := os.ReadFile(filepath.Join(h.home, "ran"))
	require.NoError(t, err)
	require.Equal(t, "ran\n", string(ran))
	job, stdout, _, err := pools[1].Run(ctx, h.Target, "job-once", remote.Command{Shell: "echo other"}, wait, 100, 0)
	require.NoError(t, err)
	require.Equal(t, "done\n", string(stdout.Head), "a later start shows the first one's job")
	require.Contains(t, job.Command, "echo ran")
	files, err := filepath.Glob(filepath.Join(h.home, ".gpulease/jobs/job-once/*"))
	require.NoError(t, err)
	for _, f := range files {
		require.NotContains(t, f, "stage")
	}
}

// Connections break all the time, and replies get lost; every job still runs exactly once.
func TestJobIsStartedOnceOverABadNetwork(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	proxy := startProxy(t, h.Addr)
	p := newPool(t, remote.Config{})
	target := h.Target
	target.Addr = proxy.addr
	ctx := testContext(t)
	require.NoError(t, p.Check(ctx, target))
	done, stop := context.WithCancel(ctx)
	var cutter sync.WaitGroup
	cutter.Go(func() {
		// Each cut comes later in the life of its connection than the one before: handshake, start, wait, reply.
		for i := 0; done.Err() == nil && i < 8; {
			if proxy.open() == 0 {
				time.Sleep(time.Millisecond)
				continue
			}
			i++
			timer := time.NewTimer(time.Duration(i) * 30 * time.Millisecond)
			select {
			case <-timer.C:
				proxy.cut()
			case <-done.Done():
				timer.Stop()
			}
		}
	})
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			job, stdout, _, err := p.Run(ctx, target, fmt.Sprintf("job-bad-%d", i), remote.Command{Shell: "echo ran | tee -a ran"}, 2*wait, 100, 0)
			assert.NoError(t, err)
			assert.Equal(t, remote.Exited, job.State)
			assert.Equal(t, "ran\n", string(stdout.Head))
		})
	}
	group.Wait()
	stop()
	cutter.Wait()
	require.Greater(t, proxy.accepted(), 1)
	ran, err := os.ReadFile(filepath.Join(h.home, "ran"))
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("ran\n", 8), string(ran))
}

// A machine without /proc, as a simulated one on macOS is: less is known of the processes, and jobs still work.
func TestWithoutProc(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	require.NoError(t, os.WriteFile(filepath.Join(h.home, ".bashrc"), []byte("export GPULEASE_PROC=/nowhere\n"), 0o600))
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	job, stdout, _, err := p.Run(ctx, h.Target, "job-plain", remote.Command{Shell: "echo $GPULEASE_PROC; exit 4"}, wait, 100, 0)
	require.NoError(t, err)
	require.Equal(t, 4, job.ExitCode)
	require.Equal(t, "/nowhere\n", string(stdout.Head))
	_, err = p.Start(ctx, h.Target, "job-stop", remote.Command{Shell: "sleep 1011 & sleep 1012 & echo up; wait"})
	require.NoError(t, err)
	page, err := p.Page(ctx, h.Target, "job-stop", remote.Stdout, 0, 100, wait)
	require.NoError(t, err)
	require.Equal(t, remote.Running, page.Job.State)
	job, err = p.Cancel(ctx, h.Target, "job-stop", time.Second)
	require.NoError(t, err)
	require.Equal(t, remote.ReasonCancelled, job.Reason)
	require.Empty(t, marked("GPULEASE_JOB_ID=job-stop"))
}

// What a job finds in its environment is what the login has, the mark, and what was asked for.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	require.NoError(t, os.WriteFile(filepath.Join(h.home, ".bashrc"), []byte("export id=1 dir=2 home=3 gl_job=4\n"), 0o600))
	p := newPool(t, remote.Config{})
	_, stdout, _, err := p.Run(testContext(t), h.Target, "job-env", remote.Command{Argv: []string{"env"}, Env: map[string]string{"NEW": "5"}}, wait, 10_000, 0)
	require.NoError(t, err)
	found := map[string]string{}
	for line := range strings.Lines(string(stdout.Head)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if strings.HasPrefix(name, "gl_") && name != "gl_job" {
			t.Errorf("the script's own variable %s reached the job", name)
		}
		found[name] = value
	}
	require.Equal(t, "1", found["id"])
	require.Equal(t, "2", found["dir"])
	require.Equal(t, "3", found["home"])
	require.Equal(t, "5", found["NEW"])
	require.Equal(t, "job-env", found["GPULEASE_JOB_ID"])
	require.Equal(t, h.home, found["HOME"])
}

func TestJobOutlivesConnection(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	ctx := testContext(t)
	first := newPool(t, remote.Config{})
	job, err := first.Start(ctx, h.Target, "job-long", remote.Command{Shell: "read x <go; echo $x"})
	require.NoError(t, err)
	require.Equal(t, remote.Running, job.State)
	require.True(t, job.Ended.IsZero())
	require.NoError(t, first.Close())

	second := newPool(t, remote.Config{})
	job, err = second.Job(ctx, h.Target, "job-long", 0)
	require.NoError(t, err)
	require.Equal(t, remote.Exited, job.State, "there is no file go yet")
	require.Equal(t, 0, job.ExitCode)
}

func TestWaitEndsWithTheJob(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	ctx := testContext(t)
	p := newPool(t, remote.Config{})
	_, err := p.Start(ctx, h.Target, "job-wait", remote.Command{Shell: "sleep 1.5"})
	require.NoError(t, err)
	begun := time.Now()
	job, err := p.Job(ctx, h.Target, "job-wait", 100*time.Millisecond)
	require.NoError(t, err)
	require.Equal(t, remote.Running, job.State)
	require.Less(t, time.Since(begun), 1400*time.Millisecond)
	job, err = p.Job(ctx, h.Target, "job-wait", wait)
	require.NoError(t, err)
	require.Equal(t, remote.Exited, job.State)
	require.Less(t, time.Since(begun), 5*time.Second)
}

func TestOutput(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	ctx := testContext(t)
	p := newPool(t, remote.Config{})
	// Every byte value, and no line ends to cut at.
	_, err := p.Start(ctx, h.Target, "job-bytes", remote.Command{Shell: "cat; echo 12345 >&2", Stdin: pattern(100_000)})
	require.NoError(t, err)
	_, err = p.Job(ctx, h.Target, "job-bytes", wait)
	require.NoError(t, err)
	for name, tt := range map[string]struct{ head, tail int }{
		"Nothing":  {0, 0},
		"Head":     {1000, 0},
		"Tail":     {0, 1000},
		"Both":     {999, 1001},
		"AllButOn": {50_000, 49_999},
		"Whole":    {50_000, 50_000},
		"More":     {200_000, 200_000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, err := p.Output(testContext(t), h.Target, "job-bytes", tt.head, tt.tail)
			require.NoError(t, err)
			whole := pattern(100_000)
			require.Equal(t, int64(len(whole)), stdout.Size)
			require.Equal(t, int64(6), stderr.Size)
			if tt.head+tt.tail >= len(whole) {
				require.True(t, bytes.Equal(whole, stdout.Head))
				require.Empty(t, stdout.Tail)
				require.Equal(t, "12345\n", string(stderr.Head))
				require.Zero(t, stdout.Omitted())
				return
			}
			require.True(t, bytes.Equal(whole[:tt.head], stdout.Head))
			require.True(t, bytes.Equal(whole[len(whole)-tt.tail:], stdout.Tail))
			require.Equal(t, int64(len(whole)-tt.head-tt.tail), stdout.Omitted())
		})
	}
	_, _, err = p.Output(ctx, h.Target, "job-none", 1, 1)
	require.ErrorIs(t, err, remote.ErrJobNotFound)
}

func TestSecretsStayInFiles(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	ctx := testContext(t)
	p := newPool(t, remote.Config{})
	require.NoError(t, os.WriteFile(filepath.Join(h.home, "block"), nil, 0o600))
	_, err := p.Start(ctx, h.Target, "job-secret", remote.Command{
		Shell: "while [ -e block ]; do sleep 0.02; done",
		Env:   map[string]string{"TOKEN": "s3cr3t-value"}, Stdin: []byte("s3cr3t-input"),
	})
	require.NoError(t, err)
	dir := filepath.Join(h.home, ".gpulease/jobs/job-secret")
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, f := range lines {
		line, _ := os.ReadFile(f)
		require.NotContains(t, string(line), "s3cr3t")
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.NotEmpty(t, entries)
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, e.Name())
	}
	require.NoError(t, os.Remove(filepath.Join(h.home, "block")))
	_, err = p.Job(ctx, h.Target, "job-secret", wait)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		files, _ := filepath.Glob(dir + "/*")
		for _, f := range files {
			if data, _ := os.ReadFile(f); bytes.Contains(data, []byte("s3cr3t")) {
				return false
			}
		}
		return len(files) > 0
	}, 5*time.Second, 5*time.Millisecond, "cmd and stdin go away when the job has ended")
}

// pattern is n bytes in which no offset looks like another nearby.
func pattern(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}
