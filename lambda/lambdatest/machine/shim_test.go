package machine_test

import (
	"encoding/csv"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest/machine"
)

func withGPUs(count int, name string, memoryMiB int) func(*machine.Config) {
	return func(c *machine.Config) {
		c.GPU = machine.GPU{Count: count, Name: name, MemoryMiB: memoryMiB, Emulate: true}
	}
}

// shells are those of this host that must be able to run the programs.
func shells(t *testing.T) map[string]string {
	found := map[string]string{}
	for _, argv := range []string{"sh", "dash", "bash", "busybox sh"} {
		if _, err := exec.LookPath(strings.Fields(argv)[0]); err == nil {
			found[argv] = argv
		}
	}
	require.NotEmpty(t, found)
	return found
}

func TestNvidiaSMI(t *testing.T) {
	h := start(t, withGPUs(2, "NVIDIA H100 80GB HBM3", 81559))
	for shell := range shells(t) {
		t.Run(shell, func(t *testing.T) {
			smi := func(args string) result { return h.run(t, shell+` "$(command -v nvidia-smi)" `+args) }

			list := smi("-L")
			require.Zero(t, list.code)
			require.Regexp(t, `^GPU 0: NVIDIA H100 80GB HBM3 \(UUID: GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\)\nGPU 1: [^\n]*\n$`, list.stdout)

			all := smi("--query-gpu=index,name,uuid,memory.total,memory.used,memory.free,utilization.gpu,utilization.memory," +
				"temperature.gpu,power.draw,driver_version,pci.bus_id,count,ecc.errors.uncorrected.volatile.total,compute_cap --format=csv,noheader,nounits")
			require.Zero(t, all.code, all.stdout)
			r := csv.NewReader(strings.NewReader(all.stdout))
			r.TrimLeadingSpace = true
			rows, err := r.ReadAll()
			require.NoError(t, err)
			require.Len(t, rows, 2)
			require.Equal(t, []string{"0", "NVIDIA H100 80GB HBM3"}, rows[0][:2])
			require.Equal(t, []string{"81559", "0", "81559", "0", "0", "31", "15.00", "570.148.08", "00000000:08:00.0", "2", "0", "9.0"}, rows[0][3:])
			require.Contains(t, list.stdout, rows[1][2])
			require.NotEqual(t, rows[0][2], rows[1][2])

			require.Equal(t, "index, memory.total [MiB], utilization.gpu [%]\n1, 81559 MiB, 0 %\n",
				smi("--query-gpu=index,memory.total,utilization.gpu --format=csv -i 1").stdout)
			require.Equal(t, "memory.total [MiB]\n81559\n81559\n", smi("--query-gpu memory.total --format csv,nounits").stdout)

			bad := smi("--query-gpu=index,flux --format=csv")
			require.Equal(t, 2, bad.code)
			require.Contains(t, bad.stdout, `Field "flux" is not a valid field to query.`)
			require.Equal(t, 2, smi("--query-gpu=index").code, "a format is needed")
			require.Equal(t, result{}, smi("--query-compute-apps=pid,used_memory --format=csv,noheader"))
			require.Equal(t, "pid, used_gpu_memory [MiB]\n", smi("--query-compute-apps=pid,used_gpu_memory --format=csv").stdout)

			table := smi("")
			require.Zero(t, table.code)
			require.Contains(t, table.stdout, "SIMULATED")
			require.Contains(t, table.stdout, "81559MiB")
			lines := strings.Split(strings.TrimSpace(table.stdout), "\n")[1:]
			for _, line := range lines {
				require.Len(t, line, len(lines[0]), line)
			}
			require.Contains(t, smi("--help").stdout, "simulated")
			require.Equal(t, 2, smi("dmon").code)
			require.Equal(t, 6, smi("-L -i 9").code)
		})
	}
}

func TestGPUFaults(t *testing.T) {
	h := start(t, withGPUs(2, "NVIDIA A10", 23028))
	const query = "nvidia-smi --query-gpu=index,ecc.errors.uncorrected.volatile.total --format=csv,noheader"
	for _, tc := range []struct {
		fault string
		want  result
	}{
		{"", result{stdout: "0, 0\n1, 0\n"}},
		{"missing", result{stdout: "0, 0\n"}},
		{"ecc", result{stdout: "0, 7\n1, 0\n"}},
		{"", result{stdout: "0, 0\n1, 0\n"}},
	} {
		require.NoError(t, h.SetGPUFault(tc.fault))
		require.Equal(t, tc.want, h.run(t, query), tc.fault)
	}
	for _, fault := range []string{"xid", "dead"} {
		require.NoError(t, h.SetGPUFault(fault))
		for _, command := range []string{query, "nvidia-smi", "nvidia-smi -L"} {
			r := h.run(t, command)
			require.NotZero(t, r.code)
			require.Contains(t, r.stdout, "Unable to determine the device handle")
		}
	}
	require.Error(t, h.SetGPUFault("melted"))

	one := start(t, withGPUs(1, "NVIDIA A10", 23028), func(c *machine.Config) { c.GPU.Fault = "missing" })
	require.Equal(t, result{stdout: "No devices were found\n", code: 6}, one.run(t, "nvidia-smi -L"))
}

