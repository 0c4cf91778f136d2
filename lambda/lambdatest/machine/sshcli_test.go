package machine_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/gpulease/gpulease/lambda/lambdatest/machine"
)

// cli is OpenSSH's own client, with the machine's keys in files.
type cli struct {
	dir     string
	options []string
	host    string
}

func newCLI(t *testing.T, h *host, known ssh.PublicKey) cli {
	t.Helper()
	dir := t.TempDir()
	address, port, err := net.SplitHostPort(h.Addr())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "key"), []byte(h.key.pem), 0o600))
	line := fmt.Sprintf("[%s]:%s %s", address, port, ssh.MarshalAuthorizedKey(known))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "known"), []byte(line), 0o600))
	return cli{dir: dir, host: address, options: []string{
		"-F", "none", "-o", "Port=" + port, "-o", "User=ubuntu", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
		"-o", "IdentityFile=" + filepath.Join(dir, "key"), "-o", "UserKnownHostsFile=" + filepath.Join(dir, "known"),
		"-o", "GlobalKnownHostsFile=none",
	}}
}

func (x cli) run(t *testing.T, stdin io.Reader, args ...string) result {
	t.Helper()
	return x.program(t, "ssh", stdin, append([]string{x.host}, args...)...)
}

func (x cli) program(t *testing.T, name string, stdin io.Reader, args ...string) result {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, append(append([]string(nil), x.options...), args...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	err := cmd.Run()
	if _, ok := err.(*exec.ExitError); !ok {
		require.NoError(t, err)
	}
	return result{stdout: out.String(), stderr: errs.String(), code: cmd.ProcessState.ExitCode()}
}

func needSSH(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		missing(t, "ssh")
	}
}

func TestSSHCommandLine(t *testing.T) {
	needSSH(t)
	h := start(t)
	x := newCLI(t, h, h.HostKey())

	require.Equal(t, result{stdout: "out\n", stderr: "err\n", code: 7}, x.run(t, nil, "echo out; echo err >&2; exit 7"))
	require.Equal(t, 255, x.run(t, nil, "kill -KILL $$").code, "an end by signal is 255")
	require.Equal(t, result{stdout: "in\nend\n"}, x.run(t, strings.NewReader("in\n"), "cat; echo end"))
	require.Equal(t, result{stdout: "3\n"}, x.program(t, "ssh", strings.NewReader("echo $((1 + 2))\n"), "-T", x.host), "a shell")

	data := make([]byte, 10<<20)
	_, _ = rand.Read(data)
	got := x.run(t, bytes.NewReader(data), "cat")
	require.True(t, got.code == 0 && got.stdout == string(data), "10 MB there and back")

	pty := x.program(t, "ssh", nil, "-tt", x.host, "echo plain")
	require.Equal(t, 255, pty.code, "who insists on a terminal is told so")
	require.Contains(t, pty.stderr, "PTY allocation request failed")

	require.Equal(t, result{}, x.run(t, nil, "sleep 30 >/dev/null 2>&1 &"), "it does not wait for the background")
}

func TestSSHCommandLineRefused(t *testing.T) {
	needSSH(t)
	h := start(t)
	x := newCLI(t, h, h.HostKey())
	root := x
	root.options = append([]string{"-l", "root"}, x.options...)
	r := root.program(t, "ssh", nil, x.host, "true")
	require.Equal(t, 255, r.code)
	require.Contains(t, r.stderr, "Permission denied (publickey)")

	require.NoError(t, os.WriteFile(filepath.Join(x.dir, "key"), []byte(newKey(t).pem), 0o600))
	r = x.run(t, nil, "true")
	require.Equal(t, 255, r.code)
	require.Contains(t, r.stderr, "Permission denied (publickey)")
}

func TestSSHCommandLineHostKey(t *testing.T) {
	needSSH(t)
	given := newKey(t)
	h := start(t, func(c *machine.Config) {
		c.UserData, c.CloudInitDelay = cloudConfig(given, ""), 300*time.Millisecond
	})
	x := newCLI(t, h, given.signer.PublicKey())
	early := x.run(t, nil, "true")
	require.Equal(t, 255, early.code)
	require.Contains(t, early.stderr, "Host key verification failed")
	eventually(t, "cloud-init ends", h.CloudInitDone)
	require.Equal(t, result{stdout: "safe\n"}, x.run(t, nil, "echo safe"))
}

func TestSFTP(t *testing.T) {
	needSSH(t)
	if _, err := exec.LookPath("sftp"); err != nil {
		missing(t, "sftp")
	}
	h := start(t)
	x := newCLI(t, h, h.HostKey())
	if r := x.program(t, "ssh", nil, "-s", x.host, "sftp"); strings.Contains(r.stderr, "subsystem request failed") {
		missing(t, "sftp-server")
	}
	require.NoError(t, os.WriteFile(filepath.Join(x.dir, "up"), []byte("by sftp"), 0o600))
	r := x.program(t, "sftp", strings.NewReader("put "+filepath.Join(x.dir, "up")+" there\n"), x.host)
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, "by sftp", h.run(t, "cat there").stdout)
}
