//go:build unix

package remote_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest/machine"
	"github.com/gpulease/gpulease/remote"
)

func TestMachineActivity(t *testing.T) {
	t.Parallel()
	m, target := startMachine(t, machine.Config{GPU: machine.GPU{Count: 2, Name: "NVIDIA A10", MemoryMiB: 23028, Emulate: true}})
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	a, err := p.Activity(ctx, target)
	require.NoError(t, err)
	require.Zero(t, a.RunningJobs)
	require.Negative(t, a.SinceJobEnd)
	require.Zero(t, a.Logins)
	require.True(t, a.GPUKnown)
	require.Len(t, a.GPUs, 2)
	require.Zero(t, a.GPUs[1].UtilPercent)
	require.Zero(t, a.GPUs[1].MemoryUsedMiB)

	require.NoError(t, m.SetGPULoad(83, 12000))
	_, _, _, err = p.Run(ctx, target, "job-activity-a", remote.Command{Shell: "true"}, wait, 0, 0)
	require.NoError(t, err)
	_, err = p.Start(ctx, target, "job-activity-b", remote.Command{Shell: "sleep 1020"})
	require.NoError(t, err)
	a, err = p.Activity(ctx, target)
	require.NoError(t, err)
	require.Equal(t, 1, a.RunningJobs)
	require.Positive(t, a.SinceJobEnd)
	require.Less(t, a.SinceJobEnd, time.Minute)
	require.True(t, a.GPUKnown)
	require.Equal(t, remote.Load{Index: 1, UtilPercent: 83, MemoryUsedMiB: 12000, MemoryMiB: 23028, PowerWatts: a.GPUs[1].PowerWatts, TemperatureC: a.GPUs[1].TemperatureC}, a.GPUs[1])
	require.Positive(t, a.GPUs[1].PowerWatts)
	require.Positive(t, a.GPUs[1].TemperatureC)

	for fault, known := range map[string]bool{"missing": true, "ecc": true, "xid": false, "dead": false} {
		require.NoError(t, m.SetGPUFault(fault))
		a, err = p.Activity(ctx, target)
		require.NoError(t, err)
		require.Equal(t, known, a.GPUKnown, fault)
		if fault == "missing" {
			require.Len(t, a.GPUs, 1)
		}
	}
}

func TestMachineWithoutGPUActivity(t *testing.T) {
	t.Parallel()
	_, target := startMachine(t, machine.Config{})
	a, err := newPool(t, remote.Config{}).Activity(testContext(t), target)
	require.NoError(t, err)
	require.False(t, a.GPUKnown)
	require.Empty(t, a.GPUs)
}

// A hanging nvidia-smi holds nothing up for long, and leaves the GPUs unknown rather than idle.
func TestMachineHangsInNvidiaSMI(t *testing.T) {
	t.Parallel()
	m, target := startMachine(t, machine.Config{GPU: machine.GPU{Count: 1, Name: "NVIDIA A10", MemoryMiB: 23028, Emulate: true}})
	p := newPool(t, remote.Config{})
	require.NoError(t, m.SetGPUFault("hang"))
	begun := time.Now()
	a, err := p.Activity(testContext(t), target)
	require.NoError(t, err)
	require.False(t, a.GPUKnown)
	require.Empty(t, a.GPUs)
	require.GreaterOrEqual(t, a.CPUPercent, 0, "the rest is told")
	require.WithinRange(t, time.Now(), begun.Add(9*time.Second), begun.Add(25*time.Second))
}

func TestActivity(t *testing.T) {
	t.Parallel()
	onEachShell(t, testActivity)
}

