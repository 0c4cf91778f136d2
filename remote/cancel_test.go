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

	"github.com/gpulease/gpulease/remote"
)

// tree starts one process of each kind that is hard to end, tells when all are there, and waits for ever.
const tree = `
sleep 1001 &
setsid sleep 1002 &
( setsid sh -c 'trap "" HUP INT TERM; echo a >>there; while :; do sleep 0.1; done' & ) &
( ( setsid sleep 1003 & ) & )
env -i sleep 1004 &
sh -c 'trap "" INT TERM; echo b >>there; while :; do sleep 0.1; done' &
sh -c 'kill -STOP $$' &
until [ "$(wc -l <there)" -ge 2 ]; do sleep 0.01; done 2>/dev/null
echo ready
wait
sleep 1005
`

func TestCancelEndsTheWholeTree(t *testing.T) {
	t.Parallel()
	for _, shell := range shells(t) {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			testCancelTree(t, shell)
		})
	}
}

func testCancelTree(t *testing.T, shell string) {
	h := startHostWith(t, shell)
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	id := "job-tree-" + shell
	_, err := p.Start(ctx, h.Target, id, remote.Command{Shell: tree})
	require.NoError(t, err)
	page, err := p.Page(ctx, h.Target, id, remote.Stdout, 0, 100, wait)
	require.NoError(t, err)
	require.Equal(t, "ready\n", string(page.Data))
	require.GreaterOrEqual(t, len(marked("GPULEASE_JOB_ID="+id)), 7)
	require.Len(t, sleepers(h, "1004"), 1)

	job, err := p.Cancel(ctx, h.Target, id, 600*time.Millisecond)
	require.NoError(t, err)
	require.Equal(t, remote.Exited, job.State)
	require.Equal(t, remote.ReasonCancelled, job.Reason)
	require.Empty(t, marked("GPULEASE_JOB_ID="+id))
	for _, seconds := range []string{"1001", "1002", "1003", "1004", "1005"} {
		require.Empty(t, sleepers(h, seconds))
	}

	again, err := p.Cancel(ctx, h.Target, id, time.Second)
	require.NoError(t, err)
	require.Equal(t, job, again)
}

// sleepers lists "sleep SECONDS" processes whose working directory is the machine's home.
func sleepers(h *host, seconds string) []string { return running(h, "sleep\x00"+seconds+"\x00") }

// running lists the processes with that end of their command line whose working directory is the machine's home.
func running(h *host, command string) []string {
	var found []string
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		line, _ := os.ReadFile(f)
		dir, _ := os.Readlink(filepath.Join(filepath.Dir(f), "cwd"))
		if strings.HasSuffix(string(line), command) && dir == h.home {
			found = append(found, f)
		}
	}
	return found
}

func TestCancelSteps(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	for name, tt := range map[string]struct {
		shell  string
		grace  time.Duration
		stdout string
		signal string
		code   int
	}{
		"Int":       {`trap 'echo int; exit 3' INT; trap 'echo term; exit 4' TERM; echo up; while :; do sleep 0.02; done`, 2 * time.Second, "up\nint\n", "", 3},
		"IntOnce":   {`trap 'echo int' INT; trap 'echo term; exit 4' TERM; echo up; while :; do sleep 0.02; done`, time.Second, "up\nint\nterm\n", "", 4},
		"Term":      {`trap '' INT; trap 'echo term; exit 4' TERM; echo up; while :; do sleep 0.02; done`, time.Second, "up\nterm\n", "", 4},
		"Kill":      {`trap '' INT TERM; echo up; while :; do sleep 0.02; done`, 200 * time.Millisecond, "up\n", "SIGKILL", 137},
		"NoGrace":   {`trap 'echo int; exit 3' INT; echo up; while :; do sleep 0.02; done`, 0, "up\n", "SIGKILL", 137},
		"Untrapped": {`echo up; sleep 1006`, 2 * time.Second, "up\n", "SIGINT", 130},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			id := "job-" + strings.ToLower(name)
			_, err := p.Start(ctx, h.Target, id, remote.Command{Shell: tt.shell})
			require.NoError(t, err)
			_, err = p.Page(ctx, h.Target, id, remote.Stdout, 0, 100, wait)
			require.NoError(t, err)
			job, err := p.Cancel(ctx, h.Target, id, tt.grace)
			require.NoError(t, err)
			require.Equal(t, remote.ReasonCancelled, job.Reason)
			require.Equal(t, tt.signal, job.Signal)
			require.Equal(t, tt.code, job.ExitCode)
			stdout, _, err := p.Output(ctx, h.Target, id, 100, 0)
			require.NoError(t, err)
			require.Equal(t, tt.stdout, string(stdout.Head))
		})
	}
}

