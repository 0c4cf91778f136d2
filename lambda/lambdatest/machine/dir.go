package machine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Mark is the environment variable that every process of a machine carries, with
// the machine's ID as its value.
const Mark = "GPULEASE_SIM_INSTANCE"

// owner is the file that says whose directory it is.
const owner = ".gpulease-machine"

// The parts of a machine's directory: the home; programs that come first in PATH;
// what the programs read; what user_data writes below /; and TMPDIR.
var parts = []string{"home", "bin", "run", "root", "tmp"}

// makeDir makes the machine's directory and reports whether it takes up one that
// a former machine of the same ID has left.
func (m *Machine) makeDir(dir string) (taken bool, err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "gpulease-machine-"); err != nil {
			return false, err
		}
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return false, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, err
	}
	// Close removes the directory: one that is somebody else's must never get in.
	was, err := os.ReadFile(filepath.Join(dir, owner))
	switch {
	case err == nil && string(was) == m.id:
		taken = true
	case err == nil:
		return false, fmt.Errorf("%s belongs to another machine", dir)
	case !errors.Is(err, os.ErrNotExist):
		return false, err
	default:
		entries, err := os.ReadDir(dir)
		if err != nil {
			return false, err
		}
		if len(entries) > 0 {
			return false, fmt.Errorf("%s is not empty", dir)
		}
	}
	m.dir = dir
	if err := os.WriteFile(filepath.Join(dir, owner), []byte(m.id), 0o600); err != nil {
		return false, err
	}
	for _, p := range parts {
		if err := os.MkdirAll(filepath.Join(dir, p), 0o700); err != nil {
			return false, err
		}
	}
	return taken, nil
}

// runFile is the path of a file that the machine's programs read.
func (m *Machine) runFile(name string) string { return filepath.Join(m.dir, "run", name) }

// writeRun replaces such a file; a reader sees the old or the new one.
func (m *Machine) writeRun(name, text string) error {
	tmp := m.runFile("." + name)
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, m.runFile(name))
}

// environment is the shell and the environment of every command, but for its mark. Of this process's
// own environment only PATH gets in: it may hold keys.
func environment(m *Machine, more []string) (shell string, env []string) {
	for _, name := range []string{"bash", "sh"} {
		if p, err := exec.LookPath(name); err == nil {
			shell = p
			break
		}
	}
	path, kept := os.Getenv("PATH"), make([]string, 0, len(more))
	for _, e := range more {
		if p, ok := strings.CutPrefix(e, "PATH="); ok {
			path = p
		} else {
			kept = append(kept, e)
		}
	}
	env = append(hostEnv(),
		"HOME="+m.Home(),
		"USER="+m.user,
		"LOGNAME="+m.user,
		"SHELL="+shell,
		"LANG=C.UTF-8",
		"TMPDIR="+filepath.Join(m.dir, "tmp"),
		"GPULEASE_SSH_DIR="+filepath.Join(m.dir, "run"), // where its host key is
		"GPULEASE_SIM_ROOT="+filepath.Join(m.dir, "root"),
		"PATH="+filepath.Join(m.dir, "bin")+string(os.PathListSeparator)+path,
	)
	return shell, append(env, kept...)
}
