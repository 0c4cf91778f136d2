package machine

import (
	"crypto/sha256"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// GPU is what the machine's nvidia-smi shows. A host that has a real nvidia-smi
// shows that one instead, unless Emulate or a fault is set.
type GPU struct {
	// Count is how many there are. With 0 there is no nvidia-smi at all.
	Count int
	// Name is as nvidia-smi prints it, for instance "NVIDIA A10".
	Name string
	// MemoryMiB is the memory of each.
	MemoryMiB int
	// Fault is what is wrong with them: "" for nothing; "missing": one fewer than
	// Count; "ecc": uncorrected memory errors on the first; "xid" or "dead": the
	// first has fallen off the bus and nvidia-smi fails; "hang": nvidia-smi never
	// answers.
	Fault string
	// Emulate is for tests that must see the same GPUs on every host.
	Emulate bool

	utilization, usedMiB int
}

func knownFault(fault string) (string, error) {
	switch fault {
	case "", "missing", "ecc", "xid", "dead", "hang":
		return fault, nil
	}
	return "", fmt.Errorf("no GPU fault %q: there are missing, ecc, xid, dead and hang", fault)
}

// SetGPUFault changes what is wrong with the GPUs; see GPU.Fault.
func (m *Machine) SetGPUFault(fault string) error {
	fault, err := knownFault(fault)
	if err != nil {
		return err
	}
	m.gpuMu.Lock()
	defer m.gpuMu.Unlock()
	m.gpu.Fault = fault
	return m.writeGPUs()
}

// SetGPULoad changes what the emulated nvidia-smi says that each GPU is doing:
// utilization in percent, and memory in use in MiB.
func (m *Machine) SetGPULoad(utilization, usedMiB int) error {
	m.gpuMu.Lock()
	defer m.gpuMu.Unlock()
	m.gpu.utilization = min(max(utilization, 0), 100)
	m.gpu.usedMiB = min(max(usedMiB, 0), m.gpu.MemoryMiB)
	return m.writeGPUs()
}

// driver is the version that the public images had in 2026.
const driver = "570.148.08"

// writeGPUs writes the tables that the nvidia-smi program reads, and the program.
// m.gpuMu is held.
func (m *Machine) writeGPUs() error {
	g := m.gpu
	_, err := exec.LookPath("nvidia-smi")
	emulate := g.Count > 0 && (err != nil || g.Emulate || g.Fault != "")
	if err := m.writeShim("nvidia-smi", emulate); err != nil || !emulate {
		return err
	}
	count := g.Count
	if g.Fault == "missing" {
		count--
	}
	var b strings.Builder
	for i := range count {
		fields := g.fields(m.id, i, count)
		if i == 0 {
			for j, f := range fields {
				b.WriteString(tab(j) + f.name)
			}
			b.WriteByte('\n')
			for j, f := range fields {
				b.WriteString(tab(j) + f.unit)
			}
			b.WriteByte('\n')
		}
		for j, f := range fields {
			b.WriteString(tab(j) + f.value)
		}
		b.WriteByte('\n')
	}
	if err := m.writeRun("gpus", b.String()); err != nil {
		return err
	}
	return m.writeRun("gpu-fault", g.Fault+"\n")
}

func tab(column int) string {
	if column == 0 {
		return ""
	}
	return "\t"
}

// field is a column of nvidia-smi --query-gpu.
type field struct{ name, unit, value string }

func (g GPU) fields(id string, index, count int) []field {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", id, index))
	bus := fmt.Sprintf("00000000:%02X:00.0", 8+index)
	power, limit := 15+index%3+g.utilization*2, 300
	errs := 0
	if g.Fault == "ecc" && index == 0 {
		errs = 7
	}
	n := strconv.Itoa
	return []field{
		{"index", "", n(index)},
		{"name", "", g.Name},
		{"gpu_name", "", g.Name},
		{"uuid", "", fmt.Sprintf("GPU-%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])},
		{"gpu_uuid", "", fmt.Sprintf("GPU-%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])},
		{"count", "", n(count)},
		{"driver_version", "", driver},
		{"compute_cap", "", computeCapability(g.Name)},
		{"pci.bus_id", "", bus},
		{"gpu_bus_id", "", bus},
		{"memory.total", "MiB", n(g.MemoryMiB)},
		{"memory.used", "MiB", n(g.usedMiB)},
		{"memory.free", "MiB", n(g.MemoryMiB - g.usedMiB)},
		{"memory.reserved", "MiB", "0"},
		{"utilization.gpu", "%", n(g.utilization)},
		{"utilization.memory", "%", n(g.utilization / 2)},
		{"temperature.gpu", "", n(31 + index%4 + g.utilization/3)},
		{"power.draw", "W", n(power) + ".00"},
		{"power.limit", "W", n(limit) + ".00"},
		{"pstate", "", "P8"},
		{"persistence_mode", "", "Enabled"},
		{"compute_mode", "", "Default"},
		{"mig.mode.current", "", "[N/A]"},
		{"ecc.mode.current", "", "Enabled"},
		{"ecc.errors.corrected.volatile.total", "", "0"},
		{"ecc.errors.corrected.aggregate.total", "", "0"},
		{"ecc.errors.uncorrected.volatile.total", "", n(errs)},
		{"ecc.errors.uncorrected.aggregate.total", "", n(errs)},
		{"retired_pages.pending", "", "[N/A]"},
		{"remapped_rows.uncorrectable", "", n(errs)},
		{"remapped_rows.pending", "", "No"},
		{"remapped_rows.failure", "", "No"},
	}
}

// capabilities are CUDA compute capabilities, the more special names first.
var capabilities = []struct{ name, version string }{
	{"GH200", "9.0"}, {"H200", "9.0"}, {"H100", "9.0"}, {"B200", "10.0"}, {"B300", "10.3"},
	{"A100", "8.0"}, {"A6000", "8.6"}, {"A10", "8.6"}, {"L40", "8.9"}, {"L4", "8.9"},
	{"RTX 6000 Ada", "8.9"}, {"RTX 6000", "7.5"}, {"V100", "7.0"}, {"T4", "7.5"},
}

func computeCapability(name string) string {
	for _, c := range capabilities {
		if strings.Contains(name, c.name) {
			return c.version
		}
	}
	return "8.0"
}
