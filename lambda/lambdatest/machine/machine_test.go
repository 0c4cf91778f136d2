package machine_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
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

// patience is how long a test waits for what happens in milliseconds.
const patience = 20 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, patience, 5*time.Millisecond, what)
}

// keyPair is an ed25519 key in the forms that tests need.
type keyPair struct {
	signer     ssh.Signer
	pem        string
	authorized string
}

func newKey(t *testing.T) keyPair {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	return keyPair{signer, string(pem.EncodeToMemory(block)), string(ssh.MarshalAuthorizedKey(signer.PublicKey()))}
}

// host is a machine and the key that opens it.
type host struct {
	*machine.Machine
	key keyPair
	id  string
}

// start starts a machine and closes it at the end of the test.
func start(t *testing.T, change ...func(*machine.Config)) *host {
	t.Helper()
	h := &host{key: newKey(t)}
	c := machine.Config{
		ID:             "test-" + strings.ToLower(rand.Text()),
		Dir:            filepath.Join(t.TempDir(), "machine"),
		AuthorizedKeys: []ssh.PublicKey{h.key.signer.PublicKey()},
		GPU:            machine.GPU{Count: 1, Name: "NVIDIA A10", MemoryMiB: 23028, Emulate: true},
		Logf:           t.Logf,
	}
	for _, f := range change {
		f(&c)
	}
	m, err := machine.Start(t.Context(), c)
	require.NoError(t, err)
	h.Machine, h.id = m, c.ID
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return h
}

func (h *host) config() *ssh.ClientConfig {
	return &ssh.ClientConfig{
		User:              "ubuntu",
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(h.key.signer)},
		HostKeyCallback:   ssh.FixedHostKey(h.HostKey()),
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	}
}

// connect logs in as c says.
func connect(addr string, c *ssh.ClientConfig) (*ssh.Client, error) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	cc, channels, requests, err := ssh.NewClientConn(conn, addr, c)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return ssh.NewClient(cc, channels, requests), conn.SetDeadline(time.Time{})
}

func (h *host) dial(t *testing.T) *ssh.Client {
	t.Helper()
	c, err := connect(h.Addr(), h.config())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// result is how a command ended.
type result struct {
	stdout, stderr string
	code           int
	signal         string
}

func run(t *testing.T, c *ssh.Client, command string, stdin io.Reader) result {
	t.Helper()
	s, err := c.NewSession()
	require.NoError(t, err)
	defer s.Close()
	var out, errs bytes.Buffer
	s.Stdin, s.Stdout, s.Stderr = stdin, &out, &errs
	r := result{}
	err = s.Run(command)
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		r.code, r.signal = exit.ExitStatus(), exit.Signal()
	} else if !errors.Is(err, io.EOF) { // io.EOF: the command ended with some stdin unread
		require.NoError(t, err)
	}
	r.stdout, r.stderr = out.String(), errs.String()
	return r
}

func (h *host) run(t *testing.T, command string) result {
	t.Helper()
	return run(t, h.dial(t), command, nil)
}

func TestCommands(t *testing.T) {
	h := start(t)
	for name, tc := range map[string]struct {
		command, stdin string
		want           result
	}{
		"OK":                {"echo hello", "", result{stdout: "hello\n"}},
		"ExitCode":          {"echo out; echo err >&2; exit 7", "", result{stdout: "out\n", stderr: "err\n", code: 7}},
		"NotFound":          {"no-such-program 2>/dev/null", "", result{code: 127}},
		"Signal":            {"kill -TERM $$", "", result{code: 143, signal: "TERM"}},
		"Stdin":             {"tr a-z A-Z", "shout", result{stdout: "SHOUT"}},
		"StdinEOF":          {"cat; echo end", "x", result{stdout: "xend\n"}},
		"StdinUnread":       {"true", strings.Repeat("x", 4<<20), result{}},
		"Home":              {`[ "$(pwd -P)" = "$(cd && pwd -P)" ] && echo "$USER $LOGNAME"`, "", result{stdout: "ubuntu ubuntu\n"}},
		"Binary":            {`printf '\000\377\n'`, "", result{stdout: "\x00\xff\n"}},
		"StdoutClosedEarly": {"exec >&- 2>&-; exit 3", "", result{code: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.want, run(t, h.dial(t), tc.command, strings.NewReader(tc.stdin)))
		})
	}
}

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
		"HOME", "USER", "LOGNAME", "SHELL", "LANG", "TMPDIR", "PATH", "GPULEASE_SIM_ROOT", machine.Mark,
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
