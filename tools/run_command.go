package tools

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

type runIn struct {
	LeaseID        lease.ID          `json:"lease_id"`
	Command        string            `json:"command" jsonschema:"minLength=1,maxLength=100000" jsonschema_description:"Run by bash -c."`
	Cwd            string            `json:"cwd,omitempty" jsonschema_description:"Default: the home directory."`
	Env            map[string]string `json:"env,omitempty"`
	TimeoutSeconds int               `json:"timeout_seconds,omitempty" jsonschema:"minimum=1,maximum=2592000"`
	WaitSeconds    *int              `json:"wait_seconds,omitempty" jsonschema:"minimum=0,maximum=45,default=40"`
}

type runOut struct {
	jobFields
	Stdout      string `json:"stdout"`
	Stderr      string `json:"stderr"`
	StdoutBytes int64  `json:"stdout_bytes"`
	StderrBytes int64  `json:"stderr_bytes"`
	Truncated   bool   `json:"truncated"`
	leaseBeside
	advice
}

const (
	defaultRunWait = 40
	// headBytes and tailBytes of each stream keep an answer near 8 KiB. The end is
	// where errors stand.
	headBytes = 1024
	tailBytes = 3072
	// waitSlice is how often a wait for a job says that it goes on.
	waitSlice = 5 * time.Second
)

func runCommand(l interface {
	Reader
	Worker
}) Tool {
	return New(Def{
		Name:  "run_command",
		Title: "Run a command on a lease",
		Description: "Runs a shell command on a ready lease. " +
			"What outlasts wait_seconds goes on as a job: follow it with read_output. " +
			"A non-zero exit code is a result, not an error.",
		Annotations: Annotations{Destructive: true, OpenWorld: true},
		AlwaysLoad:  true,
	}, func(ctx context.Context, in runIn) (runOut, error) {
		job, err := l.Start(ctx, in.LeaseID, CallID(ctx), remote.Command{
			Shell: in.Command, Dir: in.Cwd, Env: in.Env, Timeout: time.Duration(in.TimeoutSeconds) * time.Second,
		})
		if err != nil {
			return runOut{}, ofLease(err, in.LeaseID)
		}
		wait := defaultRunWait
		if in.WaitSeconds != nil {
			wait = *in.WaitSeconds
		}
		out, err := follow(ctx, l, job, wait)
		if err != nil {
			return runOut{}, afterStart(err, job)
		}
		return out, nil
	})
}

// follow waits for a job's end and gives what it has written.
func follow(ctx context.Context, l interface {
	Reader
	Worker
}, job lease.Job, seconds int) (runOut, error) {
	began, limit := time.Now(), Wait(ctx, seconds)
	for left := limit; !job.Over() && left > 0; left = limit - time.Since(began) {
		now, err := l.Job(ctx, job.ID, min(left, waitSlice))
		if err != nil {
			return runOut{}, err
		}
		job = now
		if !job.Over() {
			Progress(ctx).Note(fmt.Sprintf("running for %d s, %d bytes of output", int(time.Since(began).Seconds()), job.StdoutBytes+job.StderrBytes))
		}
	}
	outE, errE, err := l.Output(ctx, job.ID, headBytes, tailBytes)
	if err != nil {
		return runOut{}, err
	}
	s := status(ctx, l, job.Lease)
	stdout, stderr := excerpt(outE, "stdout"), excerpt(errE, "stderr")
	stdout.squeeze()
	stderr.squeeze()
	out := runOut{
		jobFields: fieldsOf(job.Job), Stdout: stdout.text, Stderr: stderr.text, StdoutBytes: outE.Size, StderrBytes: errE.Size,
		Truncated: stdout.truncated || stderr.truncated, leaseBeside: besideOf(s),
	}
	out.advice = adviceOf(s, nextForJob(job.Job, out.Truncated))
	out.Warnings = slices.Clone(out.Warnings)
	if stdout.mended {
		out.Warnings = append(out.Warnings, mendedWarning("stdout"))
	}
	if stderr.mended {
		out.Warnings = append(out.Warnings, mendedWarning("stderr"))
	}
	return out, nil
}

// afterStart is an error that came after the command was started: repeating the
// call would start it again, so the way to the job goes with it.
func afterStart(err error, job lease.Job) error {
	e := *Explain(err, nil)
	e.Err, e.LeaseID = err, job.Lease.ID
	e.Message = fmt.Sprintf("job %s was started, but then: %s", job.ID, e.Message)
	e.Next = fmt.Sprintf("do not start it again: read_output with job_id %q shows what it does", job.ID)
	return &e
}

func nextForJob(j remote.Job, truncated bool) step {
	switch {
	case j.State == remote.Running:
		return then("read_output", with{"job_id": j.ID, "wait_seconds": 40}, "read_output with job_id %q and wait_seconds 40 to follow it, cancel_job to end it", j.ID)
	case j.State == remote.Lost:
		return say("the job left no exit code (killed, or the machine was rebooted): run_command again")
	case truncated:
		return then("read_output", with{"job_id": j.ID}, "read_output with job_id %q shows what was left out; stop_lease when you are done", j.ID)
	default:
		return say("run_command for more; stop_lease when you are done")
	}
}

// Text is the job in a line and what it wrote.
func (o runOut) Text() string {
	text := o.jobFields.line()
	if o.Stdout != "" {
		text += "\nstdout:\n" + o.Stdout
	}
	if o.Stderr != "" {
		text += "\nstderr:\n" + o.Stderr
	}
	return text + o.lines()
}
