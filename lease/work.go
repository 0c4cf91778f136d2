package lease

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gpulease/gpulease/remote"
)

// jobIDLength is the length of the random part of a job's ID.
const jobIDLength = 8

// Job is a command on a lease's machine.
type Job struct {
	Lease Lease
	remote.Job
}

// LeaseOfJob is the lease that a job's ID belongs to: the ID begins with it, so
// that any process can find a job without asking the ledger.
func LeaseOfJob(jobID string) (ID, error) {
	id, rest, ok := strings.Cut(jobID, "-")
	if !ok || !ValidID(id) || len(rest) != jobIDLength || strings.Trim(rest, idAlphabet) != "" {
		return "", &Error{Code: CodeJobNotFound, Message: fmt.Sprintf("there is no job %q", jobID), Next: "job ids come from run_command; get_lease lists a lease's jobs"}
	}
	return ID(id), nil
}

// usable is the lease with the target of its machine, if commands may go there.
func (m *Manager) usable(ctx context.Context, id ID) (Lease, remote.Target, error) {
	l, err := m.get(ctx, id)
	if err != nil {
		return Lease{}, remote.Target{}, err
	}
	switch l.State {
	case Ready:
		t, err := m.target(l)
		return l, t, err
	case Ended:
		return l, remote.Target{}, &Error{
			Code: CodeLeaseEnded, Message: fmt.Sprintf("lease %s has ended (%s)", l.ID, l.Reason), Why: l.Detail, LeaseID: l.ID,
			Next: "get_lease says what came home before the end; launch_lease for a new machine",
		}
	case Stopping:
		return l, remote.Target{}, &Error{
			Code: CodeLeaseEnded, Message: fmt.Sprintf("lease %s is being stopped (%s)", l.ID, l.Reason), Why: l.Detail, LeaseID: l.ID,
			Next: "get_lease shows when the stop is confirmed; launch_lease for a new machine",
		}
	}
	return l, remote.Target{}, &Error{
		Code: CodeLeaseNotReady, Message: fmt.Sprintf("lease %s is %s, so nothing can run on it yet", l.ID, l.State), Why: l.Detail, LeaseID: l.ID, Retryable: true,
		Next: fmt.Sprintf("get_lease with lease_id %q and wait_seconds 40, until its state is ready", l.ID),
	}
}

// answerWithin is how long a machine that says nothing at all is waited for by a call for
// whose answer somebody waits. An outage in the midst of a call may be longer.
const answerWithin = 15 * time.Second

func answered(ctx context.Context) context.Context { return remote.Impatient(ctx, answerWithin) }

// Start starts a command as a detached job and does not wait for its end; see [Manager.RunCommand].
func (m *Manager) Start(ctx context.Context, id ID, call string, c remote.Command) (Job, error) {
	j, _, _, err := m.RunCommand(ctx, id, call, c, 0, 0, 0)
	return j, err
}

// RunCommand starts a command as a detached job, which runs on, whatever disconnects,
// and waits up to wait for its end. The excerpts are at most head and tail bytes
// of each stream. call is the caller's own name for this very call: the same
// again gives the same job and starts nothing; with another command it is
// refused. With "" each call is a new job. Where the command may have been
// started in spite of an error, the job has its ID.
func (m *Manager) RunCommand(ctx context.Context, id ID, call string, c remote.Command, wait time.Duration, head, tail int) (j Job, stdout, stderr remote.Excerpt, err error) {
	l, t, err := m.usable(ctx, id)
	j.Lease = l
	if err != nil {
		return j, stdout, stderr, err
	}
	m.touch(ctx, id)
	jobID, err := m.jobID(id, call)
	if err != nil {
		return j, stdout, stderr, err
	}
	if call != "" {
		if err := m.stillThere(ctx, l, t, jobID); err != nil {
			return j, stdout, stderr, err
		}
	}
	j.Job, stdout, stderr, err = m.Machine.Run(answered(ctx), t, jobID, c, wait, head, tail)
	if call != "" && (err == nil || errors.Is(err, remote.ErrGone)) {
		m.noteBegun(jobID)
	}
	switch {
	case err != nil:
		j.Job = remote.Job{}
		if mayHaveStarted(err) {
			j.ID = jobID
		}
		return j, stdout, stderr, m.machineError("start the command", l, err)
	case call != "" && j.Command != c.String():
		has := j.Command
		j.Job = remote.Job{} // it is not this call's
		return j, remote.Excerpt{}, remote.Excerpt{}, &Error{
			Code: CodeInvalidInput, Message: "the same call was used for another command; nothing was started", LeaseID: id,
			Why: fmt.Sprintf("job %s has it: %s", jobID, has), Next: "use a new client_request_id, or repeat the first command as it was",
		}
	}
	return j, stdout, stderr, nil
}

