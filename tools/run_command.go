package tools

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

type runIn struct {
	LeaseID           lease.ID          `json:"lease_id"`
	Command           string            `json:"command,omitempty" jsonschema:"maxLength=100000" jsonschema_description:"Run by bash -c."`
	Argv              []string          `json:"argv,omitempty" jsonschema_description:"Instead of command, without a shell."`
	Cwd               string            `json:"cwd,omitempty" jsonschema_description:"Default: home."`
	Env               map[string]string `json:"env,omitempty"`
	Stdin             string            `json:"stdin,omitempty"`
	TimeoutSeconds    int               `json:"timeout_seconds,omitempty" jsonschema:"minimum=1"`
	NoOutputTimeout   int               `json:"no_output_timeout,omitempty" jsonschema:"minimum=1" jsonschema_description:"Seconds; ends it."`
	IdleOutputTimeout int               `json:"idle_output_timeout,omitempty" jsonschema:"minimum=1" jsonschema_description:"Seconds without output, CPU and GPU use, then reported as hanging."`
	WaitSeconds       *int              `json:"wait_seconds,omitempty" jsonschema:"minimum=0,maximum=45,default=40"`
	ClientRequestID   string            `json:"client_request_id,omitempty" jsonschema:"maxLength=200" jsonschema_description:"Same id, same job."`
}

type runOut struct {
	jobFields
	Stdout      string    `json:"stdout"`
	Stderr      string    `json:"stderr"`
	StdoutBytes int64     `json:"stdout_bytes"`
	StderrBytes int64     `json:"stderr_bytes"`
	Truncated   bool      `json:"truncated"`
	Tests       *testsOut `json:"tests,omitempty" jsonschema:"-"`
	leaseBeside
	advice
}

const (
	defaultRunWait = 40
	longestTimeout = 366 * 24 * 60 * 60 // seconds: longer than any lease
	// headBytes and tailBytes of each stream keep an answer near 8 KiB. The end is
	// where errors stand.
	headBytes = 1024
	tailBytes = 3072
	// rawHead and rawTail are what is asked of the machine for that: of progress
	// bars little is left.
	rawHead = 4 << 10
	rawTail = 24 << 10
	// waitSlice is how often a job is looked at that is waited for.
	waitSlice = 5 * time.Second
)

func runCommand(l interface {
	Reader
	Worker
}, hidden *secrets) Tool {
	return New(Def{
		Name:  "run_command",
		Title: "Run a command on a lease",
		Description: "Runs a shell command on a ready lease. " +
			"What outlasts wait_seconds goes on as a job: follow it with read_output. " +
			"A non-zero exit code is a result, not an error.",
		Annotations: Annotations{Destructive: true, OpenWorld: true},
		AlwaysLoad:  true,
	}, func(ctx context.Context, in runIn) (runOut, error) {
		c, call, err := in.command(CallID(ctx))
		if err != nil {
			return runOut{}, err
		}
		hidden.remember(in.LeaseID, in.Env)
		wait := defaultRunWait
		if in.WaitSeconds != nil {
			wait = *in.WaitSeconds
		}
		r, err := follow(ctx, l, hidden, in.LeaseID, call, c, wait)
		switch {
		case err != nil && r.job.ID != "":
			return runOut{}, afterStart(err, r.job)
		case err != nil:
			return runOut{}, ofLease(err, in.LeaseID)
		}
		tests := testsOf(ctx, l, r.job, r.stdout, hidden)
		out := ran(status(ctx, l, r.job.Lease), r, hidden)
		out.Tests = tests
		return out, nil
	})
}

// command is what to run, and the name of this call.
func (in runIn) command(callID string) (remote.Command, string, error) {
	if (in.Command == "") == (len(in.Argv) == 0) {
		return remote.Command{}, "", &lease.Error{
			Code: lease.CodeInvalidInput, Message: "give command or argv, and not both", LeaseID: in.LeaseID,
			Next: "call run_command again with one of them; nothing was done",
		}
	}
	seconds := func(n int) time.Duration { return time.Duration(min(n, longestTimeout)) * time.Second }
	c := remote.Command{
		Shell: in.Command, Argv: in.Argv, Dir: in.Cwd, Env: in.Env, Timeout: seconds(in.TimeoutSeconds),
		OutputTimeout: seconds(in.NoOutputTimeout), IdleTimeout: seconds(in.IdleOutputTimeout),
	}
	if in.Stdin != "" {
		c.Stdin = []byte(in.Stdin)
	}
	if in.ClientRequestID != "" {
		return c, "client_request_id " + in.ClientRequestID, nil
	}
	return c, callID, nil
}

