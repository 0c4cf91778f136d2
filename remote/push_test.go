//go:build unix

package remote_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

// write makes a file with its directories.
func write(t testing.TB, file, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
}

// assertWholeOrAbsent is for the midst of a transfer: what is beside these files may come and go while it looks. It ends
// no goroutine, since a transfer waits for its own.
func assertWholeOrAbsent(t testing.TB, dir string, want map[string]string) {
	t.Helper()
	for name, text := range want {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			assert.Equal(t, text, string(data))
		} else {
			assert.ErrorIs(t, err, fs.ErrNotExist)
		}
	}
}

// contents is every file and link below dir with what is in it; empty directories end in a slash.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, name)
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(name)
			found[rel] = "-> " + target
			return err
		case d.IsDir():
			entries, err := os.ReadDir(name)
			if len(entries) == 0 {
				found[rel+"/"] = ""
			}
			return err
		case d.Type().IsRegular():
			data, err := os.ReadFile(name)
			found[rel] = string(data)
			return err
		}
		found[rel] = d.Type().String()
		return nil
	}))
	return found
}

func gitInit(t testing.TB, dir string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o755))
	runGit(t, dir, "init", "-q")
}

func runGit(t testing.TB, dir string, args ...string) string {
	t.Helper()
	out, err := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@b"}, args...)...).CombinedOutput()
	require.NoError(t, err, "git %v: %s", args, out)
	return string(out)
}

func TestPush(t *testing.T) {
	t.Parallel()
	for _, shell := range shells(t) {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			h := startHostWith(t, shell)
			p := newPool(t, remote.Config{})
			ctx := testContext(t)
			src, dst := t.TempDir(), filepath.Join(h.home, "a/b c")
			names := []string{"plain", "with space", "new\nline", "-dash", "'quote\"", `back\slash`, "ümlaut", "bad\xffutf8", "*", "$(x)", " lead", "dir/a", "dir/sub/b", ".hidden", ".dir/.x", "..odd", "..d/y", strings.Repeat("long/", 30) + "x"}
			want := map[string]string{}
			for i, n := range names {
				write(t, filepath.Join(src, n), fmt.Sprintf("content %d", i))
				want[n] = fmt.Sprintf("content %d", i)
			}
			write(t, filepath.Join(src, "binary"), string(pattern(300_000)))
			want["binary"] = string(pattern(300_000))
			write(t, filepath.Join(src, "empty file"), "")
			want["empty file"] = ""
			require.NoError(t, os.Mkdir(filepath.Join(src, "empty dir"), 0o755))
			want["empty dir/"] = ""
			require.NoError(t, os.Symlink("dir/a", filepath.Join(src, "link")))
			want["link"] = "-> dir/a"
			require.NoError(t, os.Symlink("sub", filepath.Join(src, "dir/link")))
			want["dir/link"] = "-> sub"
			require.NoError(t, os.Chmod(filepath.Join(src, "plain"), 0o755))
			when := time.Unix(1_700_000_000, 0)
			require.NoError(t, os.Chtimes(filepath.Join(src, "plain"), when, when))

			files, bytes := 0, int64(0)
			sum, err := p.Push(ctx, h.Target, src, "a/b c", remote.PushOptions{Progress: func(f int, b int64) { files, bytes = f, b }})
			require.NoError(t, err)
			require.Equal(t, want, contents(t, dst))
			require.Equal(t, len(want), sum.Files)
			require.Equal(t, len(want), sum.Sent)
			require.Equal(t, len(want), files)
			require.Equal(t, sum.Bytes, bytes)
			require.Equal(t, sum.Bytes, sum.SentBytes)
			require.Empty(t, sum.Skipped)
			info, err := os.Stat(filepath.Join(dst, "plain"))
			require.NoError(t, err)
			require.Equal(t, fs.FileMode(0o755), info.Mode())
			require.True(t, info.ModTime().Equal(when))

			sum, err = p.Push(ctx, h.Target, src, dst, remote.PushOptions{})
			require.NoError(t, err)
			require.Zero(t, sum.Sent, "the same again sends nothing, by the absolute name too")

			// The same size within the same second, and with the old time: only the content tells.
			before, err := os.Stat(filepath.Join(src, "dir/a"))
			require.NoError(t, err)
			write(t, filepath.Join(src, "dir/a"), "CONTENT 11")
			require.NoError(t, os.Chtimes(filepath.Join(src, "dir/a"), before.ModTime(), before.ModTime()))
			require.NoError(t, os.Chmod(filepath.Join(src, ".hidden"), 0o700))
			require.NoError(t, os.Remove(filepath.Join(src, "link")))
			require.NoError(t, os.Symlink("plain", filepath.Join(src, "link")))
			write(t, filepath.Join(src, "dir/new/c"), "c")
			require.NoError(t, os.Remove(filepath.Join(src, "..d/y")))
			write(t, filepath.Join(dst, "results/out"), "made on the machine")
			write(t, filepath.Join(dst, "dir/out"), "made on the machine")
			want["dir/a"], want["link"], want["dir/new/c"] = "CONTENT 11", "-> plain", "c"
			want["results/out"], want["dir/out"] = "made on the machine", "made on the machine"
			sum, err = p.Push(ctx, h.Target, src, dst, remote.PushOptions{DryRun: true})
			require.NoError(t, err)
			require.Equal(t, 4, sum.Sent)
			sum, err = p.Push(ctx, h.Target, src, dst, remote.PushOptions{})
			require.NoError(t, err)
			require.Equal(t, 4, sum.Sent)
			require.Zero(t, sum.Deleted)
			require.Equal(t, want, contents(t, dst), "nothing is deleted unasked")
			info, err = os.Stat(filepath.Join(dst, ".hidden"))
			require.NoError(t, err)
			require.Equal(t, fs.FileMode(0o700), info.Mode())

			require.NoError(t, os.RemoveAll(filepath.Join(src, "dir")))
			require.NoError(t, os.Remove(filepath.Join(src, "empty dir")))
			require.NoError(t, os.Remove(filepath.Join(src, "binary")))
			write(t, filepath.Join(dst, "binary"), "changed on the machine")
			want["binary"] = "changed on the machine"
			for _, gone := range []string{"..d/y", "dir/a", "dir/sub/b", "dir/link", "dir/new/c", "empty dir/"} {
				delete(want, gone)
			}
			want["..d/"] = "" // which is an empty directory here, too
			sum, err = p.Push(ctx, h.Target, src, dst, remote.PushOptions{Delete: true})
			require.NoError(t, err)
			require.Equal(t, 6, sum.Deleted)
			require.Equal(t, want, contents(t, dst))
			sum, err = p.Push(ctx, h.Target, src, dst, remote.PushOptions{Delete: true})
			require.NoError(t, err)
			require.Zero(t, sum.Deleted+sum.Sent)
		})
	}
}