func testActivity(t *testing.T, h *host, shell string) {
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	h.shim(t, "who", `#!/bin/sh
printf 'ubuntu   pts/0        2026-11-27 12:00 (10.0.0.1)\nroot     tty1         2026-11-27 12:00\n'
printf 'ubuntu   pts/1        2026-11-27 12:00 (tmux(411).%%0)\nubuntu   pts/2        2026-11-27 12:00 (:pts/0:S.0)\n'
`)
	h.shim(t, "nvidia-smi", "#!/bin/sh\nprintf '0, 12, 345, 23028, 70.10, 51\\n1, 3, [N/A], 23028, [N/A], 50\\n'\n")
	begun := time.Now()
	a, err := p.Activity(ctx, h.Target)
	require.NoError(t, err)
	require.Less(t, time.Since(begun), 10*time.Second)
	require.Equal(t, 1, a.Logins, "a console and what tmux and screen enter are no logins over ssh")
	require.True(t, a.GPUKnown)
	require.Equal(t, []remote.Load{{0, 12, 345, 23028, 70, 51}, {1, 3, remote.Unknown, 23028, remote.Unknown, 50}}, a.GPUs)
	require.True(t, a.CPUPercent >= 0 && a.CPUPercent <= 100, a.CPUPercent)
	require.True(t, a.MemoryMiB > 100 && a.MemoryUsedMiB > 0 && a.MemoryUsedMiB < a.MemoryMiB, "%+v", a)
	require.True(t, a.DiskUsedPercent >= 0 && a.DiskFreeMiB > 0, "%+v", a)

	// The end counts from the newest of several, and a job whose supervisor was killed still works.
	id := "job-act-" + shell
	for _, n := range []string{"-3", "-1", "-2"} {
		_, _, _, err = p.Run(ctx, h.Target, id+n, remote.Command{Shell: "true"}, wait, 0, 0)
		require.NoError(t, err)
	}
	old := filepath.Join(h.home, ".gpulease/jobs", id+"-3", "exit")
	require.NoError(t, os.WriteFile(old, []byte("0 1000000000.5 exit\n"), 0o600))
	_, err = p.Start(ctx, h.Target, id+"-4", remote.Command{Shell: "echo up; sleep 1021"})
	require.NoError(t, err)
	page, err := p.Page(ctx, h.Target, id+"-4", remote.Stdout, 0, 10, wait)
	require.NoError(t, err)
	require.Equal(t, "up\n", string(page.Data))
	a, err = p.Activity(ctx, h.Target)
	require.NoError(t, err)
	require.Equal(t, 1, a.RunningJobs)
	require.True(t, a.SinceJobEnd >= 0 && a.SinceJobEnd < time.Minute, a.SinceJobEnd) // busybox's date knows whole seconds only
	killSupervisor(t, h, id+"-4")
	job, err := p.Job(ctx, h.Target, id+"-4", wait)
	require.NoError(t, err)
	require.Equal(t, remote.Lost, job.State)
	a, err = p.Activity(ctx, h.Target)
	require.NoError(t, err)
	require.Equal(t, 1, a.RunningJobs, "lost, and its command lives on")
	_, err = p.Cancel(ctx, h.Target, id+"-4", 0)
	require.NoError(t, err)
	a, err = p.Activity(ctx, h.Target)
	require.NoError(t, err)
	require.Zero(t, a.RunningJobs)
}

// What cannot be read is unknown, and a command that even SIGTERM does not end holds nothing up.
func TestActivityIsUnknown(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	require.NoError(t, os.WriteFile(filepath.Join(h.home, ".bashrc"), []byte("export GPULEASE_PROC=/nowhere\n"), 0o600))
	p := newPool(t, remote.Config{})
	h.shim(t, "nvidia-smi", "#!/bin/sh\ntrap '' TERM\nprintf '0, 12, 345, 23028, 70.10, 51\\n'\nwhile :; do sleep 0.1; done\n")
	h.shim(t, "df", "#!/bin/sh\nexit 1\n")
	h.shim(t, "who", "#!/bin/sh\nexit 1\n")
	a, err := p.Activity(testContext(t), h.Target)
	require.NoError(t, err)
	require.False(t, a.GPUKnown, "what hangs after its first line may have more to say")
	a.GPUs = nil
	require.Equal(t, remote.Activity{
		SinceJobEnd: -1, CPUPercent: remote.Unknown, MemoryUsedMiB: remote.Unknown, MemoryMiB: remote.Unknown,
		DiskUsedPercent: remote.Unknown, DiskFreeMiB: remote.Unknown,
	}, a)
}
