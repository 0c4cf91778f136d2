package tools_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

func TestGetLeaseShowsWhatTheMachineDoes(t *testing.T) {
	d := &desk{row: ready(), jobs: func() ([]remote.Job, error) { return nil, nil }}
	d.use = func() (lease.Use, error) {
		return lease.Use{
			Now: remote.Activity{
				GPUs:       []remote.Load{{Index: 0, UtilPercent: 93, MemoryUsedMiB: 20000, MemoryMiB: 24000, PowerWatts: 250, TemperatureC: 71}, {Index: 1, UtilPercent: remote.Unknown, MemoryUsedMiB: remote.Unknown, MemoryMiB: remote.Unknown, PowerWatts: remote.Unknown, TemperatureC: 0}},
				CPUPercent: 0, MemoryUsedMiB: 1000, MemoryMiB: 200000, DiskUsedPercent: remote.Unknown, DiskFreeMiB: remote.Unknown,
			},
			GPUUse: lease.GPUUse{Watched: 10 * time.Minute, Busy: 4 * time.Minute},
		}, nil
	}
	got, text := answer(t, d, "get_lease", `{"lease_id":"abcdefghijkl"}`)
	require.Equal(t, map[string]any{
		"gpus": []any{
			map[string]any{"index": 0.0, "util_percent": 93.0, "memory_used_mib": 20000.0, "memory_mib": 24000.0, "power_watts": 250.0, "temperature_c": 71.0},
			map[string]any{"index": 1.0, "temperature_c": 0.0},
		},
		"cpu_percent": 0.0, "memory_used_mib": 1000.0, "memory_mib": 200000.0,
	}, got["machine"], "what is not known is not zero")
	require.Equal(t, "GPU busy 40% of 10 min", got["gpu_use"])
	require.Contains(t, text, "\nGPU 0 93% 20000/24000 MiB 250 W 71 C; GPU 1 0 C; CPU 0%; RAM 1000/200000 MiB\nGPU busy 40% of 10 min\n")

	d.use = func() (lease.Use, error) {
		return lease.Use{}, &lease.Error{Code: lease.CodeSSHUnreachable, Message: "the machine does not answer"}
	}
	got, _ = answer(t, d, "get_lease", `{"lease_id":"abcdefghijkl"}`)
	require.NotContains(t, got, "machine")
	require.Equal(t, []any{"what the machine does could not be seen: the machine does not answer"}, got["warnings"])
}

func TestTheReceiptOfStopLeaseHasTheUseOfTheGPUs(t *testing.T) {
	d := &desk{row: ready()}
	d.row.State, d.row.Reason, d.row.EndedAt, d.row.GoneAt = lease.Ended, lease.Stopped, noon, noon
	d.row.GPUWatched, d.row.GPUBusy = 42*time.Minute, 16*time.Minute
	d.stop = func() (lease.Lease, error) { return d.row, nil }
	got, text := answer(t, d, "stop_lease", `{"lease_id":"abcdefghijkl"}`)
	require.Equal(t, "GPU busy 38% of 42 min", got["gpu_use"])
	require.Contains(t, text, "; GPU busy 38% of 42 min\n")
}

func TestASickLeaseLeadsToTheOneAfterIt(t *testing.T) {
	d := &desk{row: ready(), second: "secondsecond"}
	d.row.State, d.row.Reason = lease.Ended, lease.GPUUnhealthy
	got, _ := answer(t, d, "get_lease", `{"lease_id":"abcdefghijkl"}`)
	require.Equal(t, "secondsecond", got["launched_again_as"])
	require.Equal(t, `get_lease with lease_id "secondsecond" and wait_seconds 45: that is the lease to use now`, got["next"])
}
