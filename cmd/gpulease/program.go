package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

var programLook = 10 * time.Second // between two looks at the program file; tests look more often

const (
	programAgain    = 10 * time.Minute // until a new program that could not do the work is tried again
	programRehearse = time.Minute
)

// program is the file that this process was started from. An upgrade puts
// another one in its place.
type program struct {
	path string

	was     os.FileInfo // what runs
	looked  time.Time
	next    os.FileInfo // what was in its place at the last look
	refused os.FileInfo // what could not do the work
	tried   time.Time
}

// runningProgram always leads to what runs, on Linux, also when its file was deleted.
const runningProgram = "/proc/self/exe"

// ownProgram is this process's program, nil where a process cannot go on as
// another program.
func ownProgram() *program {
	if runtime.GOOS == "windows" {
		return nil
	}
	path, err := programPath()
	if err != nil {
		return nil
	}
	was, err := os.Stat(runningProgram)
	if err != nil {
		was, err = os.Stat(path)
	}
	if err != nil {
		return nil
	}
	return &program{path: path, was: was}
}

// programPath is where an upgrade of this program will be found: the path that it
// was started by, which may be a link that an upgrade moves, or else its file.
func programPath() (string, error) {
	file, err := os.Executable()
	if err != nil {
		return "", err
	}
	named, err := exec.LookPath(os.Args[0])
	if err == nil {
		named, err = filepath.Abs(named)
	}
	if err != nil {
		return file, nil
	}
	a, errA := os.Stat(named)
	b, errB := os.Stat(file)
	if errA == nil && errB == nil && os.SameFile(a, b) {
		return named, nil
	}
	return file, nil
}

// wasReplaced reports whether another program is in this one's place that can do
// its work. It tries that out, which takes a moment.
func (p *program) wasReplaced(ctx context.Context, log *slog.Logger, key string) bool {
	if p == nil || time.Since(p.looked).Abs() < programLook {
		return false
	}
	p.looked = time.Now()
	info, err := os.Stat(p.path)
	switch {
	case err != nil || sameProgram(info, p.was):
		p.next = nil
		return false
	case !sameProgram(info, p.next): // it may be written just now
		p.next = info
		return false
	case sameProgram(info, p.refused) && time.Since(p.tried).Abs() < programAgain:
		return false
	}
	p.refused, p.tried = info, time.Now() // also should it fail later on
	if err := p.rehearse(ctx, key); err != nil {
		log.Error("the program file was replaced, but the new program cannot do the work; the old one goes on", "path", p.path, "err", err)
		return false
	}
	return true
}

func sameProgram(a, b os.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// rehearse runs the new program as it is about to run, except that it does nothing.
func (p *program) rehearse(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, programRehearse)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.path, append(programArgs(key), "--rehearse")...)
	cmd.WaitDelay = time.Second
	if key != "" {
		cmd.Stdin = strings.NewReader(key)
	}
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	said := string(out[:min(len(out), 500)])
	if key != "" {
		said = strings.ReplaceAll(said, key, "[redacted]")
	}
	return fmt.Errorf("rehearse it: %w: %s", err, strings.TrimSpace(said))
}

// become goes on as the new program, under the same process id. It returns only
// if that fails.
func (p *program) become(key string) error {
	err := execProgram(p.path, append([]string{p.path}, programArgs(key)...), key)
	return errors.Join(errors.New("become the new program"), err)
}

// programArgs are this process's arguments, with the key to be read from standard
// input if there is one.
func programArgs(key string) []string {
	const flag = "--key-on-stdin"
	args := slices.DeleteFunc(slices.Clone(os.Args[1:]), func(a string) bool { return a == flag })
	if key != "" {
		args = append(args, flag)
	}
	return args
}
