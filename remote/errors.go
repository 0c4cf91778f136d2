package remote

import (
	"errors"
	"fmt"
)

var (
	// ErrUnreachable says that no SSH connection could be made. Worth trying again.
	ErrUnreachable = errors.New("machine does not answer on ssh")
	// ErrHostKey says that the machine showed another host key than the pinned one. See [HostKeyError].
	ErrHostKey = errors.New("host key mismatch")
	// ErrAuth says that the machine has the pinned host key and refused our key.
	ErrAuth = errors.New("machine refuses the key")
	// ErrConnLost says that the connection broke during a call and that reconnecting did not save the call.
	ErrConnLost = errors.New("connection lost")
	// ErrJobNotFound says that the machine has no job with this ID.
	ErrJobNotFound = errors.New("no such job on the machine")
	// ErrDirectory says that the directory which a command is to run in does not exist.
	ErrDirectory = errors.New("no such directory on the machine")
	// ErrInvalid says that the request cannot be right, whatever the machine's state. Nothing was sent.
	ErrInvalid = errors.New("invalid request")
	// ErrNotEnded says that processes of a job survived even SIGKILL.
	ErrNotEnded = errors.New("processes of the job are still there")
	// ErrStorage says that the machine could not store what it was sent: disk full, home not writable.
	ErrStorage = errors.New("machine cannot store it")
	// ErrConflict says that something else is on the machine where a file or directory is to go. Nothing was replaced.
	ErrConflict = errors.New("in the way on the machine")
	// ErrTooLarge says that a transfer is over its limit. Nothing was sent.
	ErrTooLarge = errors.New("too large")
	// ErrMassDeletion says that a push would delete more than its guard lets pass. Nothing was sent or deleted.
	ErrMassDeletion = errors.New("too many deletions")
	// ErrUnsupported says that this machine is not made for what was asked. Nothing was changed.
	ErrUnsupported = errors.New("not possible on this machine")
	// ErrClosed says that the pool has been closed.
	ErrClosed = errors.New("pool closed")
	// ErrMachine says that the machine's answer made no sense.
	ErrMachine = errors.New("unexpected answer from the machine")
)

// HostKeyError tells both fingerprints of a mismatch. It is [ErrHostKey].
type HostKeyError struct {
	Addr string // host:port
	Want string // "SHA256:…" of the pinned key
	Got  string // "SHA256:…" of the key shown, or why none of the pinned type was shown
}

func (e *HostKeyError) Error() string {
	return fmt.Sprintf("%s: host key mismatch: pinned %s, machine shows %s", e.Addr, e.Want, e.Got)
}

// Is makes errors.Is(err, ErrHostKey) true.
func (e *HostKeyError) Is(target error) bool { return target == ErrHostKey }

// MassDeletionError tells how many files would have gone. It is [ErrMassDeletion].
type MassDeletionError struct {
	Gone  int // files that would be deleted
	Known int // files that earlier pushes put there
	Most  int // files that may be deleted at once
}

func (e *MassDeletionError) Error() string {
	return fmt.Sprintf("%v: %d of the %d files that earlier pushes put there are no longer here, and at most %d may be deleted at once", ErrMassDeletion, e.Gone, e.Known, e.Most)
}

// Is makes errors.Is(err, ErrMassDeletion) true.
func (e *MassDeletionError) Is(target error) bool { return target == ErrMassDeletion }

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}
