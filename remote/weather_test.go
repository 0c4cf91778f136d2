//go:build unix

package remote_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest/machine"
	"github.com/gpulease/gpulease/remote"
)

// noise is data that does not compress.
func noise(size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size), byte(size >> 8), byte(size >> 16)}).Read(data)
	return data
}

// patient is for tests that carry much.
func patient(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// partsDone waits until the machine has whole parts of a large file, and lists their marks.
func partsDone(home string) []string {
	for range 1000 {
		if done, _ := filepath.Glob(filepath.Join(home, "dst/.gpulease-stage.large-*/done/*")); len(done) > 0 {
			return done
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// onBoth runs a test on real OpenSSH and on the embedded machine, through a proxy.
func onBoth(t *testing.T, test func(t *testing.T, target remote.Target, home string, weather *proxy)) {
	t.Helper()
	t.Run("openssh", func(t *testing.T) {
		t.Parallel()
		h := startHost(t)
		weather := startProxy(t, h.Addr)
		h.Addr = weather.addr
		test(t, h.Target, h.home, weather)
	})
	t.Run("machine", func(t *testing.T) {
		t.Parallel()
		m, target := startMachine(t, machine.Config{})
		weather := startProxy(t, target.Addr)
		target.Addr = weather.addr
		test(t, target, m.Home(), weather)
	})
}

func TestFetchLargeFiles(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, target remote.Target, home string, _ *proxy) {
		p, ctx, dst := newPool(t, remote.Config{}), patient(t), t.TempDir()
		want := map[string]string{
			"big/noise":      string(noise(20_000_001)),
			"big/text\nline": strings.Repeat("compresses well\n", 1_100_000),
			"big/edge":       string(noise(16 << 20)),
			"small":          "small",
		}
		for name, text := range want {
			write(t, filepath.Join(home, name), text)
		}
		require.NoError(t, os.Chmod(filepath.Join(home, "big/noise"), 0o750))
		when := time.Unix(1_700_000_000, 0)
		require.NoError(t, os.Chtimes(filepath.Join(home, "big/noise"), when, when))
		files, bytes := 0, int64(0)
		sum, err := p.Fetch(ctx, target, []string{"big", "small"}, dst, remote.FetchOptions{Progress: func(f int, b int64) { files, bytes = f, b }})
		require.NoError(t, err)
		require.True(t, sum.Complete())
		require.Equal(t, 4, files)
		require.Equal(t, sum.Bytes, bytes)
		got := contents(t, dst)
		require.Len(t, got, len(want))
		for name, text := range want {
			require.True(t, got[name] == text, name)
		}
		info, err := os.Stat(filepath.Join(dst, "big/noise"))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o750), info.Mode())
		require.True(t, info.ModTime().Equal(when))

		// The same size and the old time: only the content tells.
		data := []byte(want["big/noise"])
		data[10_000_000] ^= 1
		write(t, filepath.Join(home, "big/noise"), string(data))
		require.NoError(t, os.Chtimes(filepath.Join(home, "big/noise"), when, when))
		sum, err = p.Fetch(ctx, target, []string{"big", "small"}, dst, remote.FetchOptions{})
		require.NoError(t, err)
		for _, f := range sum.Files {
			require.Equal(t, f.Path != "big/noise", f.Same, f.Path)
		}
		require.True(t, contents(t, dst)["big/noise"] == string(data))
	})
}