func TestGPULoad(t *testing.T) {
	h := start(t, withGPUs(1, "NVIDIA A10", 23028))
	require.NoError(t, h.SetGPULoad(90, 20000))
	require.Equal(t, "90, 20000, 3028\n",
		h.run(t, "nvidia-smi --query-gpu=utilization.gpu,memory.used,memory.free --format=csv,noheader,nounits").stdout)
}

// TestRealNvidiaSMI: what the host really has is shown, except that it cannot show
// a fault.
func TestRealNvidiaSMI(t *testing.T) {
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "nvidia-smi"), []byte("#!/bin/sh\necho real\n"), 0o755))
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	h := start(t, withGPUs(1, "NVIDIA A10", 23028), func(c *machine.Config) { c.GPU.Emulate = false })
	require.Equal(t, "real\n", h.run(t, "nvidia-smi -L").stdout)
	require.NoError(t, h.SetGPUFault("missing"))
	require.Equal(t, "No devices were found\n", h.run(t, "nvidia-smi -L").stdout)
	require.NoError(t, h.SetGPUFault(""))
	require.Equal(t, "real\n", h.run(t, "nvidia-smi -L").stdout)
}

func TestNoGPU(t *testing.T) {
	if _, err := exec.LookPath("nvidia-smi"); err == nil {
		t.Skip("this host has a real nvidia-smi, which every machine shows")
	}
	h := start(t, func(c *machine.Config) { c.GPU = machine.GPU{} })
	require.Equal(t, 127, h.run(t, "nvidia-smi").code)
}

func TestSudo(t *testing.T) {
	h := start(t)
	for name, tc := range map[string]struct {
		args string
		want result
	}{
		"Plain":       {`echo "a  b"`, result{stdout: "a  b\n"}},
		"Flags":       {"-n -E -H echo x", result{stdout: "x\n"}},
		"Cluster":     {"-nEH echo x", result{stdout: "x\n"}},
		"User":        {"-u root echo x", result{stdout: "x\n"}},
		"UserJoined":  {"-uroot -n -- echo x", result{stdout: "x\n"}},
		"LongUser":    {"--non-interactive --user root echo x", result{stdout: "x\n"}},
		"DashDash":    {"-n -- sh -c 'exit 3'", result{code: 3}},
		"Assignment":  {`-n FOO=bar sh -c 'echo "$FOO"'`, result{stdout: "bar\n"}},
		"True":        {"-n true", result{}},
		"Validate":    {"-nv", result{}},
		"Shell":       {`-i 'echo "$HOME"' | grep -c home`, result{stdout: "1\n"}},
		"Stdin":       {"-n tee copy <.ssh/authorized_keys >/dev/null", result{}},
		"UnknownFlag": {"-z echo 2>&1", result{stdout: "sudo: invalid option -- 'z' (simulated sudo)\n", code: 1}},
	} {
		for shell := range shells(t) {
			t.Run(name+"/"+shell, func(t *testing.T) {
				require.Equal(t, tc.want, h.run(t, shell+` "$(command -v sudo)" `+tc.args))
			})
		}
	}
	mark := h.run(t, "sudo -n sh -c 'echo $"+machine.Mark+"'")
	require.Equal(t, h.id+"\n", mark.stdout, "what runs by sudo is of the machine, too")
}

func TestSmallPrograms(t *testing.T) {
	h := start(t, func(c *machine.Config) { c.Hostname = "gpu-box" })
	require.Equal(t, result{stdout: "gpu-box\n"}, h.run(t, "hostname"))
	require.Equal(t, result{stdout: "127.0.0.1\n"}, h.run(t, "hostname -I"))
	for _, name := range []string{"shutdown -h now", "poweroff", "halt", "reboot", "sudo -n reboot"} {
		r := h.run(t, name)
		require.Equal(t, 1, r.code, name)
		require.Contains(t, r.stderr, "simulated machine", name)
	}
	require.Contains(t, h.run(t, "cloud-init --version").stdout, "simulated")
	require.Equal(t, 2, h.run(t, "cloud-init clean").code)
	require.Equal(t, result{stdout: "status: done\n"}, h.run(t, "cloud-init status --wait"))
}
