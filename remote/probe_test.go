//go:build unix

package remote_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

// smi is a stand-in for nvidia-smi that gives each kind of query its own answer.
func smi(list, plain, ecc string) string {
	return "#!/bin/sh\ncase \"$*\" in\n*ecc.errors*) " + ecc + " ;;\n*query*) " + list + " ;;\n*) " + plain + " ;;\nesac\n"
}

func TestHealth(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	const two = `printf '0, NVIDIA A10, GPU-aa, 23028, 535.1\n1, NVIDIA A10, GPU-bb, 23028, 535.1\n'`
	for name, tt := range map[string]struct {
		shim      string
		want      int
		reason    string
		gpus      int
		simulated bool
	}{
		"OK":            {shim: smi(two, "echo Fri", `printf '0, 0\n1, 0\n'`), want: 2, gpus: 2},
		"MoreThanPaid":  {shim: smi(two, "echo Fri", `printf '0, [N/A]\n1, [N/A]\n'`), want: 1, gpus: 2},
		"Simulated":     {shim: smi(two, "echo 'this GPU is Simulated'", "exit 2"), want: 2, gpus: 2, simulated: true},
		"Missing":       {shim: smi(two, "echo Fri", "exit 2"), want: 4, gpus: 2, reason: "2 of 4 GPUs"},
		"ECC":           {shim: smi(two, "echo Fri", `printf '0, 0\n1, 3\n'`), want: 2, gpus: 2, reason: "GPU 1 has 3 uncorrected ECC errors"},
		"Lost":          {shim: smi("echo 'Unable to determine the device handle'; exit 15", "exit 15", "exit 15"), want: 1, reason: "nvidia-smi exits with 15: Unable to determine"},
		"Unknown":       {shim: smi("echo '0, NVIDIA A10, GPU-aa, [Unknown Error], 535.1'", "echo Fri", "exit 2"), want: 1, reason: "[Unknown Error]"},
		"NoGPUs":        {shim: smi("echo 'No devices were found'", "exit 6", "exit 6"), want: 1, reason: "No devices were found"},
		"NotInstalled":  {want: 1, shim: "", reason: "no nvidia-smi"},
		"CPU":           {want: 0, shim: ""},
		"CPUButBroken":  {want: 0, shim: smi("exit 9", "exit 9", "exit 9")},
		"SharedMemory":  {shim: smi("echo '0, NVIDIA GB10, GPU-aa, [N/A], 580.1'", "echo Fri", "exit 2"), want: 1, gpus: 1},
		"CommaInName":   {shim: smi(`echo '0, "NVIDIA A, B", GPU-aa, 100, 1'`, "echo Fri", "exit 2"), want: 1, gpus: 1},
		"LogLineBefore": {shim: smi("echo warning; "+two, "echo Fri", "exit 2"), want: 2, reason: "nvidia-smi says: warning"},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.shim == "" {
				tt.shim = "#!/bin/sh\nexit 127\n"
			}
			h.shim(t, "nvidia-smi", tt.shim)
			health, err := p.Health(testContext(t), h.Target, tt.want)
			require.NoError(t, err)
			require.Contains(t, health.Reason, tt.reason)
			require.Equal(t, tt.reason == "", health.Healthy, health.Reason)
			require.Equal(t, tt.reason == "", health.Reason == "", health.Reason)
			require.Len(t, health.GPUs, tt.gpus)
			require.Equal(t, tt.simulated, health.Simulated)
			if name == "OK" {
				require.Equal(t, remote.GPU{Index: 1, Name: "NVIDIA A10", UUID: "GPU-bb", MemoryMiB: 23028, Driver: "535.1"}, health.GPUs[1])
			}
		})
	}
}

// What the kernel has said since boot counts when it is hardware that failed, and not some program.
func TestHealthByTheKernelsWord(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	h.shim(t, "nvidia-smi", smi("echo '0, NVIDIA A10, GPU-aa, 23028, 535.1'", "echo Fri", "echo '0, 0'"))
	for kernel, reason := range map[string]string{
		"[1.0] NVRM: Xid (PCI:0000:07:00): 31, pid=1, name=python3": "",
		"[1.0] usb 1-1: new device":                                 "",
		"[1.0] NVRM: Xid (PCI:0000:07:00): 79, GPU has fallen":      "Xid 79 on GPU 0000:07:00: the GPU has fallen off the bus: the machine is broken (GPU has fallen)",
	} {
		h.shim(t, "dmesg", "#!/bin/sh\necho '"+kernel+"'\n")
		health, err := p.Health(testContext(t), h.Target, 1)
		require.NoError(t, err)
		require.Equal(t, reason, health.Reason)
		require.Equal(t, reason == "", health.Healthy)
	}
}

func TestCloudInit(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	for name, tt := range map[string]struct {
		says, state string
		code        string
	}{
		"Done":     {says: "status: done", state: remote.CloudInitDone, code: "0"},
		"Running":  {says: "status: running\\ntime: x", state: remote.CloudInitRunning, code: "0"},
		"NotRun":   {says: "status: not run", state: remote.CloudInitRunning, code: "0"},
		"Error":    {says: "status: error\\ndetail: module failed", state: remote.CloudInitError, code: "1"},
		"Degraded": {says: "status: done\\nextended_status: degraded done", state: remote.CloudInitDone, code: "2"},
		"Disabled": {says: "status: disabled", state: remote.CloudInitAbsent, code: "0"},
		"Garbage":  {says: "Traceback", state: remote.CloudInitRunning, code: "1"},
	} {
		t.Run(name, func(t *testing.T) {
			h.shim(t, "cloud-init", "#!/bin/sh\n[ \"$1\" = status ] || exit 64\nprintf '"+tt.says+"\\n'\nexit "+tt.code+"\n")
			c, err := p.CloudInit(testContext(t), h.Target)
			require.NoError(t, err)
			require.Equal(t, tt.state, c.State)
			require.Equal(t, strings.ReplaceAll(tt.says, `\n`, " "), c.Detail)
		})
	}
}
