//go:build unix

package remote_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

// startReader starts a machine that tells how many files it has read for their hashes since it was last asked. Files count
// only when they have been left alone for two seconds. Its clock is set ahead instead of waiting, and so is the pool's to be.
func startReader(t *testing.T) (h *host, read func() int) {
	t.Helper()
	if exec.Command("comm", "-z", "/dev/null", "/dev/null").Run() != nil {
		require.NotEqual(t, "true", os.Getenv("CI"), "no GNU comm: CI must have coreutils")
		t.Skip("left out: needs GNU's comm")
	}
	h = startHost(t)
	sum, err := exec.LookPath("sha256sum")
	require.NoError(t, err)
	h.shim(t, "date", "#!/bin/sh\nexec /bin/date -d '+1 hour' \"$@\"\n")
	h.shim(t, "sha256sum", fmt.Sprintf("#!/bin/sh\nfor f; do case $f in ./*) echo \"$f\" >>\"$HOME/read\";; esac; done\nexec %s \"$@\"\n", sum))
	return h, func() int {
		data, _ := os.ReadFile(filepath.Join(h.home, "read"))
		_ = os.Remove(filepath.Join(h.home, "read"))
		return strings.Count(string(data), "\n")
	}
}

// From the third push on neither side reads what has not changed, and an edit of the same size with the old time is
// found all the same, on either side.
func TestPushReadsOnlyWhatMayHaveChanged(t *testing.T) {
	t.Parallel()
	h, read := startReader(t)
	p := newPool(t, remote.Config{Now: func() time.Time { return time.Now().Add(time.Hour) }})
	ctx, src, dst := testContext(t), t.TempDir(), filepath.Join(h.home, "dst")
	want := map[string]string{}
	for i := range 150 {
		name := fmt.Sprintf("d%d/file %d", i%7, i)
		want[name] = fmt.Sprintf("content %03d", i)
		write(t, filepath.Join(src, name), want[name])
	}
	push := func(sent, hashed int) {
		t.Helper()
		s, err := p.Push(ctx, h.Target, src, dst, remote.PushOptions{Delete: true})
		require.NoError(t, err)
		require.Equal(t, sent, s.Sent)
		require.Equal(t, hashed, read())
		require.Equal(t, want, contents(t, dst))
	}
	edit := func(file, text string) {
		t.Helper()
		before, err := os.Stat(file)
		require.NoError(t, err)
		require.Equal(t, before.Size(), int64(len(text)))
		time.Sleep(20 * time.Millisecond) // a tick of the file system's clock
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		require.NoError(t, os.Chtimes(file, before.ModTime(), before.ModTime()))
	}
	push(150, 0)
	push(0, 150)
	push(0, 0)
	edit(filepath.Join(src, "d0/file 7"), "CONTENT 007")
	want["d0/file 7"] = "CONTENT 007"
	push(1, 0)
	push(0, 1)
	edit(filepath.Join(dst, "d0/file 14"), "CONTENT 014")
	push(1, 2) // this one, and the one that was sent last
	require.NoError(t, os.Remove(filepath.Join(dst, "d0/file 21")))
	require.NoError(t, os.Remove(filepath.Join(dst, "d0/file 28")))
	require.NoError(t, os.Symlink("file 0", filepath.Join(dst, "d0/file 28")))
	push(2, 2)
}

// A few large files are worth it, too.
func TestPushReadsLargeFilesOnce(t *testing.T) {
	t.Parallel()
	h, read := startReader(t)
	p, src := newPool(t, remote.Config{Now: func() time.Time { return time.Now().Add(time.Hour) }}), t.TempDir()
	write(t, filepath.Join(src, "weights"), string(noise(9<<20)))
	write(t, filepath.Join(src, "train.py"), "print()")
	for _, want := range []struct{ sent, read int }{{2, 0}, {0, 2}, {0, 0}} {
		s, err := p.Push(testContext(t), h.Target, src, "dst", remote.PushOptions{})
		require.NoError(t, err)
		require.Equal(t, want.sent, s.Sent)
		require.Equal(t, want.read, read())
	}
}