func TestPushHonoursGit(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	repo := filepath.Join(t.TempDir(), "repo")
	gitInit(t, repo)
	write(t, filepath.Join(repo, ".gitignore"), "*.log\nbuild/\n.env\n")
	write(t, filepath.Join(repo, "tracked.log"), "tracked though ignored")
	runGit(t, repo, "add", "-f", "tracked.log")
	write(t, filepath.Join(repo, "deleted"), "x")
	runGit(t, repo, "add", "deleted")
	runGit(t, repo, "commit", "-qm", "x")
	require.NoError(t, os.Remove(filepath.Join(repo, "deleted")))
	for _, f := range []string{"main.go", "a.log", "build/out", ".env", "pkg/x.go", "pkg/y.log", "pkg/data.bin", "pkg/keep.bin"} {
		write(t, filepath.Join(repo, f), f)
	}
	write(t, filepath.Join(repo, ".gpuleaseignore"), "*.bin\n!keep.bin\ntracked.log\n")
	gitInit(t, filepath.Join(repo, "vendored"))
	write(t, filepath.Join(repo, "vendored/v.go"), "v")
	write(t, filepath.Join(repo, "vendored/.gitignore"), "w.go")
	write(t, filepath.Join(repo, "vendored/w.go"), "w")

	keys := func(dir string) []string {
		var list []string
		for name := range contents(t, filepath.Join(h.home, dir)) {
			list = append(list, name)
		}
		sort.Strings(list)
		return list
	}
	_, err := p.Push(ctx, h.Target, repo, "whole", remote.PushOptions{})
	require.NoError(t, err)
	require.Equal(t, []string{".gitignore", ".gpuleaseignore", "main.go", "pkg/keep.bin", "pkg/x.go", "vendored/.gitignore", "vendored/v.go"}, keys("whole"))

	_, err = p.Push(ctx, h.Target, filepath.Join(repo, "pkg"), "part", remote.PushOptions{})
	require.NoError(t, err)
	require.Equal(t, []string{"data.bin", "keep.bin", "x.go"}, keys("part"), "the repository's rules hold in a part of it")

	_, err = p.Push(ctx, h.Target, filepath.Join(repo, "build"), "built", remote.PushOptions{})
	require.NoError(t, err)
	require.Equal(t, []string{"out"}, keys("built"), "an ignored directory that is named is meant")

	// A repository that git cannot read must not be sent with its ignored files.
	broken := filepath.Join(t.TempDir(), "broken")
	write(t, filepath.Join(broken, ".git"), "gitdir: /nowhere")
	write(t, filepath.Join(broken, ".env"), "secret")
	_, err = p.Push(ctx, h.Target, broken, "broken", remote.PushOptions{})
	require.ErrorContains(t, err, "git ls-files")
	require.NoDirExists(t, filepath.Join(h.home, "broken"))
}