// jobID is the same for the same call, and a new one without.
func (m *Manager) jobID(id ID, call string) (string, error) {
	if call != "" {
		sum := sha256.Sum256([]byte(string(id) + "\x00" + call))
		return string(id) + "-" + nameEncoding.EncodeToString(sum[:])[:jobIDLength], nil
	}
	suffix, err := randomText(m.Rand, jobIDLength)
	if err != nil {
		return "", &Error{Code: CodeInternal, Message: "a job id could not be made", LeaseID: id, Err: err}
	}
	return string(id) + "-" + suffix, nil
}

// mayHaveStarted reports whether an error leaves open that the machine has taken
// the command.
func mayHaveStarted(err error) bool {
	for _, proof := range []error{remote.ErrInvalid, remote.ErrDirectory, remote.ErrHostKey, remote.ErrAuth, remote.ErrStorage, remote.ErrClosed} {
		if errors.Is(err, proof) {
			return false
		}
	}
	return true
}

// jobTarget finds the machine of a job.
func (m *Manager) jobTarget(ctx context.Context, jobID string) (Lease, remote.Target, error) {
	id, err := LeaseOfJob(jobID)
	if err != nil {
		return Lease{}, remote.Target{}, err
	}
	return m.usable(ctx, id)
}

// Job reads a job's state; it waits up to wait for the job's end.
func (m *Manager) Job(ctx context.Context, jobID string, wait time.Duration) (Job, error) {
	l, t, err := m.jobTarget(ctx, jobID)
	if err != nil {
		return Job{Lease: l}, err
	}
	j, err := m.Machine.Job(answered(ctx), t, jobID, wait)
	if err != nil {
		return Job{Lease: l}, m.machineError("read the job", l, err)
	}
	return Job{Lease: l, Job: j}, nil
}

// Jobs lists the jobs of a lease.
func (m *Manager) Jobs(ctx context.Context, id ID) ([]remote.Job, error) {
	l, t, err := m.usable(ctx, id)
	if err != nil {
		return nil, err
	}
	jobs, err := m.Machine.Jobs(answered(ctx), t)
	if err != nil {
		return nil, m.machineError("list the jobs", l, err)
	}
	return jobs, nil
}

// Output reads the beginning and the end of what a job has written.
func (m *Manager) Output(ctx context.Context, jobID string, head, tail int) (stdout, stderr remote.Excerpt, err error) {
	l, t, err := m.jobTarget(ctx, jobID)
	if err != nil {
		return stdout, stderr, err
	}
	stdout, stderr, err = m.Machine.Output(answered(ctx), t, jobID, head, tail)
	if err != nil {
		return stdout, stderr, m.machineError("read the job's output", l, err)
	}
	return stdout, stderr, nil
}

// Page reads a part of a job's stdout or stderr; see [remote.Pool.Page].
func (m *Manager) Page(ctx context.Context, jobID string, s remote.Stream, offset int64, limit int, wait time.Duration) (remote.Page, Lease, error) {
	l, t, err := m.jobTarget(ctx, jobID)
	if err != nil {
		return remote.Page{}, l, err
	}
	m.touch(ctx, l.ID)
	p, err := m.Machine.Page(answered(ctx), t, jobID, s, offset, limit, wait)
	if err != nil {
		return p, l, m.machineError("read the job's output", l, err)
	}
	return p, l, nil
}

// Mixed reads a part of both streams of a job; see [remote.Pool.Mixed].
func (m *Manager) Mixed(ctx context.Context, jobID string, offset int64, limit int, wait time.Duration) (remote.Mixed, Lease, error) {
	l, t, err := m.jobTarget(ctx, jobID)
	if err != nil {
		return remote.Mixed{}, l, err
	}
	m.touch(ctx, l.ID)
	p, err := m.Machine.Mixed(answered(ctx), t, jobID, offset, limit, wait)
	if err != nil {
		return p, l, m.machineError("read the job's output", l, err)
	}
	return p, l, nil
}

// Search looks for a pattern in a job's stdout or stderr; see [remote.Pool.Search].
func (m *Manager) Search(ctx context.Context, jobID string, s remote.Stream, what remote.Search) (remote.Found, Lease, error) {
	l, t, err := m.jobTarget(ctx, jobID)
	if err != nil {
		return remote.Found{}, l, err
	}
	m.touch(ctx, l.ID)
	found, err := m.Machine.Search(answered(ctx), t, jobID, s, what)
	if err != nil {
		return found, l, m.machineError("search the job's output", l, err)
	}
	return found, l, nil
}

// Cancel ends a job with every process that it has started.
func (m *Manager) Cancel(ctx context.Context, jobID string, grace time.Duration) (Job, error) {
	l, t, err := m.jobTarget(ctx, jobID)
	if err != nil {
		return Job{Lease: l}, err
	}
	j, err := m.Machine.Cancel(answered(ctx), t, jobID, grace)
	if err != nil {
		return Job{Lease: l}, m.machineError("cancel the job", l, err)
	}
	return Job{Lease: l, Job: j}, nil
}

