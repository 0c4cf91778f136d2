//go:build unix

package remote_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/gpulease/gpulease/remote"
)

// host is a machine to test against: an OpenSSH server on loopback with a home directory of its own.
type host struct {
	remote.Target
	home   string
	bin    string // first in the machine's PATH
	sshd   string
	config string // sshd's
	mark   string // in the environment of everything on it
	pid    int    // of its sshd
}

// startHost starts the real sshd. Everything that runs under it carries a mark in its environment, by which the
// end of the test finds and kills it, and fails the test if the code under test has left something behind.
func startHost(t testing.TB, extra ...string) *host {
	t.Helper()
	return startHostWith(t, "", extra...)
}

// shells are those on this computer that the machine's scripts are written for.
func shells(t testing.TB) []string {
	t.Helper()
	var found []string
	for _, name := range []string{"dash", "bash", "busybox"} {
		if _, err := exec.LookPath(name); err == nil {
			found = append(found, name)
		} else if os.Getenv("CI") == "true" {
			require.FailNow(t, "no "+name+": CI must install it")
		}
	}
	return found
}

// onEachShell runs a test on a machine of each kind.
func onEachShell(t *testing.T, f func(t *testing.T, h *host, shell string)) {
	t.Helper()
	for _, shell := range shells(t) {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			f(t, startHostWith(t, shell), shell)
		})
	}
}

// startHostWith starts a machine whose sh is the given one; with busybox there is nothing else on it.
func startHostWith(t testing.TB, shell string, extra ...string) *host {
	t.Helper()
	h := makeHost(t, shell, extra...)
	h.serve(t, exec.Command(h.sshd, "-D", "-e", "-f", h.config))
	return h
}

// makeHost lays out the machine and starts nothing.
func makeHost(t testing.TB, shell string, extra ...string) *host {
	t.Helper()
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		sshd, err = exec.LookPath("/usr/sbin/sshd")
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			require.FailNow(t, "no sshd: CI must install openssh-server")
		}
		t.Skip("no sshd here: install openssh-server to run this test")
	}
	dir := t.TempDir()
	h := &host{
		home: filepath.Join(dir, "home"), bin: filepath.Join(dir, "bin"), sshd: sshd, config: filepath.Join(dir, "sshd_config"),
		mark: "GPULEASE_TEST_HOST=" + dir,
	}
	require.NoError(t, os.MkdirAll(h.home, 0o700))
	require.NoError(t, os.MkdirAll(h.bin, 0o700))
	path := h.bin + ":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
	if shell != "" {
		file, err := exec.LookPath(shell)
		require.NoError(t, err)
		names := []string{"sh"}
		if shell == "busybox" {
			path = h.bin
			list, err := exec.Command(file, "--list").Output()
			require.NoError(t, err)
			names = strings.Fields(string(list))
		}
		for _, name := range names {
			require.NoError(t, os.Symlink(file, filepath.Join(h.bin, name)))
		}
	}
	hostKey, clientKey := newKey(t), newKey(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ssh_host_ed25519_key"), hostKey.PrivatePEM, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "authorized"), []byte(clientKey.AuthorizedKey+"\n"), 0o600))
	_ = os.Mkdir("/run/sshd", 0o755) // root's sshd wants it for its privilege separation
	me, err := user.Current()
	require.NoError(t, err)
	addr := freeAddr(t)
	lines := append([]string{
		"ListenAddress " + addr,
		"HostKey " + filepath.Join(dir, "ssh_host_ed25519_key"),
		"AuthorizedKeysFile " + filepath.Join(dir, "authorized"),
		"PidFile none", "StrictModes no", "UsePAM no", "PasswordAuthentication no", "LogLevel ERROR",
		fmt.Sprintf("SetEnv HOME=%s %s PATH=%s", h.home, h.mark, path),
	}, extra...)
	require.NoError(t, os.WriteFile(h.config, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	signer, err := clientKey.Signer()
	require.NoError(t, err)
	h.Target = remote.Target{Key: dir, Addr: addr, User: me.Username, Signer: signer, HostKey: hostKey.Public}
	return h
}

// serve runs what serves the machine until the end of the test.
func (h *host) serve(t testing.TB, server *exec.Cmd) {
	t.Helper()
	var log bytes.Buffer
	server.Stderr = &log
	require.NoError(t, server.Start())
	h.pid = server.Process.Pid
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
		killMarked(h.mark)
		if t.Failed() && log.Len() > 0 {
			t.Logf("sshd: %s", log.String())
		}
	})
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", h.Addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, 15*time.Second, 5*time.Millisecond, "sshd does not listen")
}

// shim puts an executable into the machine's PATH. What was there goes first: writing through a link would change
// this computer's own program.
func (h *host) shim(t testing.TB, name, text string) {
	t.Helper()
	h.unshim(t, name)
	require.NoError(t, os.WriteFile(filepath.Join(h.bin, name), []byte(text), 0o755))
}

func (h *host) unshim(t testing.TB, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(h.bin, name)); err != nil {
		require.ErrorIs(t, err, os.ErrNotExist)
	}
}

func newPool(t testing.TB, c remote.Config) *remote.Pool {
	t.Helper()
	if c.Near == 0 {
		c.Near = -1 // as what is not on this computer
	}
	p := remote.NewPool(c)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

func newKey(t testing.TB) remote.KeyPair {
	t.Helper()
	k, err := remote.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return k
}

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	s, err := newKey(t).Signer()
	require.NoError(t, err)
	return s
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// marked lists the processes that have the variable in their environment.
func marked(variable string) []int {
	var pids []int
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil || !bytes.Contains(append([]byte{0}, data...), []byte("\x00"+variable+"\x00")) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		pids = append(pids, pid)
	}
	return pids
}

func killMarked(variable string) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		pids := marked(variable)
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}
