//go:build unix

package remote_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

// A machine that sends a link first, and then files below its name, writes where the link leads to.
func TestFetchLeadsNoLinkToWhatThisComputerRuns(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	ctx, dst := testContext(t), t.TempDir()
	for _, dir := range []string{"out/.git/hooks", "out/sub/.vscode"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dst, dir), 0o755))
	}
	require.NoError(t, os.Symlink(".git/hooks", filepath.Join(dst, "out/own")))
	require.NoError(t, os.MkdirAll(filepath.Join(h.home, "out"), 0o755))
	links := map[string]string{"a": ".git", "b": "./.GIT/hooks", "c": "sub/.vscode"}
	for name, to := range links {
		require.NoError(t, os.Symlink(to, filepath.Join(h.home, "out", name)))
	}
	sum, err := p.Fetch(ctx, h.Target, []string{"out"}, dst, remote.FetchOptions{})
	require.NoError(t, err)
	require.Len(t, sum.Skipped, len(links))

	for name := range links {
		require.NoError(t, os.Remove(filepath.Join(h.home, "out", name)))
	}
	for _, name := range []string{"a/hooks/post-checkout", "b/post-checkout", "c/tasks.json", "own/post-checkout", "own/deep/file"} {
		write(t, filepath.Join(h.home, "out", name), "evil")
	}
	write(t, filepath.Join(h.home, "out/own/large"), string(pattern(17<<20)))
	require.NoError(t, os.Symlink("sub", filepath.Join(h.home, "out/own/link")))
	sum, err = p.Fetch(ctx, h.Target, []string{"out"}, dst, remote.FetchOptions{})
	require.NoError(t, err)
	require.Len(t, sum.Files, 3)
	require.Len(t, sum.Skipped, 4, "what would go through the link that was here before")
	for _, dir := range []string{"out/.git", "out/sub/.vscode"} {
		require.Empty(t, filesBelow(t, filepath.Join(dst, dir)))
	}
	for name := range links {
		require.NotEmpty(t, filesBelow(t, filepath.Join(dst, "out", name)))
	}
}

func filesBelow(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	require.NoError(t, filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files = append(files, name)
		}
		return err
	}))
	return files
}

// A perl that says all is well, and has done nothing.
func TestPushDoesWithoutPerl(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"DoesNothing": "exit 0", "Fails": "exit 3", "Dies": "kill -9 $$"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := startHost(t)
			h.shim(t, "perl", "#!/bin/sh\n: >>\"$HOME/asked\"\n"+text+"\n")
			src := t.TempDir()
			for _, name := range []string{"a", "sub/b", "sub/deep/c", "new\nline", "-x"} {
				write(t, filepath.Join(src, name), "content of "+name)
			}
			_, err := newPool(t, remote.Config{}).Push(testContext(t), h.Target, src, "there", remote.PushOptions{})
			require.NoError(t, err)
			require.Equal(t, contents(t, src), contents(t, filepath.Join(h.home, "there")))
			require.FileExists(t, filepath.Join(h.home, "asked"))
		})
	}
}
