//go:build unix

package policy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/policy"
)

func TestWhatOthersMayWriteIsRefused(t *testing.T) {
	for _, c := range []struct {
		mode os.FileMode
		ok   bool
	}{
		{0o600, true}, {0o400, true}, {0o644, true}, {0o444, true}, {0o640, true},
		{0o660, false}, {0o602, false}, {0o666, false}, {0o620, false},
	} {
		path := filepath.Join(t.TempDir(), "my policy's.yaml")
		require.NoError(t, os.WriteFile(path, []byte("max_leases: 1\n"), 0o600))
		require.NoError(t, os.Chmod(path, c.mode))
		_, err := policy.Load(path)
		if c.ok {
			require.NoError(t, err, c.mode)
			continue
		}
		require.ErrorContains(t, err, "others may write the policy", c.mode)
		_, command, ok := strings.Cut(err.Error(), "run ")
		require.True(t, ok)
		require.Equal(t, "chmod go-w '"+strings.ReplaceAll(path, "'", `'\''`)+"'", command)
		require.NoError(t, exec.Command("sh", "-c", command).Run())
		_, err = policy.Load(path)
		require.NoError(t, err, "the command mends it")
	}
}

func TestDirectoryThatAnybodyMayWriteIsRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "policy.yaml")
	require.NoError(t, os.WriteFile(path, []byte("max_leases: 1\n"), 0o600))
	require.NoError(t, os.Chmod(dir, 0o777))
	_, err := policy.Load(path)
	require.ErrorContains(t, err, "run chmod o-w '"+dir+"'")

	require.NoError(t, os.Chmod(dir, 0o777|os.ModeSticky))
	_, err = policy.Load(path)
	require.NoError(t, err, "as in /tmp, only the owner can replace it")
}

func TestFileOfAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	path := filepath.Join(t.TempDir(), "policy.yaml")
	require.NoError(t, os.WriteFile(path, []byte("max_leases: 1\n"), 0o600))
	require.NoError(t, os.Chown(path, 12345, 12345))
	_, err := policy.Load(path)
	require.ErrorContains(t, err, "belongs to another user (uid 12345): run sudo chown 0 ")
}

func TestPipeDoesNotBlock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	_, err := policy.Load(path)
	require.ErrorContains(t, err, "not a regular file")
}
