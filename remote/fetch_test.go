//go:build unix

package remote_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

func TestFetch(t *testing.T) {
	t.Parallel()
	for _, shell := range shells(t) {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			h := startHostWith(t, shell)
			p := newPool(t, remote.Config{})
			ctx := testContext(t)
			outside, dst := t.TempDir(), t.TempDir()
			want := map[string]string{}
			for _, n := range []string{"out/plain", "out/new\nline", "out/sp ace", "out/sub/deep/-x", "out/bad\xff", `out/back\slash`, "log", strings.Repeat("out/", 40) + "x"} {
				write(t, filepath.Join(h.home, n), "content of "+n)
				want[n] = "content of " + n
			}
			write(t, filepath.Join(h.home, "out/binary"), string(pattern(300_000)))
			want["out/binary"] = string(pattern(300_000))
			write(t, filepath.Join(h.home, "out/empty"), "")
			want["out/empty"] = ""
			write(t, filepath.Join(outside, "abs"), "absolute")
			want[strings.TrimPrefix(outside, "/")+"/abs"] = "absolute"
			require.NoError(t, os.Link(filepath.Join(h.home, "out/plain"), filepath.Join(h.home, "out/twin")))
			want["out/twin"] = want["out/plain"]
			require.NoError(t, os.Symlink("sub/deep", filepath.Join(h.home, "out/latest")))
			want["out/latest"] = "-> sub/deep"
			require.NoError(t, os.Symlink(outside, filepath.Join(h.home, "out/away")))
			require.NoError(t, os.Symlink("../log", filepath.Join(h.home, "out/up")))
			require.NoError(t, os.Symlink("out/sub", filepath.Join(h.home, "results")))
			want["results/deep/-x"] = want["out/sub/deep/-x"]
			require.NoError(t, os.Symlink("log", filepath.Join(h.home, "loglink")))
			want["loglink"] = want["log"]
			require.NoError(t, syscall.Mkfifo(filepath.Join(h.home, "out/pipe"), 0o600))
			require.NoError(t, os.Chmod(filepath.Join(h.home, "out/plain"), 0o4755))
			when := time.Unix(1_700_000_000, 0)
			require.NoError(t, os.Chtimes(filepath.Join(h.home, "out/plain"), when, when))

			asked := []string{"out", "~/log", "results", "loglink", outside + "/abs", "out/plain", "gone", "out/none/x"}
			files, bytes := 0, int64(0)
			sum, err := p.Fetch(ctx, h.Target, asked, dst, remote.FetchOptions{Progress: func(f int, b int64) { files, bytes = f, b }})
			require.NoError(t, err)
			require.Equal(t, want, contents(t, dst))
			require.Equal(t, []string{"gone", "out/none/x"}, sum.Missing)
			var skipped []string
			for _, s := range sum.Skipped {
				skipped = append(skipped, s.Path)
				require.NotEmpty(t, s.Reason)
			}
			require.Equal(t, []string{"out/away", "out/pipe", "out/up"}, skipped)
			require.Len(t, sum.Files, len(want)-1, "a link is no file")
			for _, f := range sum.Files {
				require.Equal(t, fmt.Sprintf("%x", sha256.Sum256([]byte(want[f.Path]))), f.SHA256)
				require.Equal(t, int64(len(want[f.Path])), f.Bytes)
				require.False(t, f.Same || f.Changed, f.Path)
			}
			require.Equal(t, len(sum.Files), files)
			require.Equal(t, sum.Bytes, bytes)
			info, err := os.Stat(filepath.Join(dst, "out/plain"))
			require.NoError(t, err)
			require.Equal(t, fs.FileMode(0o755), info.Mode())
			require.True(t, info.ModTime().Equal(when))

			write(t, filepath.Join(h.home, "log"), "CONTENT of log")
			want["log"], want["loglink"] = "CONTENT of log", "CONTENT of log"
			sum, err = p.Fetch(ctx, h.Target, asked, dst, remote.FetchOptions{})
			require.NoError(t, err)
			require.Equal(t, want, contents(t, dst))
			for _, f := range sum.Files {
				require.Equal(t, f.Path != "log" && f.Path != "loglink", f.Same, f.Path)
			}
		})
	}
}

