package machine_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

// openSSH starts the real sshd of this host for this user.
func openSSH(t *testing.T) target {
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		sshd = "/usr/sbin/sshd"
		_, err = os.Stat(sshd)
	}
	if err != nil {
		missing(t, "sshd")
	}
	me, err := user.Current()
	require.NoError(t, err)
	if me.Uid == "0" {
		require.NoError(t, os.MkdirAll("/run/sshd", 0o755)) // where sshd, as root, keeps nothing
	}
	key, hostKey, dir := newKey(t), newKey(t), t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	port := freePort(t)
	pam := "no"
	if me.Uid != "0" {
		pam = "yes" // without it sshd takes an account without a password for locked
	}
	// From the second level on, bash leaves this user's .bashrc alone.
	config := file("config", fmt.Sprintf(`Port %d
ListenAddress 127.0.0.1
HostKey %s
AuthorizedKeysFile %s
StrictModes no
PidFile none
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM %s
AcceptEnv LANG LC_*
SetEnv SHLVL=2
Subsystem sftp internal-sftp
`, port, file("host_key", hostKey.pem), file("authorized_keys", key.authorized), pam))
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	defer log.Close()
	said := func() string {
		text, err := os.ReadFile(log.Name())
		require.NoError(t, err)
		return string(text)
	}
	cmd := exec.Command(sshd, "-D", "-e", "-f", config)
	cmd.Stderr = log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(said())
		}
	})
	x := target{addr: fmt.Sprintf("127.0.0.1:%d", port), root: me.Uid == "0"}
	x.config = func() *ssh.ClientConfig {
		return &ssh.ClientConfig{
			User:            me.Username,
			Auth:            []ssh.AuthMethod{ssh.PublicKeys(key.signer)},
			HostKeyCallback: ssh.FixedHostKey(hostKey.signer.PublicKey()),
		}
	}
	eventually(t, "sshd answers", func() bool {
		c, err := net.Dial("tcp", x.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	c, err := connect(x.addr, x.config())
	if err != nil && strings.Contains(said(), "account is locked") {
		missing(t, "an account with a password, into which sshd lets without PAM,")
	}
	require.NoError(t, err)
	require.NoError(t, c.Close())
	return x
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// missing ends a test that needs a program of the host. Nothing is skipped in CI.
func missing(t *testing.T, program string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed", program)
	}
	t.Skipf("%s is not installed", program)
}
