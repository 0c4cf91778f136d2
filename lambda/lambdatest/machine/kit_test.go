package machine_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/gpulease/gpulease/lambda/lambdatest/machine"
)

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
	key  keyPair
	id   string
	t    *testing.T // the test that started it
	kept *ssh.Client
}

// start starts a machine and closes it at the end of the test.
func start(t *testing.T, change ...func(*machine.Config)) *host {
	t.Helper()
	h := &host{key: newKey(t), t: t}
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

// connect logs in as c says. The connection lives for a minute at most, so that a
// test which would wait for ever fails.
func connect(addr string, c *ssh.ClientConfig) (*ssh.Client, error) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		conn.Close()
		return nil, err
	}
	cc, channels, requests, err := ssh.NewClientConn(conn, addr, c)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return ssh.NewClient(cc, channels, requests), nil
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

// run runs a command over a connection that is kept for all of them.
func (h *host) run(t *testing.T, command string) result {
	t.Helper()
	if h.kept == nil {
		h.kept = h.dial(h.t)
	}
	return run(t, h.kept, command, nil)
}

// runAnew runs a command over a connection of its own.
func (h *host) runAnew(t *testing.T, command string) result {
	t.Helper()
	return run(t, h.dial(t), command, nil)
}
