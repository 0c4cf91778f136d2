//go:build unix

package remote_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest/machine"
	"github.com/gpulease/gpulease/remote"
)

// burn keeps one processor busy for about that many centiseconds of its own time, in a child that is waited for.
const burn = `spin() { sh -c 'until [ "$(awk "{ print \$14 }" /proc/$$/stat)" -ge '"$1"' ]; do i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; done'; }
`

func TestUsage(t *testing.T) {
	t.Parallel()
	onEachShell(t, func(t *testing.T, h *host, shell string) { testUsage(t, h.Target, "job-usage-"+shell) })
}

func TestMachineUsage(t *testing.T) {
	t.Parallel()
	_, target := startMachine(t, machine.Config{})
	testUsage(t, target, "job-usage-sim")
}

func testUsage(t *testing.T, target remote.Target, id string) {
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	_, err := p.Start(ctx, target, id, remote.Command{
		Shell: burn + "spin 40; (head -c 60000000 /dev/zero; echo held >&2; until [ -e " + id + " ]; do sleep 0.05; done) | tail -c 60000000 >/dev/null",
	})
	require.NoError(t, err)
	page, err := p.Page(ctx, target, id, remote.Stderr, 0, 10, wait)
	require.NoError(t, err)
	require.Equal(t, "held\n", string(page.Data))
	var job remote.Job
	require.Eventually(t, func() bool {
		job, err = p.Job(ctx, target, id, 0)
		return err == nil && job.PeakMemoryMiB >= 57 && job.CPUTime >= 300*time.Millisecond
	}, wait, 50*time.Millisecond, "told while it runs: %v", &job)
	require.Zero(t, job.Hanging)
	_, _, _, err = p.Run(ctx, target, id+"-go", remote.Command{Argv: []string{"touch", id}}, wait, 0, 0)
	require.NoError(t, err)
	job, err = p.Job(ctx, target, id, wait)
	require.NoError(t, err)
	require.Equal(t, remote.Exited, job.State)
	require.GreaterOrEqual(t, job.CPUTime, 350*time.Millisecond)
	require.Less(t, job.CPUTime, 2*job.Ended.Sub(job.Started), "two processes at most work at once")
	require.True(t, job.PeakMemoryMiB >= 57 && job.PeakMemoryMiB < 300, job.PeakMemoryMiB)
	require.WithinRange(t, job.LastOutput, job.Started.Add(-2*time.Second), job.Ended.Add(time.Second))
	require.Empty(t, job.Trouble)
	require.False(t, job.Capped)

	job, _, _, err = p.Run(ctx, target, id+"-quick", remote.Command{Shell: "true"}, wait, 0, 0)
	require.NoError(t, err)
	require.True(t, job.CPUTime >= 0 && job.CPUTime < time.Second, job.CPUTime)
	require.True(t, job.LastOutput.IsZero(), "it wrote nothing")
}

func TestUsageIsUnknownWithoutProc(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	require.NoError(t, os.WriteFile(filepath.Join(h.home, ".bashrc"), []byte("export GPULEASE_PROC=/nowhere\n"), 0o600))
	job, _, _, err := newPool(t, remote.Config{}).Run(testContext(t), h.Target, "job-unmeasured", remote.Command{Shell: burn + "spin 20; sleep 0.3"}, wait, 0, 0)
	require.NoError(t, err)
	require.Equal(t, int64(remote.Unknown), job.PeakMemoryMiB)
	require.GreaterOrEqual(t, job.CPUTime, 150*time.Millisecond, "the shell knows what it has waited for")
}

func TestOutputTimeout(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	job, stdout, _, err := p.Run(testContext(t), h.Target, "job-silent", remote.Command{
		Shell: "for i in 1 2 3 4; do echo $i; sleep 0.4; done; while :; do :; done", OutputTimeout: time.Second,
	}, wait, 100, 0)
	require.NoError(t, err)
	require.Equal(t, remote.ReasonNoOutput, job.Reason)
	require.Equal(t, "1\n2\n3\n4\n", string(stdout.Head), "output puts it off; a busy processor does not")
	require.Empty(t, marked("GPULEASE_JOB_ID=job-silent"))
}