func TestFetchBase(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	dst := filepath.Join(t.TempDir(), "made/for it")
	write(t, filepath.Join(h.home, "project/out/a"), "a")
	_, err := p.Fetch(testContext(t), h.Target, []string{"out"}, dst, remote.FetchOptions{Base: "project"})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"out/a": "a"}, contents(t, dst))
	_, err = p.Fetch(testContext(t), h.Target, []string{"."}, dst, remote.FetchOptions{Base: filepath.Join(h.home, "project")})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"out/a": "a"}, contents(t, dst))
	_, err = p.Fetch(testContext(t), h.Target, []string{"out"}, dst, remote.FetchOptions{Base: "none"})
	require.ErrorIs(t, err, remote.ErrDirectory)
	for _, bad := range []string{"", "../x", "a/../../x", "a\nb", "a\x00b"} {
		_, err = p.Fetch(testContext(t), h.Target, []string{bad}, dst, remote.FetchOptions{})
		require.ErrorIs(t, err, remote.ErrInvalid, "%q", bad)
	}
}

func TestFetchLimit(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	dst := t.TempDir()
	write(t, filepath.Join(h.home, "a"), strings.Repeat("a", 600))
	write(t, filepath.Join(h.home, "b"), strings.Repeat("b", 400))
	_, err := p.Fetch(testContext(t), h.Target, []string{"a", "b"}, dst, remote.FetchOptions{MaxBytes: 999})
	require.ErrorIs(t, err, remote.ErrTooLarge)
	require.ErrorContains(t, err, "1000 bytes in 2 files, at most 999; the largest: a (600 bytes), b (400 bytes)")
	require.Empty(t, contents(t, dst))
	_, err = p.Fetch(testContext(t), h.Target, []string{"a", "b"}, dst, remote.FetchOptions{MaxBytes: 1000})
	require.NoError(t, err)
	require.Len(t, contents(t, dst), 2)
}

// A tar on the machine that sends other names, links out and back, and files nobody asked for.
func TestFetchNeverLeavesTheDirectory(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	dir := t.TempDir()
	dst, outside := filepath.Join(dir, "dst"), filepath.Join(dir, "outside")
	write(t, filepath.Join(outside, "secret"), "old")
	write(t, filepath.Join(h.home, "out/a"), "a")
	write(t, filepath.Join(h.home, "evil"), "evil")
	tar, err := exec.LookPath("tar")
	require.NoError(t, err)
	h.shim(t, "tar", fmt.Sprintf(`#!/bin/sh
mkdir -p "$HOME/x" && cd "$HOME/x" && ln -sfn %[2]s out && ln -sfn %[2]s/secret a && cp ../evil secret
exec %[1]s -cPf - --transform 's,^secret$,../outside/secret,' secret out a --transform 's,^../evil$,out/secret,' ../evil
`, tar, outside))
	sum, err := p.Fetch(testContext(t), h.Target, []string{"out/a"}, dst, remote.FetchOptions{})
	require.NoError(t, err)
	require.Equal(t, []string{"./out/a"}, sum.Missing)
	require.Empty(t, contents(t, dst))
	require.Equal(t, map[string]string{"secret": "old"}, contents(t, outside))

	// A link that is here already must not lead the writing out.
	require.NoError(t, os.Remove(filepath.Join(h.bin, "tar")))
	require.NoError(t, os.Symlink(outside, filepath.Join(dst, "out")))
	_, err = p.Fetch(testContext(t), h.Target, []string{"out/a"}, dst, remote.FetchOptions{})
	require.Error(t, err)
	require.Equal(t, map[string]string{"secret": "old"}, contents(t, outside))
}

