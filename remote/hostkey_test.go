//go:build unix

package remote_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/gpulease/gpulease/lambda/lambdatest/machine"
	"github.com/gpulease/gpulease/remote"
)

func needKeygen(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		require.NotEqual(t, "true", os.Getenv("CI"), "no ssh-keygen: CI must install openssh-client")
		t.Skip("no ssh-keygen here")
	}
}

// startRotating is a machine whose sshd can be told to read its keys again.
func startRotating(t *testing.T) *host {
	t.Helper()
	needKeygen(t)
	h := startHost(t)
	dir := filepath.Dir(h.home)
	require.NoError(t, os.WriteFile(filepath.Join(h.home, ".bashrc"), []byte("export GPULEASE_SSH_DIR="+dir+"\n"), 0o600))
	h.shim(t, "sudo", "#!/bin/sh\nshift\nexec \"$@\"\n")
	h.shim(t, "systemctl", fmt.Sprintf("#!/bin/sh\nexec kill -HUP %d\n", h.pid))
	return h
}

func TestRotateHostKey(t *testing.T) {
	t.Parallel()
	h := startRotating(t)
	p, ctx := newPool(t, remote.Config{}), testContext(t)
	_, err := p.Start(ctx, h.Target, "job-rotate", remote.Command{Shell: "until [ -e go ]; do sleep 0.02; done; echo done"})
	require.NoError(t, err)
	var recorded ssh.PublicKey
	got, err := p.RotateHostKey(ctx, h.Target, func(key ssh.PublicKey) error {
		recorded = key
		// Both are right while nobody knows which one is in force.
		both := h.Target
		both.NextHostKey = key
		return newPool(t, remote.Config{}).Check(ctx, both)
	})
	require.NoError(t, err)
	require.Equal(t, recorded.Marshal(), got.Marshal())
	require.NotEqual(t, h.HostKey.Marshal(), got.Marshal())
	require.ErrorIs(t, newPool(t, remote.Config{}).Check(ctx, h.Target), remote.ErrHostKey, "the old key is worth nothing now")
	target := h.Target
	target.HostKey = got
	require.NoError(t, p.Check(ctx, target))
	require.NoError(t, os.WriteFile(filepath.Join(h.home, "go"), nil, 0o600))
	job, err := p.Job(ctx, target, "job-rotate", wait)
	require.NoError(t, err)
	require.Equal(t, remote.Exited, job.State)
	_, err = os.Stat(filepath.Join(filepath.Dir(h.home), "ssh_host_ed25519_key.gpulease"))
	require.ErrorIs(t, err, os.ErrNotExist)

	again, err := p.RotateHostKey(ctx, target, func(ssh.PublicKey) error { return nil })
	require.NoError(t, err)
	require.NotEqual(t, got.Marshal(), again.Marshal())
}

func TestRotateHostKeyOfASimulatedMachine(t *testing.T) {
	t.Parallel()
	needKeygen(t)
	m, target := startMachine(t, machine.Config{})
	p, ctx := newPool(t, remote.Config{}), testContext(t)
	got, err := p.RotateHostKey(ctx, target, func(ssh.PublicKey) error { return nil })
	require.NoError(t, err)
	require.Equal(t, got.Marshal(), m.HostKey().Marshal())
	require.ErrorIs(t, newPool(t, remote.Config{}).Check(ctx, target), remote.ErrHostKey)
	target.HostKey = got
	require.NoError(t, newPool(t, remote.Config{}).Check(ctx, target))
	m.SetHostKey(newSigner(t))
	require.ErrorIs(t, newPool(t, remote.Config{}).Check(ctx, target), remote.ErrHostKey, "somebody else at its address")
}

// The caller dies at each step; with what it had recorded by then it gets in, and can finish.
func TestRotationSurvivesADeath(t *testing.T) {
	t.Parallel()
	h := startRotating(t)
	ctx := testContext(t)
	died := errors.New("died")
	var first ssh.PublicKey
	_, err := newPool(t, remote.Config{}).RotateHostKey(ctx, h.Target, func(key ssh.PublicKey) error { first = key; return died })
	require.ErrorIs(t, err, died)
	require.NoError(t, newPool(t, remote.Config{}).Check(ctx, h.Target), "nothing is recorded, and the old key is in force")

	// Dies after the switch: here sshd has taken the new key, and nobody has heard of it.
	h.shim(t, "systemctl", fmt.Sprintf("#!/bin/sh\nkill -HUP %d\nexit 1\n", h.pid))
	h.shim(t, "service", "#!/bin/sh\nexit 1\n")
	var second ssh.PublicKey
	_, err = newPool(t, remote.Config{}).RotateHostKey(ctx, h.Target, func(key ssh.PublicKey) error { second = key; return nil })
	require.Error(t, err)
	require.Equal(t, first.Marshal(), second.Marshal(), "the key that waited is used")
	both := h.Target
	both.NextHostKey = second
	require.Eventually(t, func() bool { return newPool(t, remote.Config{}).Check(ctx, both) == nil }, wait, wait/100)
	h.shim(t, "systemctl", fmt.Sprintf("#!/bin/sh\nexec kill -HUP %d\n", h.pid))
	got, err := newPool(t, remote.Config{}).RotateHostKey(ctx, both, func(ssh.PublicKey) error { return nil })
	require.NoError(t, err)
	require.Equal(t, second.Marshal(), got.Marshal(), "it is finished, not begun again")
	both.HostKey, both.NextHostKey = got, nil
	// While sshd starts itself anew it listens to nobody.
	require.Eventually(t, func() bool { return newPool(t, remote.Config{}).Check(ctx, both) == nil }, wait, wait/100)
}

func TestRotationWhereItCannotBe(t *testing.T) {
	t.Parallel()
	never := func(ssh.PublicKey) error { return errors.New("must not be called") }
	_, target := startMachine(t, machine.Config{Env: []string{"GPULEASE_SSH_DIR="}})
	_, err := newPool(t, remote.Config{}).RotateHostKey(testContext(t), target, never)
	require.ErrorIs(t, err, remote.ErrUnsupported, "it shares its files with this computer")
	h := startRotating(t)
	h.shim(t, "id", "#!/bin/sh\necho 1000\n")
	h.shim(t, "sudo", "#!/bin/sh\necho 'a password is required' >&2\nexit 1\n")
	_, err = newPool(t, remote.Config{}).RotateHostKey(testContext(t), h.Target, never)
	require.ErrorIs(t, err, remote.ErrUnsupported)
	require.NoError(t, newPool(t, remote.Config{}).Check(testContext(t), h.Target))
}
