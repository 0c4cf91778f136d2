package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// States of a [Job].
const (
	Running = "running"
	Exited  = "exited"
	Lost    = "lost" // its supervisor is gone and left no exit status: killed, or the machine was rebooted
)

// Reasons for the end of a [Job].
const (
	ReasonExit        = "exit"
	ReasonSignal      = "signal"
	ReasonTimeout     = "timeout"
	ReasonCancelled   = "cancelled"
	ReasonOutputLimit = "output_limit"
	ReasonNoOutput    = "no_output"
	ReasonOOM         = "oom"
)

// Job is the state of a job as the machine tells it.
type Job struct {
	ID    string
	State string // running, exited or lost
	// ExitCode is the shell's: 128+n for signal n. It means something only when the state is exited.
	ExitCode int
	// Signal is "SIGKILL" and the like, read from the exit code: a command that itself exits with 137 looks the same.
	Signal      string
	Reason      string    // why it ended: exit, signal, timeout, no_output, cancelled, output_limit or oom; empty before and when lost
	Started     time.Time // the machine's clock
	Ended       time.Time // zero until it has ended
	StdoutBytes int64
	StderrBytes int64
	// LastOutput is when it last wrote, by the machine's clock, to the second; zero when it has not or that cannot be told.
	LastOutput time.Time
	Capped     bool // the streams were longer than their limit and have been cut
	// CPUTime is of all its processes together, so far or in all; negative when unknown. What a daemon uses that leaves
	// the job's tree is missing from it.
	CPUTime time.Duration
	// PeakMemoryMiB is the most that its processes had resident together, of what was seen: looked at after 0.1 s, then
	// less and less often, in the end each 2 s. Memory that they share counts once for each. [Unknown] when never seen.
	PeakMemoryMiB int64
	// Hanging is for how long it has shown no sign of life, once that is Command.IdleTimeout or more; else 0.
	Hanging time.Duration
	// Trouble is what the kernel said of GPUs and memory while a job ran that then failed, and CUDA's last word on
	// stderr: "Xid 79 on GPU 0000:08:00: …", "killed for lack of memory: process 4242 (python3)". It tells what happened
	// on the machine, which need not be this job's doing.
	Trouble []string
	Command string // for people: cut at 4 KiB
}

// Over reports whether nothing more is to come: the job has exited or is lost.
func (j Job) Over() bool { return j.State != Running }

var jobID = regexp.MustCompile(`^[a-z0-9-]{4,64}$`)

func validateJobID(id string) error {
	if !jobID.MatchString(id) {
		return invalid("job id %q: 4 to 64 of a-z, 0-9 and -", id)
	}
	return nil
}

// ErrGone says that a job was started, and has taken away what tells so. It is [ErrMachine].
var ErrGone = fmt.Errorf("%w: the job", ErrMachine)

// Start starts c as job jobID, detached from the connection. It may be sent any number of times, from any process:
// the command runs at most once, and later calls return the job as it is, whatever command they carry. What tells so is in
// ~/.gpulease: a job that removes it at once is [ErrGone], and another start with the same ID after that would start it.
// A missing directory is [ErrDirectory]; then nothing was started and the ID is still free.
func (p *Pool) Start(ctx context.Context, t Target, jobID string, c Command) (Job, error) {
	job, _, _, err := p.Run(ctx, t, jobID, c, 0, 0, 0)
	return job, err
}

// Run is Start, then Job with a wait, then Output, in one round trip.
func (p *Pool) Run(ctx context.Context, t Target, jobID string, c Command, wait time.Duration, headBytes, tailBytes int) (Job, Excerpt, Excerpt, error) {
	if err := validateJobID(jobID); err != nil {
		return Job{}, Excerpt{}, Excerpt{}, err
	}
	if err := c.validate(); err != nil {
		return Job{}, Excerpt{}, Excerpt{}, fmt.Errorf("job %s: %w", jobID, err)
	}
	// The machine cannot tell when the caller of a start gives up, so the long part of the wait is a call of its own.
	const first = 2 * time.Second
	until := p.config.Now().Add(wait)
	job, stdout, stderr, err := p.excerpts(ctx, t, "start", jobID, &c, min(wait, first), headBytes, tailBytes)
	if err == nil && wait > first && !job.Over() {
		job, stdout, stderr, err = p.excerpts(ctx, t, "show", jobID, nil, until.Sub(p.config.Now()), headBytes, tailBytes)
	}
	if err != nil {
		return job, stdout, stderr, fmt.Errorf("start job %s: %w", jobID, err)
	}
	return job, stdout, stderr, nil
}