func TestCancelAfterTheEnd(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	job, _, _, err := p.Run(ctx, h.Target, "job-daemon", remote.Command{Shell: "setsid sleep 1007 >/dev/null 2>&1 & exit 5"}, wait, 0, 0)
	require.NoError(t, err)
	require.Equal(t, 5, job.ExitCode)
	require.Eventually(t, func() bool { return len(sleepers(h, "1007")) == 1 }, 5*time.Second, 5*time.Millisecond, "a daemon outlives the job's end")
	after, err := p.Cancel(ctx, h.Target, "job-daemon", time.Second)
	require.NoError(t, err)
	require.Equal(t, job, after, "how it ended does not change")
	require.Empty(t, sleepers(h, "1007"))
	_, err = p.Cancel(ctx, h.Target, "job-never", time.Second)
	require.ErrorIs(t, err, remote.ErrJobNotFound)
}

func TestTimeoutEndsTheWholeTree(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	job, stdout, _, err := p.Run(testContext(t), h.Target, "job-late", remote.Command{
		Shell:   "echo up; setsid sleep 1008 & trap 'echo saving; exit 9' INT; while :; do sleep 0.02; done",
		Timeout: 500 * time.Millisecond,
	}, wait, 100, 0)
	require.NoError(t, err)
	require.Equal(t, remote.ReasonTimeout, job.Reason)
	require.Equal(t, 9, job.ExitCode)
	require.Equal(t, "up\nsaving\n", string(stdout.Head))
	require.Empty(t, marked("GPULEASE_JOB_ID=job-late"), "all are gone before the end is told")
	require.GreaterOrEqual(t, job.Ended.Sub(job.Started), 450*time.Millisecond)
	require.Less(t, job.Ended.Sub(job.Started), 5*time.Second) // on a computer with much else to do
}

func TestOutputLimit(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	job, _, _, err := p.Run(testContext(t), h.Target, "job-flood", remote.Command{
		Shell: "while :; do head -c 100000 /dev/zero; sleep 0.01; done", OutputLimit: 1 << 20,
	}, wait, 0, 0)
	require.NoError(t, err)
	require.Equal(t, remote.ReasonOutputLimit, job.Reason)
	require.Greater(t, job.StdoutBytes, int64(1<<20))
	require.Less(t, job.StdoutBytes, int64(100<<20))
	require.Empty(t, marked("GPULEASE_JOB_ID=job-flood"))
}

func TestJobs(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	jobs, err := p.Jobs(ctx, h.Target)
	require.NoError(t, err)
	require.Empty(t, jobs)
	_, _, _, err = p.Run(ctx, h.Target, "job-a", remote.Command{Shell: "printf 'a\n%s' \"$X\"; exit 2", Env: map[string]string{"X": "b"}}, wait, 0, 0)
	require.NoError(t, err)
	_, err = p.Start(ctx, h.Target, "job-b", remote.Command{Argv: []string{"sleep", "1 0", ""}})
	require.NoError(t, err)
	_, err = p.Start(ctx, h.Target, "job-c", remote.Command{Shell: "sleep 60"})
	require.NoError(t, err)
	_, err = p.Job(ctx, h.Target, "job-b", wait)
	require.NoError(t, err)
	jobs, err = p.Jobs(ctx, h.Target)
	require.NoError(t, err)
	require.Len(t, jobs, 3)
	require.Equal(t, "job-a", jobs[0].ID)
	require.Equal(t, "printf 'a\n%s' \"$X\"; exit 2", jobs[0].Command)
	require.Equal(t, 2, jobs[0].ExitCode)
	require.Equal(t, int64(3), jobs[0].StdoutBytes)
	require.Equal(t, "sleep '1 0' ''", jobs[1].Command)
	require.Equal(t, remote.Exited, jobs[1].State)
	require.Equal(t, remote.Running, jobs[2].State)
}

