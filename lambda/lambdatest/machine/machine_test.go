package machine_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/gpulease/gpulease/lambda/lambdatest/machine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLogin(t *testing.T) {
	h := start(t)
	other := newKey(t)
	for name, change := range map[string]func(*ssh.ClientConfig){
		"WrongKey":  func(c *ssh.ClientConfig) { c.Auth = []ssh.AuthMethod{ssh.PublicKeys(other.signer)} },
		"WrongUser": func(c *ssh.ClientConfig) { c.User = "root" },
		"Password":  func(c *ssh.ClientConfig) { c.Auth = []ssh.AuthMethod{ssh.Password("ubuntu")} },
		"NoKey":     func(c *ssh.ClientConfig) { c.Auth = nil },
	} {
		t.Run(name, func(t *testing.T) {
			c := h.config()
			change(c)
			_, err := connect(h.Addr(), c)
			require.ErrorContains(t, err, "unable to authenticate")
		})
	}
	t.Run("KeyOfTheMoment", func(t *testing.T) {
		c := h.config()
		c.Auth = []ssh.AuthMethod{ssh.PublicKeys(other.signer)}
		require.Zero(t, run(t, h.dial(t), "cat >>.ssh/authorized_keys", strings.NewReader(other.authorized)).code)
		client, err := connect(h.Addr(), c)
		require.NoError(t, err)
		client.Close()
	})
}

func TestEnvironmentDoesNotLeak(t *testing.T) {
	t.Setenv("LAMBDA_API_KEY", "secret_do_not_leak")
	h := start(t, func(c *machine.Config) { c.Env = []string{"GOFLAGS=-mod=mod"} })
	got := h.run(t, "env")
	require.NotContains(t, got.stdout, "secret_do_not_leak")
	var names []string
	for line := range strings.Lines(got.stdout) {
		name, _, _ := strings.Cut(line, "=")
		names = append(names, name)
	}
	require.Subset(t, []string{
		"HOME", "USER", "LOGNAME", "SHELL", "LANG", "TMPDIR", "PATH", "GPULEASE_SSH_DIR", "GPULEASE_SIM_ROOT", machine.Mark,
		"SSH_CLIENT", "SSH_CONNECTION", "GOFLAGS",
		"PWD", "OLDPWD", "SHLVL", "_", // the shell's own
	}, names)
	require.Contains(t, got.stdout, machine.Mark+"="+h.id+"\n")
	require.Contains(t, got.stdout, "GOFLAGS=-mod=mod\n")
	require.Contains(t, got.stdout, "HOME="+h.Home()+"\n")
	require.Contains(t, got.stdout, "PATH="+filepath.Join(filepath.Dir(h.Home()), "bin")+":"+os.Getenv("PATH")+"\n")
}

func TestCloseRemovesTheDirectory(t *testing.T) {
	h := start(t)
	require.Zero(t, h.run(t, "mkdir -p go/mod && echo x >go/mod/f && chmod 0555 go/mod go").code)
	require.NoError(t, h.Close())
	require.NoDirExists(t, filepath.Dir(h.Home()))
	_, err := net.DialTimeout("tcp", h.Addr(), time.Second)
	require.Error(t, err)
	require.NoError(t, h.Close(), "again")
}

func TestStartRefuses(t *testing.T) {
	full := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(full, "thesis.tex"), nil, 0o600))
	for name, tc := range map[string]struct {
		config machine.Config
		want   string
	}{
		"NoID":         {machine.Config{}, "no ID"},
		"ForeignDir":   {machine.Config{ID: "a", Dir: full}, "is not empty"},
		"UnknownFault": {machine.Config{ID: "a", GPU: machine.GPU{Count: 1, Fault: "melted"}}, "melted"},
		"BadAddress":   {machine.Config{ID: "a", Addr: "nowhere"}, "listen"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := machine.Start(context.Background(), tc.config)
			require.Nil(t, m)
			require.ErrorContains(t, err, tc.want)
		})
	}
	require.FileExists(t, filepath.Join(full, "thesis.tex"))
}
