package tools

import (
	"errors"
	"fmt"
	"sync"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

// sofar is how far a transfer has come, also for the one that breaks off.
type sofar struct {
	note *Reporter
	verb string // what is done to files

	mu    sync.Mutex
	files int
	bytes int64
	parts int64 // of bytes, those that came by as parts of a large file
}

func (s *sofar) add(files int, bytes int64) {
	s.mu.Lock()
	if files == s.files {
		s.parts += bytes - s.bytes
	}
	s.files, s.bytes = files, bytes
	s.mu.Unlock()
	s.note.Note(fmt.Sprintf("%s %s, %d bytes", plural(files, "file"), s.verb, bytes))
}

func (s *sofar) sum() (files int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files, s.bytes
}

// kept is how many bytes of parts of large files went out: those that arrived are
// kept for the next call, while small files count only once they are in place.
func (s *sofar) kept() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parts
}

// tooSlow is for a transfer of which nothing stayed in the time of a call: the next
// call would begin with the same. Cause is how it ended.
func tooSlow(id lease.ID, cause error, what, otherwise string) error {
	e := &lease.Error{
		Code: lease.CodeSSHUnreachable, Message: fmt.Sprintf("%s within %d s", what, transferTime), LeaseID: id, Retryable: true, Err: cause,
		Why:  "the connection is slow, or was away",
		Next: "call again once; if it stays, " + otherwise,
	}
	var silent *remote.SilentError
	if errors.As(cause, &silent) {
		e.Why = silent.Error()
		e.Next = fmt.Sprintf(comesBack, id)
	}
	return e
}
