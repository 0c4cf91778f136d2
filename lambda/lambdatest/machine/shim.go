package machine

import (
	"embed"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// shims are the programs that a GPU machine has and this host may not, in POSIX
// sh. They find what they report in the machine's run directory, beside theirs.
//
//go:embed shim
var shims embed.FS

// writeShims writes the machine's programs and what they read.
func (m *Machine) writeShims() error {
	for _, name := range []string{"cloud-init", "hostname", "sudo", "who", "dmesg", "shutdown", "poweroff", "halt", "reboot"} {
		if err := m.writeShim(name, true); err != nil {
			return err
		}
	}
	if err := m.writeRun("hostname", m.hostname+"\n"); err != nil {
		return err
	}
	m.gpuMu.Lock()
	defer m.gpuMu.Unlock()
	return m.writeGPUs()
}

// writeShim puts a program in the machine's PATH, or takes it out.
func (m *Machine) writeShim(name string, present bool) error {
	to := filepath.Join(m.dir, "bin", name)
	if !present {
		if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if _, err := os.Stat(to); err == nil {
		return nil // never written under the feet of a command that runs it
	}
	source := name
	switch name {
	case "poweroff", "halt", "reboot":
		source = "shutdown"
	}
	text, err := shims.ReadFile("shim/" + source)
	if err != nil {
		return err
	}
	return writeProgram(to, os.O_TRUNC, text, 0o755)
}

// writeProgram writes a file that may be run at once. Nothing is forked meanwhile:
// a child of another machine that still held the file open for writing would make
// running it fail with "text file busy".
func writeProgram(path string, how int, text []byte, mode os.FileMode) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|how, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Chmod(path, mode)
}