func TestPushSkips(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	src := t.TempDir()
	write(t, filepath.Join(src, "ok"), "ok")
	write(t, filepath.Join(src, ".git/config"), "not sent")
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(src, "absolute")))
	require.NoError(t, os.Symlink("../../x", filepath.Join(src, "up")))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(src, "dangling")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(src, "pipe"), 0o600))
	require.NoError(t, os.RemoveAll(filepath.Join(src, ".git")))
	sum, err := p.Push(testContext(t), h.Target, src, "dst", remote.PushOptions{})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"ok": "ok", "dangling": "-> nowhere"}, contents(t, filepath.Join(h.home, "dst")))
	var skipped []string
	for _, s := range sum.Skipped {
		skipped = append(skipped, s.Path)
		require.NotEmpty(t, s.Reason)
	}
	require.Equal(t, []string{"absolute", "pipe", "up"}, skipped)
}

func TestPushNeverLeavesTheDirectory(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	src := t.TempDir()
	write(t, filepath.Join(src, "data/file"), "new")
	outside := filepath.Join(h.home, "outside")
	write(t, filepath.Join(outside, "file"), "old")
	require.NoError(t, os.MkdirAll(filepath.Join(h.home, "dst"), 0o755))
	require.NoError(t, os.Symlink(outside, filepath.Join(h.home, "dst/data")))
	_, err := p.Push(ctx, h.Target, src, "dst", remote.PushOptions{})
	require.ErrorIs(t, err, remote.ErrConflict)
	require.ErrorContains(t, err, "data")
	require.Equal(t, map[string]string{"file": "old"}, contents(t, outside))

	// A directory that was pushed and then swapped for a link: its files must not be deleted through the link.
	require.NoError(t, os.Remove(filepath.Join(h.home, "dst/data")))
	_, err = p.Push(ctx, h.Target, src, "dst", remote.PushOptions{})
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(filepath.Join(h.home, "dst/data")))
	write(t, filepath.Join(outside, "file"), "new")
	require.NoError(t, os.Symlink(outside, filepath.Join(h.home, "dst/data")))
	require.NoError(t, os.RemoveAll(filepath.Join(src, "data")))
	sum, err := p.Push(ctx, h.Target, src, "dst", remote.PushOptions{Delete: true})
	require.NoError(t, err)
	require.Zero(t, sum.Deleted)
	require.Equal(t, map[string]string{"file": "new"}, contents(t, outside))

	for _, dst := range []string{"../x", "a/../../x", "a\nb"} {
		_, err = p.Push(ctx, h.Target, src, dst, remote.PushOptions{})
		require.ErrorIs(t, err, remote.ErrInvalid, dst)
	}
}

