package tools

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

type getIn struct {
	LeaseID     lease.ID `json:"lease_id"`
	WaitSeconds int      `json:"wait_seconds,omitempty" jsonschema:"minimum=0,maximum=45" jsonschema_description:"Wait so long for a booting lease to be ready, a stopping one to end, a ready one to change."`
}

type getOut struct {
	standing
	Purpose   string       `json:"purpose,omitempty"`
	GPUs      int          `json:"gpus"`
	CreatedAt string       `json:"created_at"`
	ReadyAt   string       `json:"ready_at,omitempty"`
	EndedAt   string       `json:"ended_at,omitempty"`
	Rescue    string       `json:"rescue,omitempty" jsonschema_description:"What came home before the end."`
	Jobs      []jobSummary `json:"jobs,omitempty" jsonschema_description:"Newest first."`
	GPUUse    string       `json:"gpu_use,omitempty"`
	Machine   *machineNow  `json:"machine,omitempty" jsonschema:"-"`
	Forwards  []string     `json:"forwards,omitempty"`
	advice
}

type jobSummary struct {
	ID          string `json:"job_id"`
	State       string `json:"state"`
	ExitCode    *int   `json:"exit_code,omitempty"`
	Reason      string `json:"reason,omitempty"`
	Command     string `json:"command"`
	StartedAt   string `json:"started_at,omitempty"`
	StdoutBytes int64  `json:"stdout_bytes"`
	StderrBytes int64  `json:"stderr_bytes"`
}

const (
	jobsShown   = 20
	jobsTime    = 8 * time.Second // a machine that does not answer must not hide its lease
	commandSeen = 120
)

func getLease(l interface {
	Reader
	Worker
}, hidden *secrets) Tool {
	return New(Def{
		Name:  "get_lease",
		Title: "Look at a lease",
		Description: "Shows one lease: state, cost so far, deadline, who guards it, its jobs. " +
			"With wait_seconds it waits for the next state; use it to wait for ready after launch_lease.",
		Annotations: Annotations{ReadOnly: true, Idempotent: true},
	}, func(ctx context.Context, in getIn) (getOut, error) {
		got, err := l.Get(ctx, in.LeaseID)
		if err != nil {
			return getOut{}, err
		}
		if in.WaitSeconds > 0 && got.State != lease.Ended {
			first := got.State
			if got, err = watch(ctx, l, in.LeaseID, in.WaitSeconds, func(now lease.Lease) bool { return settled(first, now.State) }); err != nil {
				return getOut{}, ofLease(err, in.LeaseID)
			}
		}
		s := status(ctx, l, got)
		out := getOut{
			standing: standingOf(s), Purpose: short(got.Purpose, seen), GPUs: got.GPUs, CreatedAt: clock(got.CreatedAt),
			ReadyAt: clockOrNone(got.ReadyAt), EndedAt: clockOrNone(got.EndedAt), Rescue: short(got.Rescue, 2*seen), GPUUse: got.GPUUse().String(), advice: adviceOf(s, nextFor(got)),
		}
		if s.SecondTry != "" && got.State == lease.Ended {
			out.Next = then("get_lease", with{"lease_id": s.SecondTry, "wait_seconds": 45}, "get_lease with lease_id %q and wait_seconds 45: that is the lease to use now", s.SecondTry)
		}
		if got.State == lease.Ready {
			out.lookAtMachine(ctx, l, got.ID, hidden)
			out.Forwards = forwardLines(l.Forwards(got.ID))
		}
		return out, nil
	})
}

// lookAtMachine adds what the machine tells. What it does not is a warning, and work on a
// machine that does not answer is no next step.
func (o *getOut) lookAtMachine(ctx context.Context, l Worker, id lease.ID, hidden *secrets) {
	ctx, cancel := context.WithTimeout(ctx, jobsTime)
	defer cancel()
	var use lease.Use
	var useErr error
	var looking sync.WaitGroup
	looking.Go(func() { use, useErr = l.Use(ctx, id) })
	jobs, err := l.Jobs(ctx, id)
	looking.Wait()
	known := o.Warnings
	o.Warnings = slices.Clone(known)
	if err != nil {
		o.Warnings = append(o.Warnings, "its jobs could not be listed: "+without(Explain(err, nil).Message, known))
		if Explain(err, nil).Code == lease.CodeSSHUnreachable {
			o.Next = then("get_lease", with{"lease_id": id, "wait_seconds": 45}, comesBack, id)
		}
	}
	for i := range jobs {
		jobs[i].Command = string(hidden.mask(id, []byte(jobs[i].Command)))
	}
	o.Jobs = summaries(jobs)
	if useErr != nil {
		o.Warnings = append(o.Warnings, "what the machine does could not be seen: "+without(Explain(useErr, nil).Message, known))
		return
	}
	o.Machine = machineOf(use)
	if said := use.GPUUse.String(); said != "" {
		o.GPUUse = said
	}
}

// comesBack is what to do about a machine that does not answer. It takes the lease's ID.
const comesBack = "get_lease with lease_id %q and wait_seconds 45 says whether it comes back; stop_lease gives it up"

// without leaves out of a message what is a warning already.
func without(message string, known []string) string {
	for _, w := range known {
		message = strings.ReplaceAll(message, "; "+w, "")
	}
	return message
}

// settled reports whether a wait that began in state first is over: the agent can
// do something else now. On the way up, only ready (or an end) is worth a call.
func settled(first, now lease.State) bool {
	switch now {
	case lease.Launching, lease.Booting:
		return first == lease.WaitingCapacity || first == lease.AwaitingApproval
	case lease.Stopping:
		return first != lease.Stopping
	default:
		return first != now
	}
}

func clockOrNone(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return clock(t)
}

func summaries(jobs []remote.Job) []jobSummary {
	jobs = slices.Clone(jobs)
	slices.SortStableFunc(jobs, func(a, b remote.Job) int { return b.Started.Compare(a.Started) })
	var list []jobSummary
	for _, j := range jobs[:min(len(jobs), jobsShown)] {
		list = append(list, jobSummary{
			ID: j.ID, State: j.State, ExitCode: exitCode(j), Reason: j.Reason, Command: short(j.Command, commandSeen),
			StartedAt: clockOrNone(j.Started), StdoutBytes: j.StdoutBytes, StderrBytes: j.StderrBytes,
		})
	}
	list, _ = fit(list, listRoom)
	return list
}

// Text is the lease in a line, and its jobs.
func (o getOut) Text() string {
	var b strings.Builder
	b.WriteString(o.line())
	for _, j := range o.Jobs {
		fmt.Fprintf(&b, "\njob %s: %s", j.ID, j.State)
		if j.ExitCode != nil {
			fmt.Fprintf(&b, " with %d", *j.ExitCode)
		}
		fmt.Fprintf(&b, ": %s", flat(j.Command))
	}
	if o.Machine != nil {
		b.WriteString("\n" + o.Machine.line())
	}
	if o.GPUUse != "" {
		b.WriteString("\n" + o.GPUUse)
	}
	for _, f := range o.Forwards {
		fmt.Fprintf(&b, "\nforward %s", f)
	}
	if o.Rescue != "" {
		fmt.Fprintf(&b, "\nbefore the end: %s", flat(o.Rescue))
	}
	return b.String() + o.lines()
}
