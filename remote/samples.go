package remote

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Samples is what a machine has been doing, from one look each 15 s. Figures are [Unknown] where no look told them.
// Times are by the machine's clock.
type Samples struct {
	Count int       // looks
	Since time.Time // the first of them; zero when there is none yet
	Until time.Time // the last
	// GPUKnown is how many looks told whether the GPUs work, and GPUBusyPercent in how many of a hundred of those one of
	// them did, by more than 5 %.
	GPUKnown       int
	GPUBusyPercent int
	SinceGPUBusy   time.Duration // since the newest look that found one at work; negative when none did
	GPUs           []GPUSamples

	CPUPercent, MemoryUsedMiB, DiskUsedPercent Range
	MemoryMiB                                  int64
}

// GPUSamples is what one GPU has been doing.
type GPUSamples struct {
	Index                                                int
	UtilPercent, MemoryUsedMiB, PowerWatts, TemperatureC Range
}

// Range is the average and the greatest of a figure; both are [Unknown] without any.
type Range struct{ Average, Max int64 }

// Samples sums up what the machine's sampler has seen in the newest window of time; 0 is all that it remembers, a day
// at least. The sampler is a small process of its own on the machine, one at most, which this call starts when there is
// none: at first and after a reboot. It is no job, and is not to be seen in [Activity].
func (p *Pool) Samples(ctx context.Context, t Target, window time.Duration) (Samples, error) {
	if window < 0 {
		return Samples{}, invalid("window %s", window)
	}
	seconds := strconv.FormatInt(int64((window+time.Second-1)/time.Second), 10)
	var s Samples
	err := p.with(ctx, t, func(n *conn) error {
		r, err := n.call(ctx, request{script: probeScript, args: []string{"samples", seconds}})
		if err == nil {
			s, err = parseSamples(r)
		}
		return err
	})
	if err != nil {
		return Samples{}, fmt.Errorf("samples: %w", err)
	}
	return s, nil
}

// EndSamples ends the machine's sampler, in 15 s at most. What it has written down stays.
func (p *Pool) EndSamples(ctx context.Context, t Target) error {
	err := p.with(ctx, t, func(n *conn) error {
		_, err := n.call(ctx, request{script: probeScript, args: []string{"unsample"}})
		return err
	})
	if err != nil {
		return fmt.Errorf("end sampler: %w", err)
	}
	return nil
}

func parseSamples(r reply) (Samples, error) {
	now, err := r.numbers("now", 1)
	if err != nil {
		return Samples{}, err
	}
	head, err := r.numbers("samples", 3)
	if err != nil {
		return Samples{}, err
	}
	s := Samples{Count: int(head[0]), GPUBusyPercent: Unknown, SinceGPUBusy: -1, MemoryMiB: Unknown}
	if s.Count > 0 {
		s.Since, s.Until = time.Unix(head[1], 0).UTC(), time.Unix(head[2], 0).UTC()
	}
	busy, err := r.numbers("busy", 3)
	if err != nil {
		if busy, err = r.numbers("busy", 2); err != nil {
			return Samples{}, err
		}
	}
	if busy[1] > busy[0] || busy[0] > 1<<40 {
		return Samples{}, fmt.Errorf("%w: busy %q", ErrMachine, r.get("busy"))
	}
	if s.GPUKnown = int(busy[0]); s.GPUKnown > 0 {
		s.GPUBusyPercent = int((busy[1]*100 + busy[0]/2) / busy[0])
	}
	if len(busy) == 3 {
		s.SinceGPUBusy = time.Duration(min(max(now[0]-busy[2], 0), 1<<32)) * time.Second
	}
	s.CPUPercent, s.DiskUsedPercent = ranges(r.get("cpu"), 1)[0], ranges(r.get("disk"), 1)[0]
	memory := ranges(r.get("memory"), 2)
	s.MemoryUsedMiB, s.MemoryMiB = Range{mib(memory[0].Average), mib(memory[0].Max)}, mib(memory[1].Max)
	for _, f := range r.fields {
		if f.key != "gpu" {
			continue
		}
		index, rest, _ := strings.Cut(f.value, " ")
		g := ranges(rest, 4)
		s.GPUs = append(s.GPUs, GPUSamples{int(count(index)), g[0], g[1], g[2], g[3]})
	}
	return s, nil
}

// ranges reads n pairs of average and greatest; those that are not there are unknown.
func ranges(text string, n int) []Range {
	words := append(strings.Fields(text), make([]string, 2*n)...)
	out := make([]Range, n)
	for i := range out {
		out[i] = Range{count(words[2*i]), count(words[2*i+1])}
	}
	return out
}

func mib(kib int64) int64 {
	if kib < 0 {
		return Unknown
	}
	return kib >> 10
}
