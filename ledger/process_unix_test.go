//go:build unix

package ledger_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// unprivileged runs the child "open" as a user whom file modes bind: root is not.
func unprivileged(t *testing.T, path string) string {
	t.Helper()
	cmd, err := child(t.Context(), "open", path)
	require.NoError(t, err)
	if os.Geteuid() == 0 {
		// Such a user may not run the test binary where the go command has put it.
		exe, err := os.ReadFile(cmd.Path)
		require.NoError(t, err)
		cmd.Path = filepath.Join(filepath.Dir(filepath.Dir(path)), "ledger.test")
		require.NoError(t, os.WriteFile(cmd.Path, exe, 0o755))
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		require.NoError(t, filepath.WalkDir(filepath.Dir(path), func(p string, _ fs.DirEntry, err error) error {
			require.NoError(t, err)
			return os.Chown(p, nobody, nobody)
		}))
		for _, dir := range []string{filepath.Dir(filepath.Dir(path)), filepath.Dir(filepath.Dir(filepath.Dir(path)))} {
			require.NoError(t, os.Chmod(dir, 0o755))
		}
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}

func TestUnwritable(t *testing.T) {
	for _, c := range []struct {
		name      string
		dir, file os.FileMode
	}{
		{"file", 0o700, 0o400},
		{"directory", 0o500, 0o600},
		{"both", 0o500, 0o400},
		{"unreadable", 0o700, 0},
		{"hidden", 0, 0o600},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, _ := closed(t)
			require.NoError(t, os.Chmod(path, c.file))
			require.NoError(t, os.Chmod(filepath.Dir(path), c.dir))
			t.Cleanup(func() { require.NoError(t, os.Chmod(filepath.Dir(path), 0o700)) })
			require.Contains(t, unprivileged(t, path), "unwritable=true")
		})
	}
	t.Run("nothing there yet", func(t *testing.T) {
		path := fresh(t)
		require.NoError(t, os.Mkdir(filepath.Dir(path), 0o500))
		require.Contains(t, unprivileged(t, path), "unwritable=true")
	})
	t.Run("but else it works", func(t *testing.T) {
		path, _ := closed(t)
		require.Equal(t, "unwritable=false err=<nil>\n", unprivileged(t, path))
	})
}