func TestSupervisorKilled(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	ctx := testContext(t)
	p := newPool(t, remote.Config{})
	_, err := p.Start(ctx, h.Target, "job-lost", remote.Command{Shell: "sleep 60"})
	require.NoError(t, err)
	killSupervisor(t, h, "job-lost")
	job, err := p.Job(ctx, h.Target, "job-lost", wait)
	require.NoError(t, err)
	require.Equal(t, remote.Lost, job.State)
	require.Empty(t, job.Reason)
	require.Zero(t, job.ExitCode)
}

func killSupervisor(t *testing.T, h *host, id string) {
	t.Helper()
	var pid int
	text, err := os.ReadFile(filepath.Join(h.home, ".gpulease/jobs", id, "pid"))
	require.NoError(t, err)
	_, err = fmt.Sscan(string(text), &pid)
	require.NoError(t, err)
	process, err := os.FindProcess(pid)
	require.NoError(t, err)
	require.NoError(t, process.Kill())
}

// After a reboot the same numbers are other processes: the job is lost, and a cancel touches none of them.
func TestRebootedMachine(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	_, err := p.Start(ctx, h.Target, "job-before", remote.Command{Shell: "sleep 1060"})
	require.NoError(t, err)
	_, err = p.Start(ctx, h.Target, "job-after", remote.Command{Shell: "echo up; sleep 1061"})
	require.NoError(t, err)
	page, err := p.Page(ctx, h.Target, "job-after", remote.Stdout, 0, 10, wait)
	require.NoError(t, err)
	require.Equal(t, "up\n", string(page.Data))
	_, err = p.Cancel(ctx, h.Target, "job-before", 0)
	require.NoError(t, err)
	// The old job's numbers are now the new one's, and its end was never written down.
	jobs := filepath.Join(h.home, ".gpulease/jobs")
	require.NoError(t, os.Remove(filepath.Join(jobs, "job-before/exit")))
	for _, name := range []string{"pid", "main"} {
		text, err := os.ReadFile(filepath.Join(jobs, "job-after", name))
		require.NoError(t, err)
		if name == "pid" {
			f := strings.Fields(string(text))
			f[2] = "00000000-0000-0000-0000-000000000000"
			text = []byte(strings.Join(f, " ") + "\n")
		}
		require.NoError(t, os.WriteFile(filepath.Join(jobs, "job-before", name), text, 0o600))
	}
	job, err := p.Job(ctx, h.Target, "job-before", wait)
	require.NoError(t, err)
	require.Equal(t, remote.Lost, job.State)
	_, err = p.Cancel(ctx, h.Target, "job-before", 0)
	require.NoError(t, err)
	job, err = p.Job(ctx, h.Target, "job-after", 0)
	require.NoError(t, err)
	require.Equal(t, remote.Running, job.State)
	require.Len(t, sleepers(h, "1061"), 1)
}

// A command that closes its streams, or reads what is not there, ends like any other.
func TestStreamsAreClosed(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	job, stdout, _, err := p.Run(testContext(t), h.Target, "job-closed", remote.Command{
		Shell: "exec 0<&-; cat; echo out; exec 1>&- 2>&-; sleep 0.3; exit 6", Stdin: []byte("unread"),
	}, wait, 100, 0)
	require.NoError(t, err)
	require.Equal(t, 6, job.ExitCode)
	require.Equal(t, "out\n", string(stdout.Head))
}