// A deadline in the middle: what had come by then is here and whole, the summary and the manifest say what is not, and
// the next fetch sends only the rest.
func TestFetchRescuesWhatItCan(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, target remote.Target, home string, weather *proxy) {
		p, dst := newPool(t, remote.Config{}), t.TempDir()
		data := string(noise(34_000_000))
		write(t, filepath.Join(home, "out/large"), data)
		for i := range 10 {
			write(t, filepath.Join(home, fmt.Sprintf("out/small%d", i)), fmt.Sprint(i))
		}
		ctx, cancel := context.WithCancel(patient(t))
		defer cancel()
		sum, err := p.Fetch(ctx, target, []string{"out", "gone"}, dst, remote.FetchOptions{
			Manifest: "manifest.json",
			Progress: func(_ int, bytes int64) {
				if bytes > 17_000_000 {
					cancel()
				}
			},
		})
		require.ErrorIs(t, err, context.Canceled)
		require.False(t, sum.Complete())
		require.Len(t, sum.Files, 10, "the small ones come first")
		require.Equal(t, []remote.Left{{Path: "out/large", Bytes: 34_000_000}}, sum.Left)
		require.Equal(t, []string{"gone"}, sum.Missing)
		var manifest struct {
			Complete bool
			Files    []struct {
				Path, SHA256 string
				Bytes        int64
			}
			Missing, Left []struct{ Path string }
		}
		text, err := os.ReadFile(filepath.Join(dst, "manifest.json"))
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &manifest))
		require.False(t, manifest.Complete)
		require.Len(t, manifest.Files, 10)
		require.Equal(t, "out/small0", manifest.Files[0].Path)
		require.Len(t, manifest.Files[0].SHA256, 64)
		require.Equal(t, "out/large", manifest.Left[0].Path)
		require.Equal(t, "gone", manifest.Missing[0].Path)
		require.NoFileExists(t, filepath.Join(dst, "out/large"))

		require.NoError(t, p.Close())
		require.Eventually(t, func() bool { return weather.open() == 0 }, 10*time.Second, time.Millisecond)
		before := weather.passed.Load()
		p = newPool(t, remote.Config{}) // any later process goes on
		sum, err = p.Fetch(patient(t), target, []string{"out"}, dst, remote.FetchOptions{Manifest: "manifest.json"})
		require.NoError(t, err)
		require.True(t, sum.Complete())
		require.Less(t, weather.passed.Load()-before, int64(18_000_000), "three parts of it was here already")
		got := contents(t, dst)
		require.True(t, got["out/large"] == data)
		require.Contains(t, got["manifest.json"], `"complete": true`)
		require.Len(t, got, 12, "no unfinished file is left")
	})
}

// The network is gone for longer than any one try to reconnect.
func TestLongOutage(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	const outage = 30 * time.Second
	onBoth(t, func(t *testing.T, target remote.Target, home string, weather *proxy) {
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
		defer cancel()
		p, dst, src := newPool(t, remote.Config{}), t.TempDir(), t.TempDir()
		want := map[string]string{"out/large": string(noise(34_000_000))}
		for i := range 40 {
			want[fmt.Sprintf("out/file%d", i)] = string(noise(100_000 + i))
		}
		for name, text := range want {
			write(t, filepath.Join(home, name), text)
			write(t, filepath.Join(src, name), text)
		}
		require.NoError(t, p.Check(ctx, target))
		weather.rate.Store(20_000_000)
		var begun, group sync.WaitGroup
		begun.Add(2)
		var once [2]sync.Once
		group.Go(func() {
			sum, err := p.Fetch(ctx, target, []string{"out"}, dst, remote.FetchOptions{Progress: func(int, int64) { once[0].Do(begun.Done) }})
			assert.NoError(t, err)
			assert.True(t, sum.Complete())
		})
		group.Go(func() {
			_, err := p.Push(ctx, target, src, "pushed", remote.PushOptions{Progress: func(int, int64) { once[1].Do(begun.Done) }})
			assert.NoError(t, err)
		})
		begun.Wait()
		weather.stop()
		time.Sleep(outage)
		weather.rate.Store(0)
		weather.start()
		group.Wait()
		for _, dir := range []string{dst, filepath.Join(home, "pushed")} {
			got := contents(t, dir)
			for name, text := range want {
				require.True(t, got[name] == text, "%s in %s", name, dir)
			}
			require.Len(t, got, len(want))
		}
	})
}

func TestPushLargeFiles(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, target remote.Target, home string, weather *proxy) {
		p, ctx, src, dst := newPool(t, remote.Config{}), patient(t), t.TempDir(), filepath.Join(home, "dst")
		want := map[string]string{
			"big/noise":      string(noise(20_000_001)),
			"big/text\nline": strings.Repeat("compresses well\n", 1_100_000),
			"edge":           string(noise(16 << 20)),
			"small":          "small",
		}
		for name, text := range want {
			write(t, filepath.Join(src, name), text)
		}
		require.NoError(t, os.Chmod(filepath.Join(src, "big/noise"), 0o750))
		when := time.Unix(1_700_000_000, 0)
		require.NoError(t, os.Chtimes(filepath.Join(src, "big/noise"), when, when))
		files, bytes := 0, int64(0)
		sum, err := p.Push(ctx, target, src, "dst", remote.PushOptions{Progress: func(f int, b int64) { files, bytes = f, b }})
		require.NoError(t, err)
		require.Equal(t, 4, sum.Sent)
		require.Equal(t, sum.Bytes, sum.SentBytes)
		require.Equal(t, 4, files)
		require.Equal(t, sum.Bytes, bytes)
		require.Less(t, weather.passed.Load(), int64(45_000_000), "text is compressed")
		got := contents(t, dst)
		require.Len(t, got, len(want), "nothing of the parts is left")
		for name, text := range want {
			require.True(t, got[name] == text, name)
		}
		info, err := os.Stat(filepath.Join(dst, "big/noise"))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o750), info.Mode())
		require.True(t, info.ModTime().Equal(when))
		sum, err = p.Push(ctx, target, src, "dst", remote.PushOptions{})
		require.NoError(t, err)
		require.Zero(t, sum.Sent)

		// Into the place of a link, and not through it; and not into the place of a directory.
		outside := filepath.Join(home, "outside")
		write(t, outside, "old")
		require.NoError(t, os.Remove(filepath.Join(dst, "edge")))
		require.NoError(t, os.Symlink(outside, filepath.Join(dst, "edge")))
		_, err = p.Push(ctx, target, src, "dst", remote.PushOptions{})
		require.NoError(t, err)
		require.True(t, contents(t, dst)["edge"] == want["edge"])
		require.Equal(t, "old", contents(t, home)["outside"])
		require.NoError(t, os.RemoveAll(filepath.Join(dst, "big")))
		require.NoError(t, os.Mkdir(filepath.Join(home, "elsewhere"), 0o755))
		require.NoError(t, os.Symlink(filepath.Join(home, "elsewhere"), filepath.Join(dst, "big")))
		write(t, filepath.Join(src, "big/noise"), string(noise(17<<20)))
		_, err = p.Push(ctx, target, src, "dst", remote.PushOptions{})
		require.ErrorIs(t, err, remote.ErrConflict)
		require.Empty(t, contents(t, filepath.Join(home, "elsewhere")))
	})
}

