// Package logfile keeps the log of a process that may run for months small, and
// keeps the process alive when its log cannot be written.
package logfile

import (
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"sync"
)

// longestLine is where a line is cut, in bytes.
const longestLine = 16 << 10

// File is a log file that rotates itself: it never grows over Size bytes, and
// one older file of at most the same size is kept beside it as Path.old. Several
// processes may write to it. Write never fails and never blocks for long: what
// could not be written is counted, and said when it works again.
type File struct {
	Path     string
	Size     int64
	Fallback string // used while Path cannot be opened, for instance because its directory was deleted; "" for nothing
	Crashes  bool   // what the Go runtime says when it dies goes there too

	mu   sync.Mutex
	file *os.File
	lost int   // lines
	why  error // the last of them
	torn bool  // the file ends in the middle of a line
}

// Write appends one line.
func (l *File) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := p
	if len(line) > longestLine {
		line = append(slices.Clip(line[:longestLine]), "[cut]\n"...)
	}
	err := l.ready(int64(len(line)))
	if err == nil {
		err = l.append(line)
	}
	if err != nil {
		l.lost, l.why = l.lost+1, err
	}
	return len(p), nil
}

func (l *File) append(line []byte) error {
	line = slices.Clip(line) // what lies behind it is not ours
	if l.torn {
		line = append([]byte("\n"), line...)
	}
	if l.lost > 0 {
		line = fmt.Appendf(line, "{\"level\":\"WARN\",\"msg\":\"lines of this log were lost\",\"lines\":%d,\"err\":%q}\n", l.lost, l.why.Error())
	}
	n, err := l.file.Write(line)
	if err != nil {
		l.torn = l.torn || n > 0
		return err
	}
	l.lost, l.why, l.torn = 0, nil, false
	return nil
}

// ready makes sure that the path leads to the open file, which has room for n
// more bytes.
func (l *File) ready(n int64) error {
	if !leadsTo(l.Path, l.file) {
		if err := l.reopen(); err != nil {
			return err
		}
	}
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 || info.Size()+n <= l.Size {
		return nil
	}
	path := l.file.Name()
	if leadsTo(path, l.file) && os.Rename(path, path+".old") == nil && l.reopen() == nil {
		return nil
	}
	return l.file.Truncate(0) // bounded comes before kept
}

// reopen opens the file, or the fallback; with neither, it keeps what is open.
func (l *File) reopen() error {
	f, err := open(l.Path)
	if err != nil && l.Fallback != "" {
		if leadsTo(l.Fallback, l.file) {
			return nil
		}
		var second error
		if f, second = open(l.Fallback); second == nil {
			err = nil
		}
	}
	switch {
	case err == nil:
	case l.file != nil:
		return nil
	default:
		return err
	}
	if l.file != nil {
		_ = l.file.Close() // nothing is buffered
	}
	l.file, l.torn = f, false
	if l.Crashes && !leadsTo(f.Name(), os.Stderr) { // what dies says it to standard error in any case
		return debug.SetCrashOutput(f, debug.CrashOptions{})
	}
	return nil
}

func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// leadsTo reports whether path leads to the open file f.
func leadsTo(path string, f *os.File) bool {
	if f == nil {
		return false
	}
	at, err := os.Stat(path)
	if err != nil {
		return false
	}
	is, err := f.Stat()
	return err == nil && os.SameFile(at, is)
}

// Close closes the file. A later Write opens it again.
func (l *File) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

var _ io.WriteCloser = (*File)(nil)