// A file that grows all the time comes as it was at some moment, and the summary says so.
func TestFetchOfAFileThatGrows(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	_, err := p.Start(ctx, h.Target, "job-grow", remote.Command{Shell: "i=0; while :; do i=$((i+1)); echo line $i >>log; done"})
	require.NoError(t, err)
	require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(h.home, "log")); return err == nil }, 5*time.Second, time.Millisecond)
	dst := t.TempDir()
	var sum remote.FetchSummary
	// On a busy computer the writer may not get its turn between the two looks at the file.
	for tries := 0; tries < 50 && (len(sum.Files) == 0 || !sum.Files[0].Changed); tries++ {
		sum, err = p.Fetch(ctx, h.Target, []string{"log"}, dst, remote.FetchOptions{})
		require.NoError(t, err)
	}
	_, err = p.Cancel(ctx, h.Target, "job-grow", 0)
	require.NoError(t, err)
	require.Len(t, sum.Files, 1)
	require.True(t, sum.Files[0].Changed)
	came, err := os.ReadFile(filepath.Join(dst, "log"))
	require.NoError(t, err)
	require.Equal(t, sum.Files[0].SHA256, fmt.Sprintf("%x", sha256.Sum256(came)))
	whole, err := os.ReadFile(filepath.Join(h.home, "log"))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(whole), string(came)))
	require.NotEmpty(t, came)
}

func TestFetchOverABadNetwork(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	proxy := startProxy(t, h.Addr)
	p := newPool(t, remote.Config{})
	target := h.Target
	target.Addr = proxy.addr
	want := map[string]string{}
	for i := range 20 {
		name := fmt.Sprintf("out/file%d", i)
		want[name] = string(pattern(200_000 + i))
		write(t, filepath.Join(h.home, name), want[name])
	}
	dst := t.TempDir()
	cuts := 0
	sum, err := p.Fetch(testContext(t), target, []string{"out"}, dst, remote.FetchOptions{Progress: func(files int, _ int64) {
		if files%5 == 0 && cuts < 3 {
			cuts++
			assertWholeOrAbsent(t, dst, want)
			proxy.cut()
		}
	}})
	require.NoError(t, err)
	require.Equal(t, 3, cuts)
	require.Equal(t, want, contents(t, dst))
	require.Len(t, sum.Files, 20)
	for _, f := range sum.Files {
		require.False(t, f.Changed || f.Same)
	}
}

// git, agent hosts and shells run the hooks and settings that they find, so a machine that is not trusted must not be able
// to leave any here.
func TestFetchBringsNothingThatIsRunHere(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, target remote.Target, home string, _ *proxy) {
		for _, name := range []string{"proj/.git/hooks/pre-commit", "proj/.GIT/config", "proj/deep/.git", "proj/.gitignore", "proj/a.git/x", "proj/b", "proj/.mcp.json", "proj/sub/.Claude/settings.json", "proj/.envrc", ".gpulease/jobs/x/order"} {
			write(t, filepath.Join(home, name), name)
		}
		require.NoError(t, os.Symlink("b", filepath.Join(home, "proj", "deep", ".Git")))
		dst := t.TempDir()
		sum, err := newPool(t, remote.Config{}).Fetch(testContext(t), target, []string{"proj", "proj/.git/hooks/*", ".gpulease"}, dst, remote.FetchOptions{})
		require.NoError(t, err)
		require.Equal(t, map[string]string{
			"proj/.gitignore": "proj/.gitignore", "proj/a.git/x": "proj/a.git/x", "proj/b": "proj/b",
		}, contents(t, dst))
		var skipped []string
		for _, s := range sum.Skipped {
			skipped = append(skipped, s.Path)
		}
		require.Equal(t, []string{".gpulease", "proj/.GIT", "proj/.envrc", "proj/.git", "proj/.mcp.json", "proj/deep/.Git", "proj/deep/.git", "proj/sub/.Claude"}, skipped)
	})
}
