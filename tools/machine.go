package tools

import (
	"fmt"
	"strings"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

// machineNow is what a lease's machine is doing. A figure that it does not tell
// is absent: unknown is not zero.
type machineNow struct {
	GPUs            []gpuNow `json:"gpus,omitempty"`
	CPUPercent      *int64   `json:"cpu_percent,omitempty"`
	MemoryUsedMiB   *int64   `json:"memory_used_mib,omitempty"`
	MemoryMiB       *int64   `json:"memory_mib,omitempty"`
	DiskUsedPercent *int64   `json:"disk_used_percent,omitempty"`
	DiskFreeMiB     *int64   `json:"disk_free_mib,omitempty"`
}

type gpuNow struct {
	Index         int    `json:"index"`
	UtilPercent   *int64 `json:"util_percent,omitempty"`
	MemoryUsedMiB *int64 `json:"memory_used_mib,omitempty"`
	MemoryMiB     *int64 `json:"memory_mib,omitempty"`
	PowerWatts    *int64 `json:"power_watts,omitempty"`
	TemperatureC  *int64 `json:"temperature_c,omitempty"`
}

// told is nil for a figure that the machine did not tell.
func told[N int | int64](n N) *int64 {
	if n == remote.Unknown {
		return nil
	}
	v := int64(n)
	return &v
}

func machineOf(u lease.Use) *machineNow {
	a := u.Now
	m := &machineNow{
		CPUPercent: told(a.CPUPercent), MemoryUsedMiB: told(a.MemoryUsedMiB), MemoryMiB: told(a.MemoryMiB),
		DiskUsedPercent: told(a.DiskUsedPercent), DiskFreeMiB: told(a.DiskFreeMiB),
	}
	for _, g := range a.GPUs {
		m.GPUs = append(m.GPUs, gpuNow{
			Index: g.Index, UtilPercent: told(g.UtilPercent), MemoryUsedMiB: told(g.MemoryUsedMiB), MemoryMiB: told(g.MemoryMiB),
			PowerWatts: told(g.PowerWatts), TemperatureC: told(g.TemperatureC),
		})
	}
	return m
}

// line is the machine in one line, for people.
func (m *machineNow) line() string {
	var parts []string
	add := func(format string, figures ...*int64) {
		var values []any
		for _, f := range figures {
			if f == nil {
				return
			}
			values = append(values, *f)
		}
		parts = append(parts, fmt.Sprintf(format, values...))
	}
	for _, g := range m.GPUs {
		parts = append(parts, fmt.Sprintf("GPU %d", g.Index))
		before := len(parts)
		add("%d%%", g.UtilPercent)
		add("%d/%d MiB", g.MemoryUsedMiB, g.MemoryMiB)
		add("%d W", g.PowerWatts)
		add("%d C", g.TemperatureC)
		parts = append(parts[:before-1], strings.Join(parts[before-1:], " "))
	}
	add("CPU %d%%", m.CPUPercent)
	add("RAM %d/%d MiB", m.MemoryUsedMiB, m.MemoryMiB)
	add("disk %d%% used, %d MiB free", m.DiskUsedPercent, m.DiskFreeMiB)
	return strings.Join(parts, "; ")
}
