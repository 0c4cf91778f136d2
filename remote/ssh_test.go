//go:build unix

package remote_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

func TestKnownHosts(t *testing.T) {
	t.Parallel()
	k := newKey(t)
	require.Equal(t, "1.2.3.4 "+k.AuthorizedKey+"\n", remote.KnownHosts(remote.Target{Addr: "1.2.3.4:22", HostKey: k.Public}))
	require.Equal(t, "[1.2.3.4]:2222 "+k.AuthorizedKey+"\n", remote.KnownHosts(remote.Target{Addr: "1.2.3.4:2222", HostKey: k.Public}))
}

// The real ssh gets in with what is written, and not when the pinned key is another.
func TestSSHConfigIsWhatSSHTakes(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("ssh")
	if err != nil {
		require.NotEqual(t, "true", os.Getenv("CI"), "no ssh: CI must install openssh-client")
		t.Skip("no ssh here: install openssh-client to run this test")
	}
	h := startHost(t)
	dir := filepath.Join(t.TempDir(), `a dir 100%h "x"`)
	key, known, config := filepath.Join(dir, "key"), filepath.Join(dir, "known hosts"), filepath.Join(dir, "config")
	pair := newKey(t)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, os.WriteFile(key, pair.PrivatePEM, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(h.home, "..", "authorized"), []byte(pair.AuthorizedKey+"\n"), 0o600))
	run := func(target remote.Target) (string, error) {
		require.NoError(t, os.WriteFile(known, []byte(remote.KnownHosts(target)), 0o600))
		require.NoError(t, os.WriteFile(config, []byte(remote.SSHConfig("lease", target, key, known)), 0o600))
		out, err := exec.Command(program, "-F", config, "-o", "BatchMode=yes", "lease", "echo in").Output()
		return string(out), err
	}
	out, err := run(h.Target)
	require.NoError(t, err)
	require.Equal(t, "in\n", out)
	wrong := h.Target
	wrong.HostKey = newKey(t).Public
	_, err = run(wrong)
	require.Error(t, err)
}