// Push sends a local directory to the machine. The caller has checked that src
// lies within the allowed roots.
func (m *Manager) Push(ctx context.Context, id ID, src, dst string, o remote.PushOptions) (remote.PushSummary, Lease, error) {
	l, t, err := m.usable(ctx, id)
	if err != nil {
		return remote.PushSummary{}, l, err
	}
	var s remote.PushSummary
	err = m.inUseWhile(ctx, id, func() (err error) {
		s, err = m.Machine.Push(answered(ctx), t, src, dst, o)
		return err
	})
	if err != nil {
		return s, l, m.machineError("send the directory", l, err)
	}
	return s, l, nil
}

// Fetch brings files and directories of the machine into the local directory dst.
// The caller has checked that dst lies within the allowed roots; that no link leads
// to it is seen to here. What had come before an error is in the summary.
func (m *Manager) Fetch(ctx context.Context, id ID, paths []string, dst string, o remote.FetchOptions) (remote.FetchSummary, Lease, error) {
	l, t, err := m.usable(ctx, id)
	if err != nil {
		return remote.FetchSummary{}, l, err
	}
	o.Unlinked = true
	var s remote.FetchSummary
	err = m.inUseWhile(ctx, id, func() (err error) {
		s, err = m.Machine.Fetch(answered(ctx), t, paths, dst, o)
		return err
	})
	if err != nil {
		e := m.machineError("bring the files home", l, err)
		if errors.Is(err, remote.ErrTooLarge) {
			e.Next = "name fewer files, or allow more with max_bytes"
		}
		return s, l, e
	}
	return s, l, nil
}

// Visit calls do with the target of a ready lease's machine, for a person who works
// there by hand. The lease counts as used until do returns.
func (m *Manager) Visit(ctx context.Context, id ID, do func(Lease, remote.Target) error) error {
	l, t, err := m.usable(ctx, id)
	if err != nil {
		return err
	}
	return m.inUseWhile(ctx, id, func() error { return do(l, t) })
}

// machineError puts an error of the machine into the words and codes of this
// package.
func (m *Manager) machineError(op string, l Lease, err error) *Error {
	e := &Error{Code: CodeInternal, Message: op + ": it did not work", Why: err.Error(), LeaseID: l.ID, Err: err}
	var mass *remote.MassDeletionError
	switch {
	case errors.Is(err, remote.ErrJobNotFound):
		e.Code, e.Message, e.Next = CodeJobNotFound, op+": the machine does not know this job", "get_lease lists the jobs of the lease"
	case errors.Is(err, remote.ErrHostKey):
		e.Code, e.Message = CodeHostKeyMismatch, op+": the machine shows another host key than the pinned one, so nothing was sent to it"
		e.Next = "stop_lease and launch a new one; somebody may be in between, or the machine was rebuilt"
	case errors.Is(err, remote.ErrDirectory):
		e.Code, e.Message, e.Next = CodeInvalidInput, op+": that directory is not there on the machine", "make it with run_command, or send it with sync_files, and call again"
	case errors.Is(err, remote.ErrConflict):
		e.Code, e.Message, e.Next = CodeInvalidInput, op+": something else is in the way on the machine, and it was not replaced", "move it away with run_command, or choose another remote_dir"
	case errors.As(err, &mass):
		e.Code, e.Message = CodeInvalidInput, fmt.Sprintf("%s: it would delete %d of the %d files that were sent there before, and at most %d may go at once; nothing was sent or deleted", op, mass.Gone, mass.Known, mass.Most)
		e.Next = fmt.Sprintf("see that local_dir and remote_dir are the right ones; if the deletion is meant, call again with max_delete %d", mass.Gone)
	case errors.Is(err, remote.ErrTooLarge):
		e.Code, e.Message, e.Next = CodeInvalidInput, op+": it is too large", "leave files out with .gitignore or .gpuleaseignore and call again"
	case errors.Is(err, remote.ErrNotEnded):
		e.Retryable, e.Message, e.Next = true, op+": some of its processes are still there", "call cancel_job again; stop_lease ends everything"
	case errors.Is(err, remote.ErrInvalid):
		e.Code, e.Message, e.Next = CodeInvalidInput, op+": it cannot be done like this", "mend the argument named and call again"
	case errors.Is(err, remote.ErrStorage):
		e.Message, e.Next = op+": the machine could not store it", "free some space in the home directory of the machine with run_command"
	case errors.Is(err, remote.ErrUnreachable), errors.Is(err, remote.ErrConnLost), errors.Is(err, remote.ErrAuth), errors.Is(err, context.DeadlineExceeded):
		e.Code, e.Retryable, e.Message = CodeSSHUnreachable, true, op+": the machine does not answer over SSH"
		if !l.SeenAt.IsZero() {
			e.Why += "; the cloud has listed it at " + l.SeenAt.UTC().Format(time.RFC3339)
		}
		e.Next = "call again in a few seconds; jobs that run there go on. get_lease says whether the machine still lives"
		if l.unlisted() {
			e.Message, e.Next = e.Message+"; "+l.sayUnlisted(), "get_lease says whether the machine still lives; call again if it does"
		}
		if l.InTailnet() {
			e.Next += ". It is reached in the tailnet alone: this computer has to be in it (tailscale status)"
		}
	}
	return e
}
