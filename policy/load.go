package policy

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Load reads and checks a policy file. Whatever is wrong is a *FileError, which wraps the file system's error where there is
// one: a file that is missing, that is not a regular file, that others than its owner (or root) may write, that is larger than
// 1 MiB, or that [Parse] refuses.
func Load(path string) (*Policy, error) {
	path, data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// readFile gives the file's absolute path and its bytes, once it is known that only its owner decides about them.
func readFile(path string) (string, []byte, error) {
	full, err := filepath.Abs(path)
	if err != nil {
		return path, nil, &FileError{Path: path, Msg: "the path cannot be made absolute: " + err.Error(), Err: err}
	}
	fail := func(err error) (string, []byte, error) {
		if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
			return full, nil, &FileError{Path: full, Msg: fmt.Sprintf("the policy cannot be read: %v", pe.Err), Err: err}
		}
		return full, nil, &FileError{Path: full, Msg: err.Error(), Err: err}
	}
	info, err := os.Stat(full)
	if err != nil {
		return fail(err)
	}
	if !info.Mode().IsRegular() { // asked before opening: to open a pipe would block
		return fail(errors.New("the policy is not a regular file"))
	}
	f, err := os.Open(full)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return fail(err)
	}
	if err := checkWriters(full, info); err != nil {
		return fail(err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return fail(err)
	}
	return full, data, nil
}

// Source is the policy of a running process: a file that may change at any time. The zero Source is the defaults. It is safe
// for concurrent use, and must not be copied once used.
type Source struct {
	// Path of the file; "" is none.
	Path string
	// Explicit says that somebody named the file, so that it must be there.
	Explicit bool
	// Sets are rules that hold instead of what the file and the defaults say.
	Sets []Set

	mu     sync.Mutex
	seen   bool // the file was there once
	data   string
	policy *Policy
}

// Set is one rule that was given outside of the file.
type Set struct {
	Rule   string `json:"rule"`   // as decisions name it, "caps.per_day"
	Value  string `json:"value"`  // as the file has it; a list separated by commas
	Source string `json:"source"` // where it was given: "flag --policy-set", "env X"
}

// Current is the policy in force now: [Source.file] with Sets. A set that is not understood is an error: no policy, no launch.
func (s *Source) Current() (*Policy, error) {
	p, err := s.file()
	if err != nil {
		return nil, err
	}
	for _, set := range s.Sets {
		if p, err = p.With(set.Rule, set.Value, set.Source); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// file is the policy of the file. The file is read at each call and parsed when it has changed. Without a file, and where
// none was named, it is [Default]; a file that cannot be read or understood, or that was there earlier and is gone, is an
// error and never the defaults: no policy, no launch.
func (s *Source) file() (*Policy, error) {
	if s.Path == "" {
		if s.Explicit {
			return nil, &FileError{Path: "policy", Msg: "the path of the policy file is empty"}
		}
		return Default(), nil
	}
	full, data, err := readFile(s.Path)
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, fs.ErrNotExist) && !s.Explicit && absent(full) {
		if !s.seen {
			return Default(), nil
		}
		return nil, &FileError{Path: full, Err: err,
			Msg: "the policy file was there and is gone: put it back, or restart to go on with the defaults"}
	}
	if err != nil {
		return nil, err
	}
	s.seen = true
	if s.policy != nil && s.data == string(data) {
		return s.policy, nil
	}
	p, err := Parse(full, data)
	if err != nil {
		return nil, err
	}
	s.data, s.policy = string(data), p
	return p, nil
}

// absent reports that there is nothing under the name, not even a link that leads nowhere: that is a file which is missing.
func absent(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// quote makes a path safe to paste into a shell.
func quote(path string) string {
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
