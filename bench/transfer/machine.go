package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/gpulease/gpulease/remote"
)

// machine is a real sshd with a home directory of its own.
type machine struct {
	target  remote.Target
	dir     string
	home    string
	keyFile string
	server  *exec.Cmd
}

func startMachine(dir string) (*machine, error) {
	sshd, err := exec.LookPath("/usr/sbin/sshd")
	if err != nil {
		return nil, fmt.Errorf("%w: install openssh-server", err)
	}
	m := &machine{dir: dir, home: filepath.Join(dir, "home"), keyFile: filepath.Join(dir, "key")}
	hostKey, err := remote.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	clientKey, err := remote.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := clientKey.Signer()
	if err != nil {
		return nil, err
	}
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	config := strings.Join([]string{
		"ListenAddress " + addr, "HostKey " + filepath.Join(dir, "host_key"), "AuthorizedKeysFile " + filepath.Join(dir, "authorized"),
		"PidFile none", "StrictModes no", "UsePAM no", "PasswordAuthentication no", "LogLevel ERROR",
		"Subsystem sftp internal-sftp", "SetEnv HOME=" + m.home, "",
	}, "\n")
	if err := errors.Join(
		os.Mkdir(m.home, 0o700),
		os.WriteFile(filepath.Join(dir, "host_key"), hostKey.PrivatePEM, 0o600),
		os.WriteFile(filepath.Join(dir, "authorized"), []byte(clientKey.AuthorizedKey+"\n"), 0o600),
		os.WriteFile(m.keyFile, clientKey.PrivatePEM, 0o600),
		os.WriteFile(filepath.Join(dir, "sshd_config"), []byte(config), 0o600),
	); err != nil {
		return nil, err
	}
	_ = os.Mkdir("/run/sshd", 0o755) // root's sshd wants it for its privilege separation
	var log bytes.Buffer
	m.server = exec.Command(sshd, "-D", "-e", "-f", filepath.Join(dir, "sshd_config"))
	m.server.Stderr = &log
	if err := m.server.Start(); err != nil {
		return nil, err
	}
	m.target = remote.Target{Key: "bench", Addr: addr, User: me.Username, Signer: signer, HostKey: hostKey.Public}
	for range 500 {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			return m, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	m.stop()
	return nil, fmt.Errorf("sshd does not listen: %s", log.String())
}

func (m *machine) stop() {
	_ = m.server.Process.Kill()
	_ = m.server.Wait()
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

// rivals are the command line tools. All share a kept connection by ControlMaster, but for freshConfig.
type rivals struct {
	config, freshConfig string
}

func newRivals(m *machine, t remote.Target) (*rivals, error) {
	r := &rivals{config: filepath.Join(m.dir, "config-"+portOf(t)), freshConfig: filepath.Join(m.dir, "fresh-"+portOf(t))}
	known := filepath.Join(m.dir, "known-"+portOf(t))
	text := remote.SSHConfig("lease", t, m.keyFile, known)
	kept := text + "    ControlMaster auto\n    ControlPersist yes\n    ControlPath " + filepath.Join(m.dir, "cm-"+portOf(t)) + "\n"
	if err := errors.Join(
		os.WriteFile(known, []byte(remote.KnownHosts(t)), 0o600),
		os.WriteFile(r.freshConfig, []byte(text), 0o600),
		os.WriteFile(r.config, []byte(kept), 0o600),
	); err != nil {
		return nil, err
	}
	return r, tool("ssh", "-F", r.config, "lease", "true")
}

func (r *rivals) close() { _ = tool("ssh", "-F", r.config, "-O", "exit", "lease") }

func (r *rivals) rsync(args ...string) error {
	return tool("rsync", append([]string{"-e", "ssh -F " + r.config, "-a"}, args...)...)
}

func (r *rivals) scp(args ...string) error {
	return tool("scp", append([]string{"-q", "-F", r.config}, args...)...)
}

func (r *rivals) tarUp(src, dst string) error {
	return tool("sh", "-c", `tar -C "$1" -cf - . | ssh -F "$2" lease "mkdir '$3' && tar -xf - -C '$3'"`, "sh", src, r.config, dst)
}

func (r *rivals) tarDown(src, dst string) error {
	return tool("sh", "-c", `ssh -F "$2" lease "tar -C '$1' -cf - ." | tar -xf - -C "$3"`, "sh", src, r.config, dst)
}

func portOf(t remote.Target) string {
	_, port, _ := net.SplitHostPort(t.Addr)
	return port
}

// tool runs a program. Its output goes to a file that a daemon of it may hold open.
func tool(name string, args ...string) error {
	out, err := os.CreateTemp("", "transfer-tool-")
	if err != nil {
		return err
	}
	defer func() {
		_ = out.Close()
		_ = os.Remove(out.Name())
	}()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(out.Name())
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, said)
	}
	return nil
}
