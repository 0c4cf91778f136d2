//go:build unix

package remote_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
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
	x := uint64(88172645463325252) + uint64(size)
	for i := range data {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		data[i] = byte(x >> 32)
	}
	return data
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
		p, ctx, dst := newPool(t, remote.Config{}), testContext(t), t.TempDir()
		want := map[string]string{
			"big/noise":      string(noise(70_000_001)),
			"big/text\nline": strings.Repeat("compresses well\n", 2_000_000),
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
		data[50_000_000] ^= 1
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
		data := string(noise(60_000_000))
		write(t, filepath.Join(home, "out/large"), data)
		for i := range 10 {
			write(t, filepath.Join(home, fmt.Sprintf("out/small%d", i)), fmt.Sprint(i))
		}
		ctx, cancel := context.WithCancel(testContext(t))
		defer cancel()
		sum, err := p.Fetch(ctx, target, []string{"out", "gone"}, dst, remote.FetchOptions{
			Manifest: "manifest.json",
			Progress: func(_ int, bytes int64) {
				if bytes > 30_000_000 {
					cancel()
				}
			},
		})
		require.ErrorIs(t, err, context.Canceled)
		require.False(t, sum.Complete())
		require.Len(t, sum.Files, 10, "the small ones come first")
		require.Equal(t, []remote.Left{{Path: "out/large", Bytes: 60_000_000}}, sum.Left)
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

		before := weather.passed.Load()
		sum, err = p.Fetch(testContext(t), target, []string{"out"}, dst, remote.FetchOptions{Manifest: "manifest.json"})
		require.NoError(t, err)
		require.True(t, sum.Complete())
		require.Less(t, weather.passed.Load()-before, int64(40_000_000), "half of it was here already")
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
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		p, dst, src := newPool(t, remote.Config{}), t.TempDir(), t.TempDir()
		want := map[string]string{"out/large": string(noise(60_000_000))}
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
		weather.start(t)
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
