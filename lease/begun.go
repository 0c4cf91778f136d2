package lease

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gpulease/gpulease/remote"
)

// Begun remembers, while a lease lives, which jobs were started for calls that may be
// repeated. The machine tells that itself, unless a job has removed what tells it.
type Begun interface {
	// Note adds a job by its ID.
	Note(jobID string) error
	Noted(jobID string) (bool, error)
	// Delete forgets the jobs of a lease; none is no error.
	Delete(id ID) error
	// List names the leases of which jobs are remembered.
	List() ([]ID, error)
}

// JobDir is a [Begun] in files of a directory, one a lease, with a line for each job.
type JobDir string

func (d JobDir) file(id ID) string { return filepath.Join(string(d), string(id)) }

// Note implements [Begun]. A line is one write, so processes may note at the same time; it begins with a line end, for a disk
// that was full may have left half a line there.
func (d JobDir) Note(jobID string) error {
	id, err := LeaseOfJob(jobID)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("note job %s: %w", jobID, err)
	}
	f, err := os.OpenFile(d.file(id), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("note job %s: %w", jobID, err)
	}
	_, err = f.WriteString("\n" + jobID + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("note job %s: %w", jobID, err)
	}
	return nil
}

// Noted implements [Begun].
func (d JobDir) Noted(jobID string) (bool, error) {
	id, err := LeaseOfJob(jobID)
	if err != nil {
		return false, err
	}
	text, err := os.ReadFile(d.file(id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("look for job %s: %w", jobID, err)
	}
	return slices.Contains(strings.Split(string(text), "\n"), jobID), nil
}

// Delete implements [Begun].
func (d JobDir) Delete(id ID) error {
	if !ValidID(string(id)) {
		return nil
	}
	if err := os.Remove(d.file(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the jobs of lease %s: %w", id, err)
	}
	return nil
}

// List implements [Begun].
func (d JobDir) List() ([]ID, error) {
	files, err := os.ReadDir(string(d))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the leases whose jobs are noted: %w", err)
	}
	var ids []ID
	for _, f := range files {
		if ValidID(f.Name()) {
			ids = append(ids, ID(f.Name()))
		}
	}
	return ids, nil
}

// noBegun remembers nothing.
type noBegun struct{}

func (noBegun) Note(string) error          { return nil }
func (noBegun) Noted(string) (bool, error) { return false, nil }
func (noBegun) Delete(ID) error            { return nil }
func (noBegun) List() ([]ID, error)        { return nil, nil }

// stillThere refuses a repeated call whose job was started before and of which the machine
// knows nothing any more: it would be run a second time.
func (m *Manager) stillThere(ctx context.Context, l Lease, t remote.Target, jobID string) error {
	began, err := m.Begun.Noted(jobID)
	if err != nil {
		m.log.Warn("whether a job was started before is not known here", "job", jobID, "err", err)
	}
	if !began {
		return nil
	}
	if _, err = m.Machine.Job(answered(ctx), t, jobID, 0); !errors.Is(err, remote.ErrJobNotFound) {
		return nil // what else is wrong shows in the call itself
	}
	return &Error{
		Code: CodeJobNotFound, Message: fmt.Sprintf("the machine no longer knows of job %s, which this call has started before; it was not started again", jobID), LeaseID: l.ID,
		Why:  "something on the machine has removed ~/.gpulease, where jobs and their output are kept",
		Next: "see with run_command what the job has done; a new client_request_id runs it once more", Err: err,
	}
}

// noteBegun remembers that a call has started its job.
func (m *Manager) noteBegun(jobID string) {
	if err := m.Begun.Note(jobID); err != nil {
		m.log.Warn("that a job was started could not be noted", "job", jobID, "err", err)
	}
}