// run is a job with what it has written so far.
type run struct {
	job            lease.Job
	stdout, stderr remote.Excerpt
}

// follow starts a job and waits for its end. Where the job may be there in spite
// of an error, it has an ID.
func follow(ctx context.Context, l Worker, hidden *secrets, id lease.ID, call string, c remote.Command, seconds int) (r run, err error) {
	began, limit := time.Now(), Wait(ctx, seconds)
	slice, watched := waitSlice, newLive(l, hidden, began)
	if Progress(ctx) != nil {
		slice = liveSlice
	}
	r.job, r.stdout, r.stderr, err = l.RunCommand(ctx, id, call, c, min(limit, slice), rawHead, rawTail)
	if err != nil {
		return r, err
	}
	looked := false
	for left := limit - time.Since(began); !r.job.Over() && left > 0; left = limit - time.Since(began) {
		if Progress(ctx) != nil {
			watched.note(ctx, r.job)
		}
		now, err := l.Job(ctx, r.job.ID, min(left, slice))
		if err != nil {
			return r, err
		}
		r.job, looked = now, true
	}
	if looked {
		r.stdout, r.stderr, err = l.Output(ctx, r.job.ID, rawHead, rawTail)
	}
	return r, err
}

// ran is the answer about a job that was started.
func ran(s lease.Status, r run, hidden *secrets) runOut {
	id := r.job.Lease.ID
	for _, piece := range []*[]byte{&r.stdout.Head, &r.stdout.Tail, &r.stderr.Head, &r.stderr.Tail} {
		*piece = hidden.mask(id, *piece)
	}
	stdout, stderr := excerpt(r.stdout, "stdout"), excerpt(r.stderr, "stderr")
	stdout.squeeze()
	stderr.squeeze()
	out := runOut{
		jobFields: fieldsOf(r.job.Job), Stdout: stdout.text, Stderr: stderr.text, StdoutBytes: r.stdout.Size, StderrBytes: r.stderr.Size,
		Truncated: stdout.truncated || stderr.truncated, leaseBeside: besideOf(s),
	}
	out.advice = adviceOf(s, nextForJob(r.job.Job, out.Truncated))
	out.Warnings = slices.Clone(out.Warnings)
	if stdout.mended {
		out.Warnings = append(out.Warnings, mendedWarning("stdout"))
	}
	if stderr.mended {
		out.Warnings = append(out.Warnings, mendedWarning("stderr"))
	}
	return out
}

// afterStart is an error that came when the command had been started, or may have
// been: repeating the call would start it again, so the way to the job goes with it.
func afterStart(err error, job lease.Job) error {
	e := *Explain(err, nil)
	e.Err, e.LeaseID = err, job.Lease.ID
	if job.State == "" {
		e.Message = fmt.Sprintf("job %s may have been started: %s", job.ID, e.Message)
		e.Next = fmt.Sprintf("read_output with job_id %q says whether it was, or that there is no such job", job.ID)
		return &e
	}
	e.Message = fmt.Sprintf("job %s was started, but then: %s", job.ID, e.Message)
	e.Next = fmt.Sprintf("do not start it again: read_output with job_id %q shows what it does", job.ID)
	return &e
}

func nextForJob(j remote.Job, truncated bool) step {
	switch {
	case j.State == remote.Running && j.Hanging > 0:
		return then("read_output", with{"job_id": j.ID, "stream": "stderr", "offset": -4000}, "it seems to hang: read_output with job_id %q, stream stderr and offset -4000 may say why; cancel_job ends it", j.ID)
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

// trim also keeps what was left out from naming a tool that is not served.
func (o *runOut) trim(served []string) {
	o.advice.trim(served)
	if served != nil && !slices.Contains(served, "read_output") {
		o.Stdout, o.Stderr = leftOut.ReplaceAllString(o.Stdout, "$1 ...]"), leftOut.ReplaceAllString(o.Stderr, "$1 ...]")
	}
}

// leftOut is how an excerpt says that there is more.
var leftOut = regexp.MustCompile(`(\[\.\.\. (?:\d+ bytes )?left out(?: here)?); read_output [^\n]*\.\.\.\]`)

// Text is the job in a line and what it wrote.
func (o runOut) Text() string {
	text := o.jobFields.line() + o.Tests.line()
	if o.Stdout != "" {
		text += "\nstdout:\n" + o.Stdout
	}
	if o.Stderr != "" {
		text += "\nstderr:\n" + o.Stderr
	}
	return text + o.lines()
}