// A push that is given up in the middle goes on where it was, with other files and with parts of a large one.
func TestPushGoesOn(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, target remote.Target, home string, weather *proxy) {
		p, src, dst := newPool(t, remote.Config{}), t.TempDir(), filepath.Join(home, "dst")
		want := map[string]string{"large": string(noise(34_000_000))}
		for i := range 40 {
			want[fmt.Sprintf("d%d/e%d/f", i%3, i)] = string(noise(150_000 + i))
		}
		for name, text := range want {
			write(t, filepath.Join(src, name), text)
		}
		ctx, cancel := context.WithCancel(patient(t))
		defer cancel()
		weather.rate.Store(100_000_000)
		sum, err := p.Push(ctx, target, src, "dst", remote.PushOptions{Progress: func(_ int, bytes int64) {
			if bytes > 23_000_000 && ctx.Err() == nil {
				assert.NotEmpty(t, partsDone(home))
				cancel()
			}
		}})
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, 40, sum.Sent, "these are in their place")
		weather.rate.Store(0)
		require.NoFileExists(t, filepath.Join(dst, "large"))
		require.NoError(t, p.Close())
		require.Eventually(t, func() bool { return weather.open() == 0 }, 10*time.Second, time.Millisecond)
		before := weather.passed.Load()
		p = newPool(t, remote.Config{}) // any later process goes on
		sum, err = p.Push(patient(t), target, src, "dst", remote.PushOptions{})
		require.NoError(t, err)
		require.Equal(t, 1, sum.Sent)
		require.Less(t, weather.passed.Load()-before, int64(28_000_000), "some parts were there already")
		got := contents(t, dst)
		require.Len(t, got, len(want))
		for name, text := range want {
			require.True(t, got[name] == text, name)
		}
	})
}

// A part that was spoilt on the machine does not get into the file.
func TestPushOfASpoiltPart(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p, src := newPool(t, remote.Config{}), t.TempDir()
	data := string(noise(34_000_000))
	write(t, filepath.Join(src, "large"), data)
	ctx, cancel := context.WithCancel(patient(t))
	defer cancel()
	var spoilt []string
	_, err := p.Push(ctx, h.Target, src, "dst", remote.PushOptions{Progress: func(_ int, bytes int64) {
		if bytes > 17_000_000 && ctx.Err() == nil {
			spoilt = partsDone(h.home)
			cancel()
		}
	}})
	require.ErrorIs(t, err, context.Canceled)
	require.NotEmpty(t, spoilt)
	stage := filepath.Dir(filepath.Dir(spoilt[0]))
	f, err := os.OpenFile(filepath.Join(stage, "data"), os.O_WRONLY, 0)
	require.NoError(t, err)
	var number int64
	_, err = fmt.Sscan(filepath.Base(spoilt[0]), &number)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("spoilt"), number*8<<20)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = p.Push(patient(t), h.Target, src, "dst", remote.PushOptions{})
	require.NoError(t, err)
	require.True(t, contents(t, filepath.Join(h.home, "dst"))["large"] == data)
}

