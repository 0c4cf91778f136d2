package tools

import (
	"fmt"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
)

// jobFields is where a job stands. Its state and reason are the job's; the
// lease's state is lease_state. The schemas leave out what needs no telling.
type jobFields struct {
	JobID           string   `json:"job_id"`
	State           string   `json:"state" jsonschema:"enum=running,enum=exited,enum=lost"`
	ExitCode        *int     `json:"exit_code,omitempty"`
	Signal          string   `json:"signal,omitempty"`
	Reason          string   `json:"reason,omitempty"`
	DurationSeconds *float64 `json:"duration_seconds,omitempty"`
	CPUSeconds      *float64 `json:"cpu_seconds,omitempty" jsonschema:"-"`
	PeakMemoryMiB   *int64   `json:"peak_memory_mib,omitempty" jsonschema:"-"`
	HangingSeconds  int      `json:"hanging_seconds,omitempty" jsonschema:"-"`
	Trouble         []string `json:"trouble,omitempty" jsonschema:"-"`
}

// leaseBeside is the lease's standing in an answer about a job. What every answer
// about a lease has is not told again in the schemas of these: they are sent to
// the model with every request.
type leaseBeside struct {
	LeaseID     lease.ID      `json:"lease_id"`
	LeaseState  string        `json:"lease_state"`
	Price       *policy.Money `json:"price_usd_per_hour,omitempty" jsonschema:"-"`
	Cost        *policy.Money `json:"cost_usd,omitempty" jsonschema:"-"`
	Deadline    string        `json:"deadline,omitempty" jsonschema:"-"`
	MinutesLeft *int          `json:"minutes_left,omitempty" jsonschema:"-"`
	Guard       string        `json:"guard,omitempty" jsonschema:"-"`
}

func fieldsOf(j remote.Job) jobFields {
	f := jobFields{
		JobID: j.ID, State: j.State, ExitCode: exitCode(j), Signal: j.Signal, Reason: j.Reason,
		HangingSeconds: int(j.Hanging / time.Second), Trouble: j.Trouble,
	}
	if j.CPUTime > 0 {
		used := j.CPUTime.Seconds()
		f.CPUSeconds = &used
	}
	if j.PeakMemoryMiB > 0 {
		f.PeakMemoryMiB = &j.PeakMemoryMiB
	}
	if !j.Ended.IsZero() && !j.Started.IsZero() {
		// Both by the machine's clock.
		d := max(0, j.Ended.Sub(j.Started)).Round(10 * time.Millisecond).Seconds()
		f.DurationSeconds = &d
	}
	return f
}

func besideOf(s lease.Status) leaseBeside {
	o := standingOf(s)
	return leaseBeside{
		LeaseID: o.LeaseID, LeaseState: o.State, Price: o.Price, Cost: o.Cost,
		Deadline: o.Deadline, MinutesLeft: o.MinutesLeft, Guard: o.Guard,
	}
}

// exitCode is nil for a job that has none: a missing code is not a zero.
func exitCode(j remote.Job) *int {
	if j.State != remote.Exited {
		return nil
	}
	return &j.ExitCode
}

// line is the job in one line, for people.
func (f jobFields) line() string {
	text := fmt.Sprintf("job %s: %s", f.JobID, f.State)
	if f.ExitCode != nil {
		text += fmt.Sprintf(", exit code %d", *f.ExitCode)
	}
	if f.Signal != "" {
		text += ", " + f.Signal
	}
	if f.Reason != "" && f.Reason != remote.ReasonExit {
		text += ", " + f.Reason
	}
	if f.DurationSeconds != nil {
		text += fmt.Sprintf(", %.1f s", *f.DurationSeconds)
	}
	if f.CPUSeconds != nil {
		text += fmt.Sprintf(", CPU %.1f s", *f.CPUSeconds)
	}
	if f.PeakMemoryMiB != nil {
		text += fmt.Sprintf(", memory at most %d MiB", *f.PeakMemoryMiB)
	}
	if f.HangingSeconds > 0 {
		text += fmt.Sprintf(", HANGING: no output, CPU or GPU use for %d s", f.HangingSeconds)
	}
	if len(f.Trouble) > 0 {
		text += "\ntrouble: " + strings.Join(f.Trouble, "\ntrouble: ")
	}
	return text
}