// A job hangs when it neither writes nor computes and no GPU works. Each sign of life takes that back.
func TestHanging(t *testing.T) {
	t.Parallel()
	m, target := startMachine(t, machine.Config{GPU: machine.GPU{Count: 2, Name: "NVIDIA A10", MemoryMiB: 23028, Emulate: true}})
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	start := func(id, shell string) {
		_, err := p.Start(ctx, target, id, remote.Command{Shell: shell, IdleTimeout: 600 * time.Millisecond})
		require.NoError(t, err)
	}
	hangs := func(id string) time.Duration {
		job, err := p.Job(ctx, target, id, 0)
		require.NoError(t, err)
		require.Equal(t, remote.Running, job.State)
		return job.Hanging
	}
	start("job-hang-idle", "echo up; until [ -e more ]; do sleep 0.3; done; echo more; sleep 1030")
	start("job-hang-busy", "while :; do :; done")
	start("job-hang-noisy", "while :; do echo .; sleep 0.1; done")
	require.Eventually(t, func() bool { return hangs("job-hang-idle") >= 600*time.Millisecond }, wait, 50*time.Millisecond)
	for range 20 {
		require.Zero(t, hangs("job-hang-busy"))
		require.Zero(t, hangs("job-hang-noisy"))
	}
	require.NoError(t, os.WriteFile(filepath.Join(m.Home(), "more"), nil, 0o600))
	require.Eventually(t, func() bool { return hangs("job-hang-idle") == 0 }, wait, 20*time.Millisecond, "it writes again")
	require.Eventually(t, func() bool { return hangs("job-hang-idle") > 0 }, wait, 20*time.Millisecond)
	require.NoError(t, m.SetGPULoad(90, 1000))
	require.Eventually(t, func() bool { return hangs("job-hang-idle") == 0 }, wait, 20*time.Millisecond, "a GPU works")
	require.NoError(t, m.SetGPULoad(0, 1000))
	require.NoError(t, m.SetGPUFault("dead"))
	require.Eventually(t, func() bool { return hangs("job-hang-idle") > 0 }, wait, 20*time.Millisecond, "GPUs that do not answer do no work")
	for _, id := range []string{"job-hang-idle", "job-hang-busy", "job-hang-noisy"} {
		job, err := p.Cancel(ctx, target, id, 0)
		require.NoError(t, err)
		require.Zero(t, job.Hanging)
	}
}

func TestOutputIsCutAtItsLimit(t *testing.T) {
	t.Parallel()
	onEachShell(t, func(t *testing.T, h *host, shell string) { testCut(t, h.Target, "job-cut-"+shell) })
}

func TestMachineOutputIsCutAtItsLimit(t *testing.T) {
	t.Parallel()
	_, target := startMachine(t, machine.Config{})
	testCut(t, target, "job-cut-sim")
}

func testCut(t *testing.T, target remote.Target, id string) {
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	const limit = 1 << 20
	mark := fmt.Sprintf("\n[gpulease: cut here, since the job wrote more than its limit of %d bytes]\n", limit)
	for name, tt := range map[string]struct {
		shell, reason string
		stdout        bool
	}{
		"flood": {"echo small >&2; while :; do head -c 100000 /dev/zero; sleep 0.01; done", remote.ReasonOutputLimit, true},
		"quick": {"echo small; head -c 3000000 /dev/zero >&2", "", false},
	} {
		job, stdout, stderr, err := p.Run(ctx, target, id+"-"+name, remote.Command{Shell: tt.shell, OutputLimit: limit}, wait, 0, 200)
		require.NoError(t, err)
		require.True(t, job.Capped)
		require.Equal(t, int64(limit+len(mark)), job.StdoutBytes+job.StderrBytes, name)
		long, short := stdout, stderr
		if !tt.stdout {
			long, short = stderr, stdout
			require.Contains(t, []string{remote.ReasonExit, remote.ReasonOutputLimit}, job.Reason, "it may have ended before anybody looked")
		} else {
			require.Equal(t, tt.reason, job.Reason)
		}
		require.Equal(t, "small\n", string(short.Head))
		require.True(t, strings.HasSuffix(string(long.Tail), "\x00"+mark), "%q", long.Tail)
	}
}

// A job that has filled the disk still ends with its exit code, its time and what it has written so far.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a small disk")
	}
	h := startHost(t)
	smallDisk(t, filepath.Join(h.home, ".gpulease"))
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	job, stdout, stderr, err := p.Run(ctx, h.Target, "job-full", remote.Command{
		Shell: burn + "head -c 100000000 /dev/zero; spin 30; echo still here >&2; exit 3",
	}, wait, 0, 1000)
	require.NoError(t, err)
	require.Equal(t, remote.Exited, job.State)
	require.Equal(t, remote.ReasonExit, job.Reason)
	require.Equal(t, 3, job.ExitCode, "%s", stderr.Tail)
	require.Greater(t, stdout.Size, int64(1<<20))
	require.GreaterOrEqual(t, job.CPUTime, 200*time.Millisecond)
	require.False(t, job.Ended.IsZero())
}

// What was written first is told first, as finely as the machine looks.
func TestOrder(t *testing.T) {
	t.Parallel()
	_, target := startMachine(t, machine.Config{})
	for name, target := range map[string]remote.Target{"sim": target, "host": startHost(t).Target} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, remote.Config{})
			ctx := testContext(t)
			id := "job-order-" + name
			job, stdout, stderr, err := p.Run(ctx, target, id, remote.Command{
				Shell: "echo one; sleep 0.6; echo two >&2; sleep 0.6; echo three; sleep 0.6; echo four >&2",
			}, wait, 100, 0)
			require.NoError(t, err)
			require.Equal(t, remote.Exited, job.State)
			order, err := p.Order(ctx, target, id)
			require.NoError(t, err)
			chunks := remote.Interleave(order, stdout.Head, 0, stderr.Head, 0)
			var got []string
			for _, c := range chunks {
				got = append(got, string(c.Stream)+" "+string(c.Data))
			}
			require.Equal(t, []string{"stdout one\n", "stderr two\n", "stdout three\n", "stderr four\n"}, got)
			require.Less(t, chunks[0].After, 500*time.Millisecond)
			require.GreaterOrEqual(t, chunks[1].After, 500*time.Millisecond)
			_, err = p.Order(ctx, target, id+"-none")
			require.ErrorIs(t, err, remote.ErrJobNotFound)
		})
	}
}
