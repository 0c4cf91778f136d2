//go:build unix

package remote_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest/machine"
	"github.com/gpulease/gpulease/remote"
)

func TestMachineSamples(t *testing.T) {
	t.Parallel()
	m, target := startMachine(t, machine.Config{GPU: machine.GPU{Count: 2, Name: "NVIDIA A10", MemoryMiB: 23028, Emulate: true}})
	hurry(t, m.Home())
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	s, err := p.Samples(ctx, target, 0)
	require.NoError(t, err)
	require.Equal(t, remote.Unknown, s.GPUBusyPercent, "nothing is known yet, least of all that it is idle")
	require.Negative(t, s.SinceGPUBusy)
	more := func(n int) {
		t.Helper()
		want := s.Count + n
		require.Eventually(t, func() bool { s, err = p.Samples(ctx, target, 0); return err == nil && s.Count >= want }, wait, 50*time.Millisecond)
	}
	more(3)
	require.Zero(t, s.GPUBusyPercent)
	require.Equal(t, s.Count, s.GPUKnown)
	require.Negative(t, s.SinceGPUBusy)
	require.Len(t, s.GPUs, 2)
	require.Equal(t, remote.Range{}, s.GPUs[1].UtilPercent)

	require.NoError(t, m.SetGPULoad(80, 10000))
	more(4)
	require.True(t, s.GPUBusyPercent > 0 && s.GPUBusyPercent < 100, s.GPUBusyPercent)
	require.Equal(t, int64(80), s.GPUs[0].UtilPercent.Max)
	require.True(t, s.GPUs[0].UtilPercent.Average > 0 && s.GPUs[0].UtilPercent.Average < 80)
	require.Equal(t, int64(10000), s.GPUs[1].MemoryUsedMiB.Max)
	require.Positive(t, s.GPUs[1].PowerWatts.Average)
	require.Positive(t, s.GPUs[1].TemperatureC.Max)
	require.GreaterOrEqual(t, s.SinceGPUBusy, time.Duration(0))
	require.True(t, s.CPUPercent.Average >= 0 && s.CPUPercent.Max <= 100, s.CPUPercent)
	require.True(t, s.MemoryUsedMiB.Average > 0 && s.MemoryUsedMiB.Max < s.MemoryMiB, "%+v", s)
	require.Positive(t, s.DiskUsedPercent.Max)
	require.False(t, s.Since.IsZero() || s.Until.Before(s.Since))

	// GPUs that do not answer are not idle: those looks count for nothing.
	require.NoError(t, m.SetGPUFault("dead"))
	more(2)
	known := s.GPUKnown
	more(3)
	require.Equal(t, known, s.GPUKnown)
	a, err := p.Activity(ctx, target)
	require.NoError(t, err)
	require.Zero(t, a.RunningJobs, "the sampler is no job")
}

// However many start one, one goes on.
func TestOneSampler(t *testing.T) {
	t.Parallel()
	onEachShell(t, testOneSampler)
}

func testOneSampler(t *testing.T, h *host, _ string) {
	hurry(t, h.home)
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			_, err := p.Samples(ctx, h.Target, 0)
			assert.NoError(t, err)
		})
	}
	group.Wait()
	samplers := func() int { return len(withArguments(h, " sampler")) }
	require.Eventually(t, func() bool { return samplers() == 1 }, wait, 20*time.Millisecond, "of several that start at once one is left")
	first := withArguments(h, " sampler")
	for range 3 {
		_, err := p.Samples(ctx, h.Target, 0)
		require.NoError(t, err)
	}
	// One that has just been started may still be about to see that it is not needed.
	require.Eventually(t, func() bool { return slices.Equal(first, withArguments(h, " sampler")) }, wait, 20*time.Millisecond, "it is the same")
	require.NoError(t, p.EndSamples(ctx, h.Target))
	require.Eventually(t, func() bool { return samplers() == 0 }, wait, 20*time.Millisecond)
	_, err := p.Samples(ctx, h.Target, 0)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return samplers() == 1 }, wait, 20*time.Millisecond, "it can be started anew")
	require.Eventually(t, func() bool { // it may write while its directory is being removed
		return os.RemoveAll(filepath.Join(h.home, ".gpulease")) == nil && samplers() == 0
	}, wait, 20*time.Millisecond, "it goes with what it writes to")
}

// The ring stays small, lines that make no sense are skipped, and a window leaves out what is older.
func TestSamplesAreSummedUp(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	require.NoError(t, p.EndSamples(ctx, h.Target))
	now := time.Now().Unix()
	var ring strings.Builder
	for i := range 6000 {
		fmt.Fprintf(&ring, "%d 10 1024 4096 50 1 0 0 100 50 40\n", now-100_000+int64(i))
	}
	ring.WriteString("half a li\n1 2 3\n")
	fmt.Fprintf(&ring, "%d 30 3072 4096 50 1 0 100 -1 250 80\n", now-50)
	fmt.Fprintf(&ring, "%d 20 2048 4096 -1 0\n", now-20)
	dir := filepath.Join(h.home, ".gpulease/samples")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ring"), []byte(ring.String()), 0o600))
	s, err := p.Samples(ctx, h.Target, time.Hour)
	require.NoError(t, err)
	require.InDelta(t, 50, s.SinceGPUBusy.Seconds(), 15)
	s.SinceGPUBusy = 0
	require.Equal(t, remote.Samples{
		Count: 2, Since: time.Unix(now-50, 0).UTC(), Until: time.Unix(now-20, 0).UTC(), GPUKnown: 1, GPUBusyPercent: 100,
		CPUPercent: remote.Range{Average: 25, Max: 30}, MemoryUsedMiB: remote.Range{Average: 2, Max: 3}, MemoryMiB: 4,
		DiskUsedPercent: remote.Range{Average: 50, Max: 50},
		GPUs: []remote.GPUSamples{{
			UtilPercent: remote.Range{Average: 100, Max: 100}, MemoryUsedMiB: remote.Range{Average: -1, Max: -1},
			PowerWatts: remote.Range{Average: 250, Max: 250}, TemperatureC: remote.Range{Average: 80, Max: 80},
		}},
	}, s)
	s, err = p.Samples(ctx, h.Target, 0)
	require.NoError(t, err)
	require.Equal(t, 6002, s.Count)
	require.Equal(t, 6001, s.GPUKnown)
	require.Zero(t, s.GPUBusyPercent)
	_, err = p.Samples(ctx, h.Target, -time.Second)
	require.ErrorIs(t, err, remote.ErrInvalid)
}

// hurry makes the sampler look ten times a second.
func hurry(t *testing.T, home string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(home, ".bashrc"), []byte("export GPULEASE_SAMPLE_EVERY=10\n"), 0o600))
}

// withArguments lists the host's processes with that end of their arguments, without the shells that they fork for a
// moment.
func withArguments(h *host, end string) []int {
	parents := map[int]int{}
	for _, pid := range marked(h.mark) {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, rest, _ := strings.Cut(string(stat), ") ")
		var state string
		var parent int
		_, err := fmt.Sscan(rest, &state, &parent)
		if err == nil && strings.HasSuffix(strings.ReplaceAll(strings.TrimSuffix(string(line), "\x00"), "\x00", " "), end) {
			parents[pid] = parent
		}
	}
	var found []int
	for pid, parent := range parents {
		if _, fork := parents[parent]; !fork {
			found = append(found, pid)
		}
	}
	return found
}
