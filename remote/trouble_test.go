//go:build unix

package remote_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest/machine"
	"github.com/gpulease/gpulease/remote"
)

func TestMachineTrouble(t *testing.T) {
	t.Parallel()
	m, target := startMachine(t, machine.Config{GPU: machine.GPU{Count: 1, Name: "NVIDIA A10", MemoryMiB: 23028, Emulate: true}})
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	job, _, _, err := p.Run(ctx, target, "job-trouble-none", remote.Command{Shell: "exit 1"}, wait, 0, 0)
	require.NoError(t, err)
	require.Empty(t, job.Trouble)
	require.NoError(t, m.SetGPUFault("xid"))
	job, _, _, err = p.Run(ctx, target, "job-trouble-xid", remote.Command{Shell: "exit 1"}, wait, 0, 0)
	require.NoError(t, err)
	require.Len(t, job.Trouble, 1)
	require.Contains(t, job.Trouble[0], "Xid 79 on GPU 0000:08:00: the GPU has fallen off the bus")
	job, _, _, err = p.Run(ctx, target, "job-trouble-fine", remote.Command{Shell: "exit 0"}, wait, 0, 0)
	require.NoError(t, err)
	require.Empty(t, job.Trouble, "a job that does not fail has none")
}

func TestTroubleOnAHost(t *testing.T) {
	t.Parallel()
	onEachShell(t, func(t *testing.T, h *host, shell string) {
		// Long before the job, now, and ours but of no interest.
		h.shim(t, "dmesg", `#!/bin/sh
read -r up rest </proc/uptime
echo '[    1.000000] NVRM: Xid (PCI:0000:07:00): 79, long ago'
echo "[$up] NVRM: Xid (PCI:0000:08:00): 31, pid=1, name=python3"
echo "[$up] Out of memory: Killed process 4242 (python3) total-vm:1kB"
echo "[$up] usb 1-1: new device"
`)
		p := newPool(t, remote.Config{})
		job, _, _, err := p.Run(testContext(t), h.Target, "job-trouble-"+shell, remote.Command{
			Shell: "echo fine >&2; printf 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB\\n' >&2; exit 1",
		}, wait, 0, 0)
		require.NoError(t, err)
		require.Equal(t, []string{
			"Xid 31 on GPU 0000:08:00: the program accessed GPU memory that is not its own (pid=1, name=python3)",
			"killed for lack of memory: process 4242 (python3)",
			"CUDA out of memory. Tried to allocate 20.00 GiB",
		}, job.Trouble)
		require.Equal(t, remote.ReasonExit, job.Reason)
	})
}

// The kernel kills a job that takes more memory than its cgroup may.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	limit := memoryLimit(t, 40<<20)
	h := startHost(t)
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	enter := fmt.Sprintf("echo $$ >%s/cgroup.procs || exit 77; ", limit)
	job, _, stderr, err := p.Run(ctx, h.Target, "job-oom", remote.Command{Shell: enter + "exec tail -c 200000000 < <(head -c 300000000 /dev/zero)"}, wait, 0, 100)
	require.NoError(t, err)
	require.Equal(t, 137, job.ExitCode, "%s", stderr.Head)
	require.Equal(t, remote.ReasonOOM, job.Reason)
	require.Contains(t, fmt.Sprint(job.Trouble), "(tail)", "the kernel's log names it")
	require.Contains(t, fmt.Sprint(job.Trouble), "killed for lack of memory")
	job, _, _, err = p.Run(ctx, h.Target, "job-oom-child", remote.Command{Shell: enter + "head -c 300000000 /dev/zero | tail -c 200000000; exit 1"}, wait, 0, 100)
	require.NoError(t, err)
	require.Equal(t, remote.ReasonExit, job.Reason, "the job itself lived on")
	require.Contains(t, fmt.Sprint(job.Trouble), "killed for lack of memory")
}

// memoryLimit makes a cgroup with so little memory.
func memoryLimit(t *testing.T, bytes int) string {
	t.Helper()
	for _, way := range []struct{ root, file string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, {"/sys/fs/cgroup", "memory.max"},
	} {
		dir := filepath.Join(way.root, fmt.Sprintf("gpulease-oom-%d", os.Getpid()))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() {
			require.Eventually(t, func() bool { return os.Remove(dir) == nil }, wait, 20*wait/1000)
		})
		if os.WriteFile(filepath.Join(dir, way.file), fmt.Append(nil, bytes), 0) == nil {
			return dir
		}
	}
	t.Skip("no cgroup with a memory limit can be made here: that needs root and Linux")
	return ""
}