func TestPushConflicts(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	src, dst := t.TempDir(), filepath.Join(h.home, "dst")
	push := func(o remote.PushOptions) error {
		_, err := p.Push(ctx, h.Target, src, dst, o)
		return err
	}
	write(t, filepath.Join(src, "x"), "file")
	write(t, filepath.Join(src, "y/z"), "file")
	require.NoError(t, push(remote.PushOptions{}))
	// x becomes a directory and y a file; both came from here.
	require.NoError(t, os.Remove(filepath.Join(src, "x")))
	write(t, filepath.Join(src, "x/sub"), "in it")
	require.NoError(t, push(remote.PushOptions{}))
	require.NoError(t, os.RemoveAll(filepath.Join(src, "y")))
	write(t, filepath.Join(src, "y"), "now a file")
	require.ErrorIs(t, push(remote.PushOptions{}), remote.ErrConflict, "it would delete y/z, which was not asked for")
	require.NoError(t, push(remote.PushOptions{Delete: true}))
	require.Equal(t, map[string]string{"x/sub": "in it", "y": "now a file"}, contents(t, dst))
	// What did not come from here stays.
	write(t, filepath.Join(dst, "theirs/file"), "t")
	write(t, filepath.Join(dst, "file"), "t")
	write(t, filepath.Join(src, "theirs"), "mine")
	require.ErrorIs(t, push(remote.PushOptions{Delete: true}), remote.ErrConflict)
	require.NoError(t, os.Remove(filepath.Join(src, "theirs")))
	write(t, filepath.Join(src, "file/mine"), "mine")
	require.ErrorIs(t, push(remote.PushOptions{Delete: true}), remote.ErrConflict)
	require.Equal(t, map[string]string{"x/sub": "in it", "y": "now a file", "theirs/file": "t", "file": "t"}, contents(t, dst))
}

func TestPushLimit(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	src := t.TempDir()
	write(t, filepath.Join(src, "x"), strings.Repeat("x", 1000))
	_, err := p.Push(testContext(t), h.Target, src, "dst", remote.PushOptions{MaxBytes: 999})
	require.ErrorIs(t, err, remote.ErrTooLarge)
	require.Empty(t, contents(t, filepath.Join(h.home, "dst")))
	_, err = p.Push(testContext(t), h.Target, filepath.Join(src, "none"), "dst", remote.PushOptions{})
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// The connection breaks again and again in the middle of the data; what arrives in the end is right, and at no time
// is there half a file.
func TestPushOverABadNetwork(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	proxy := startProxy(t, h.Addr)
	p := newPool(t, remote.Config{})
	target := h.Target
	target.Addr = proxy.addr
	src := t.TempDir()
	want := map[string]string{}
	for i := range 20 {
		name := fmt.Sprintf("dir%d/file", i%4) + fmt.Sprint(i)
		want[name] = string(pattern(200_000 + i))
		write(t, filepath.Join(src, name), want[name])
	}
	cuts := 0
	_, err := p.Push(testContext(t), target, src, "dst", remote.PushOptions{Progress: func(files int, _ int64) {
		if files%7 == 0 && cuts < 3 {
			cuts++
			assertWholeOrAbsent(t, filepath.Join(h.home, "dst"), want)
			proxy.cut()
		}
	}})
	require.NoError(t, err)
	require.Equal(t, 3, cuts)
	require.Eventually(t, func() bool {
		entries, err := os.ReadDir(filepath.Join(h.home, "dst"))
		return err == nil && len(entries) == 4
	}, 5*time.Second, 10*time.Millisecond, "the stages of what broke off go away")
	require.Equal(t, want, contents(t, filepath.Join(h.home, "dst")))
}

func TestPushManyFiles(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	src := t.TempDir()
	for i := range 300 {
		write(t, filepath.Join(src, fmt.Sprintf("d%d/e%d/f%d", i%10, i%100, i)), fmt.Sprint(i))
	}
	begun := time.Now()
	sum, err := p.Push(testContext(t), h.Target, src, "dst", remote.PushOptions{})
	require.NoError(t, err)
	require.Equal(t, 300, sum.Sent)
	first := time.Since(begun)
	begun = time.Now()
	sum, err = p.Push(testContext(t), h.Target, src, "dst", remote.PushOptions{})
	require.NoError(t, err)
	require.Zero(t, sum.Sent)
	t.Logf("300 files: first %v, again %v", first, time.Since(begun))
}