// Job returns the state of a job, when it has ended or when wait is over, whichever is first.
func (p *Pool) Job(ctx context.Context, t Target, jobID string, wait time.Duration) (Job, error) {
	if err := validateJobID(jobID); err != nil {
		return Job{}, err
	}
	job, _, _, err := p.excerpts(ctx, t, "show", jobID, nil, wait, 0, 0)
	if err != nil {
		return Job{}, fmt.Errorf("job %s: %w", jobID, err)
	}
	return job, nil
}

// Jobs lists the jobs that the machine knows, in the order of their IDs.
func (p *Pool) Jobs(ctx context.Context, t Target) ([]Job, error) {
	var jobs []Job
	err := p.with(ctx, t, func(n *conn) error {
		r, err := n.call(ctx, request{script: jobScript, args: []string{"list"}, data: 16 << 20})
		if err != nil {
			return err
		}
		jobs, err = parseJobs(r)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list jobs: %w", err)
	}
	return jobs, nil
}

// parseJobs reads the jobs of a reply, each of which begins with its "job" line.
func parseJobs(r reply) ([]Job, error) {
	var jobs []Job
	for _, f := range r.fields {
		if f.key == "job" {
			jobs = append(jobs, Job{ID: f.value, CPUTime: Unknown, PeakMemoryMiB: Unknown})
			continue
		}
		if len(jobs) == 0 {
			continue
		}
		if err := jobs[len(jobs)-1].set(f); err != nil {
			return nil, err
		}
	}
	for i := range jobs {
		jobs[i].finish()
	}
	return jobs, nil
}

func parseJob(r reply) (Job, error) {
	jobs, err := parseJobs(r)
	if err != nil {
		return Job{}, err
	}
	if len(jobs) != 1 {
		return Job{}, fmt.Errorf("%w: %d jobs where one was asked for", ErrMachine, len(jobs))
	}
	return jobs[0], nil
}

func (j *Job) set(f field) error {
	var err error
	switch f.key {
	case "state":
		if j.State = f.value; f.value != Running && f.value != Exited && f.value != Lost {
			err = fmt.Errorf("%w: job state %q", ErrMachine, f.value)
		}
	case "code":
		if f.value != "" {
			j.ExitCode, err = strconv.Atoi(f.value)
		}
	case "reason":
		j.Reason = f.value
	case "started":
		j.Started, err = wallTime(f.value)
	case "ended":
		j.Ended, err = wallTime(f.value)
	case "stdout":
		j.StdoutBytes, err = strconv.ParseInt(f.value, 10, 64)
	case "stderr":
		j.StderrBytes, err = strconv.ParseInt(f.value, 10, 64)
	case "wrote":
		j.LastOutput, err = wallTime(f.value)
	case "cpu":
		if n := count(f.value); n != Unknown {
			j.CPUTime = time.Duration(n) * 10 * time.Millisecond
		}
	case "memory":
		if n := count(f.value); n != Unknown {
			j.PeakMemoryMiB = (n + 1<<10 - 1) >> 10
		}
	case "hang":
		j.Hanging = time.Duration(max(count(f.value), 0)) * 10 * time.Millisecond
	case "capped":
		j.Capped = f.value == "yes"
	case "trouble":
		j.Trouble = append(j.Trouble, trouble(f.value))
	case "command":
		// A command line that cannot be read is no reason to lose the job's state.
		_ = json.Unmarshal([]byte(f.value), &j.Command)
	}
	if err != nil {
		return fmt.Errorf("%w: %s %q", ErrMachine, f.key, f.value)
	}
	return nil
}

// count is a number from 0 up that fits into a Duration as centiseconds; else [Unknown].
func count(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > 1<<48 {
		return Unknown
	}
	return n
}

func (j *Job) finish() {
	if j.State != Running {
		j.Hanging = 0
	}
	if j.State != Exited {
		j.ExitCode, j.Reason, j.Ended = 0, "", time.Time{}
		return
	}
	j.Signal = signalName(j.ExitCode)
}

// wallTime parses "seconds.nanoseconds". Where date has no %N the fraction is not a number and is dropped.
func wallTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	whole, fraction, _ := strings.Cut(s, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	nanos, err := strconv.ParseInt(fraction, 10, 64)
	if err != nil || len(fraction) != 9 {
		nanos = 0
	}
	return time.Unix(seconds, nanos).UTC(), nil
}

// signals are Linux's, by number, for the architectures that GPU machines have.
var signals = []string{
	"", "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGUSR1",
	"SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP",
	"SIGTTIN", "SIGTTOU", "SIGURG", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO", "SIGPWR", "SIGSYS",
}

func signalName(code int) string {
	n := code - 128
	switch {
	case n <= 0 || n > 64:
		return ""
	case n < len(signals):
		return signals[n]
	default:
		return "SIG" + strconv.Itoa(n)
	}
}

// centiseconds rounds up, so that a wait is never shorter than asked for.
func centiseconds(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return int64((d + 10*time.Millisecond - 1) / (10 * time.Millisecond))
}