func TestPushGuardsAgainstMassDeletion(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, target remote.Target, home string, _ *proxy) {
		p, ctx, src, dst := newPool(t, remote.Config{}), patient(t), t.TempDir(), filepath.Join(home, "dst")
		for i := range 40 {
			write(t, filepath.Join(src, fmt.Sprintf("d%d/f%d", i%4, i)), fmt.Sprint(i))
		}
		_, err := p.Push(ctx, target, src, "dst", remote.PushOptions{})
		require.NoError(t, err)
		for i := range 3 {
			require.NoError(t, os.RemoveAll(filepath.Join(src, fmt.Sprintf("d%d", i))))
		}
		write(t, filepath.Join(src, "new"), "new")
		_, err = p.Push(ctx, target, src, "dst", remote.PushOptions{Delete: true})
		require.ErrorIs(t, err, remote.ErrMassDeletion)
		require.ErrorContains(t, err, "30 of the 40 files that earlier pushes put there are no longer here, and at most 20 may be deleted at once")
		require.Len(t, contents(t, dst), 40, "nothing was sent or deleted")
		_, err = p.Push(ctx, target, src, "dst", remote.PushOptions{Delete: true, MaxDelete: 29})
		require.ErrorIs(t, err, remote.ErrMassDeletion)
		_, err = p.Push(ctx, target, src, "dst", remote.PushOptions{Delete: true, DryRun: true})
		require.ErrorIs(t, err, remote.ErrMassDeletion, "a dry run says the same")
		sum, err := p.Push(ctx, target, src, "dst", remote.PushOptions{Delete: true, MaxDelete: 30})
		require.NoError(t, err)
		require.Equal(t, 30, sum.Deleted)
		require.Len(t, contents(t, dst), 11)
		require.NoError(t, os.RemoveAll(filepath.Join(src, "d3")))
		_, err = p.Push(ctx, target, src, "dst", remote.PushOptions{Delete: true})
		require.NoError(t, err, "ten are always allowed")
	})
}

// An old machine: no zstd, no flock, and a dd that knows no offsets.
func TestTransfersWithoutNewTools(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("busybox"); err != nil {
		shells(t)
		t.Skip("no busybox here")
	}
	h := startHostWith(t, "busybox")
	_ = os.Remove(filepath.Join(h.bin, "flock"))
	require.NoError(t, os.Remove(filepath.Join(h.bin, "dd")))
	h.shim(t, "dd", "#!/bin/sh\nexit 1\n")
	p, ctx, src, dst := newPool(t, remote.Config{}), patient(t), t.TempDir(), t.TempDir()
	want := map[string]string{"large": string(noise(20_000_000)), "text": strings.Repeat("text\n", 2_000_000)}
	for i := range 30 {
		want[fmt.Sprintf("d%d/f%d", i%3, i)] = string(noise(400_000 + i))
	}
	for name, text := range want {
		write(t, filepath.Join(src, name), text)
	}
	_, err := p.Push(ctx, h.Target, src, "dst", remote.PushOptions{})
	require.NoError(t, err)
	_, err = p.Fetch(ctx, h.Target, []string{"dst"}, dst, remote.FetchOptions{})
	require.NoError(t, err)
	for _, dir := range []string{filepath.Join(h.home, "dst"), filepath.Join(dst, "dst")} {
		got := contents(t, dir)
		require.Len(t, got, len(want))
		for name, text := range want {
			require.True(t, got[name] == text, name)
		}
	}
}

// Of a file that another one of the same size and time replaces, no part is taken for one of the new file.
func TestPushOfAnotherFileOfTheSameTime(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p, src := newPool(t, remote.Config{}), t.TempDir()
	name, when := filepath.Join(src, "weights"), time.Unix(1_700_000_000, 0)
	data := noise(34_000_000)
	plant := func() {
		write(t, name, string(data))
		require.NoError(t, os.Chtimes(name, when, when))
	}
	plant()
	ctx, cancel := context.WithCancel(patient(t))
	defer cancel()
	var left []string
	_, err := p.Push(ctx, h.Target, src, "dst", remote.PushOptions{Progress: func(_ int, bytes int64) {
		if bytes > 17_000_000 && ctx.Err() == nil {
			left = partsDone(h.home)
			cancel()
		}
	}})
	require.ErrorIs(t, err, context.Canceled)
	require.NotEmpty(t, left, "parts of the first file are there")
	slices.Reverse(data[2<<20:])
	plant()
	var sent int64
	_, err = p.Push(patient(t), h.Target, src, "dst", remote.PushOptions{Progress: func(_ int, bytes int64) { sent = bytes }})
	require.NoError(t, err)
	require.EqualValues(t, len(data), sent, "all of it, once")
	require.True(t, contents(t, filepath.Join(h.home, "dst"))["weights"] == string(data))
}
