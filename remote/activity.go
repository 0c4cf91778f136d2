package remote

import (
	"context"
	"encoding/csv"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Unknown stands for a figure that the machine did not tell. It is never to be taken for a small one.
const Unknown = -1

// Activity is what a machine is doing at one moment. Figures are [Unknown] where they cannot be read.
type Activity struct {
	RunningJobs int           // also those whose supervisor is gone while their command lives on
	SinceJobEnd time.Duration // since the newest job ended, by the machine's clock; negative where none has ended yet
	Logins      int           // people's terminals, as who counts them; 0 where it cannot be told
	GPUs        []Load        // one for each GPU that answers
	// GPUKnown says that nvidia-smi answered properly, with the utilisation of every GPU. Without it nothing may be
	// concluded from GPUs: there may be more, and they may be busy.
	GPUKnown        bool
	CPUPercent      int // of all processors together, over a quarter of a second or more; 0 to 100
	MemoryUsedMiB   int64
	MemoryMiB       int64
	DiskUsedPercent int // of the disk with the home directory; 0 to 100
	DiskFreeMiB     int64
}

// Load is what one GPU is doing. Figures are [Unknown] where the card does not tell them.
type Load struct {
	Index         int
	UtilPercent   int // 0 to 100
	MemoryUsedMiB int64
	MemoryMiB     int64
	PowerWatts    int
	TemperatureC  int
}

// Activity asks the machine what it is doing. It takes a quarter of a second and one round trip, and 12 s more when
// nvidia-smi hangs. A machine that cannot tell a figure is not an error.
func (p *Pool) Activity(ctx context.Context, t Target) (Activity, error) {
	var a Activity
	err := p.with(ctx, t, func(n *conn) error {
		r, err := n.call(ctx, request{script: probeScript, args: []string{"activity"}, data: 64 << 10})
		if err == nil {
			a, err = parseActivity(r)
		}
		return err
	})
	if err != nil {
		return Activity{}, fmt.Errorf("activity: %w", err)
	}
	return a, nil
}

func parseActivity(r reply) (Activity, error) {
	running, err := r.numbers("running", 1)
	if err != nil {
		return Activity{}, err
	}
	a := Activity{
		RunningJobs: int(running[0]), SinceJobEnd: -1, CPUPercent: Unknown, MemoryUsedMiB: Unknown, MemoryMiB: Unknown,
		DiskUsedPercent: Unknown, DiskFreeMiB: Unknown,
	}
	if a.SinceJobEnd, err = sinceEnd(r.get("now"), r.get("ended")); err != nil {
		return Activity{}, err
	}
	if n, err := r.numbers("logins", 1); err == nil {
		a.Logins = int(n[0])
	}
	if n, err := r.numbers("cpu", 4); err == nil {
		a.CPUPercent = busy(n[2]-n[0], n[3]-n[1])
	}
	if n, err := r.numbers("memory", 2); err == nil && n[0] >= n[1] {
		a.MemoryMiB, a.MemoryUsedMiB = n[0]>>10, (n[0]-n[1])>>10
	}
	if n, err := r.numbers("disk", 2); err == nil && n[0] <= 100 {
		a.DiskUsedPercent, a.DiskFreeMiB = int(n[0]), n[1]>>10
	}
	said, status := answer(string(r.data))
	a.GPUs, a.GPUKnown = parseLoads(said)
	a.GPUKnown = a.GPUKnown && failure(said, status) == nil
	return a, nil
}

// sinceEnd is negative without an end, and 0 when the machine's clock was set back after it.
func sinceEnd(now, ended string) (time.Duration, error) {
	if ended == "" {
		return -1, nil
	}
	then, err := wallTime(ended)
	if err != nil {
		return 0, fmt.Errorf("%w: ended %q", ErrMachine, ended)
	}
	at, err := wallTime(now)
	if err != nil || now == "" {
		return 0, fmt.Errorf("%w: now %q", ErrMachine, now)
	}
	return max(at.Sub(then), 0), nil
}

// busy is the share of total ticks that were not idle, in percent.
func busy(total, idle int64) int {
	if total <= 0 || idle < 0 || idle > total {
		return Unknown
	}
	return int(math.Round(100 * float64(total-idle) / float64(total)))
}

// parseLoads reads the table of probe.sh's activity. It reports whether each row makes sense and tells its
// utilisation, and that there is one.
func parseLoads(text string) (loads []Load, whole bool) {
	whole = true
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		l, ok := parseLoad(line)
		if !ok {
			whole = false
			continue
		}
		whole = whole && l.UtilPercent != Unknown
		loads = append(loads, l)
	}
	return loads, whole && len(loads) > 0
}

func parseLoad(line string) (Load, bool) {
	row := csv.NewReader(strings.NewReader(line))
	row.TrimLeadingSpace = true
	row.FieldsPerRecord = 6
	f, err := row.Read()
	if err != nil {
		return Load{}, false
	}
	index, err := strconv.Atoi(f[0])
	if err != nil || index < 0 {
		return Load{}, false
	}
	return Load{
		Index: index, UtilPercent: int(figure(f[1], 100)), MemoryUsedMiB: figure(f[2], mostFigure), MemoryMiB: figure(f[3], mostFigure),
		PowerWatts: int(figure(f[4], mostFigure)), TemperatureC: int(figure(f[5], mostFigure)),
	}, true
}

const mostFigure = 1 << 30

// figure rounds a number; Unknown for "[N/A]", "[Unknown Error]" and whatever else is none from 0 to most.
func figure(s string, most float64) int64 {
	n, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || !(n >= 0 && n <= most) {
		return Unknown
	}
	return int64(math.Round(n))
}
