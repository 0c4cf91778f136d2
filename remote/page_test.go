//go:build unix

package remote_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

func TestPage(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	whole := pattern(10_000)
	_, _, _, err := p.Run(ctx, h.Target, "job-page", remote.Command{Shell: "cat; echo err >&2", Stdin: whole}, wait, 0, 0)
	require.NoError(t, err)
	for name, tt := range map[string]struct {
		offset     int64
		limit      int
		begin, end int64
		eof        bool
	}{
		"Begin":       {0, 100, 0, 100, false},
		"Middle":      {4321, 1234, 4321, 5555, false},
		"LastByte":    {9999, 100, 9999, 10_000, true},
		"End":         {10_000, 100, 10_000, 10_000, true},
		"BehindEnd":   {99_999, 100, 10_000, 10_000, true},
		"FromEnd":     {-100, 100, 9900, 10_000, true},
		"FromEndPart": {-100, 60, 9900, 9960, false},
		"FromEndFar":  {-99_999, 100, 0, 100, false},
		"Smallest":    {-1 << 63, 100, 0, 100, false},
		"Whole":       {0, 10_000, 0, 10_000, true},
		"Default":     {0, 0, 0, 10_000, true},
	} {
		t.Run(name, func(t *testing.T) {
			page, err := p.Page(ctx, h.Target, "job-page", remote.Stdout, tt.offset, tt.limit, wait)
			require.NoError(t, err)
			require.Equal(t, tt.begin, page.Offset)
			require.Equal(t, tt.end, page.NextOffset)
			require.Equal(t, tt.eof, page.EOF)
			require.Equal(t, int64(10_000), page.Size)
			require.True(t, bytes.Equal(whole[tt.begin:tt.end], page.Data))
			require.Equal(t, remote.Exited, page.Job.State)
		})
	}
	page, err := p.Page(ctx, h.Target, "job-page", remote.Stderr, 0, 100, 0)
	require.NoError(t, err)
	require.Equal(t, "err\n", string(page.Data))
	_, err = p.Page(ctx, h.Target, "job-page", "stdin", 0, 100, 0)
	require.ErrorIs(t, err, remote.ErrInvalid)
	_, err = p.Page(ctx, h.Target, "job-page", remote.Stdout, 0, 1<<30, 0)
	require.ErrorIs(t, err, remote.ErrInvalid)
	_, err = p.Page(ctx, h.Target, "job-other", remote.Stdout, 0, 1, 0)
	require.ErrorIs(t, err, remote.ErrJobNotFound)
}

func TestPageWaits(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	_, err := p.Start(ctx, h.Target, "job-slow", remote.Command{Shell: "echo one; until [ -e go ]; do sleep 0.02; done; echo two"})
	require.NoError(t, err)
	page, err := p.Page(ctx, h.Target, "job-slow", remote.Stdout, 0, 100, wait)
	require.NoError(t, err)
	require.Equal(t, "one\n", string(page.Data))
	require.False(t, page.EOF)
	begun := time.Now()
	page, err = p.Page(ctx, h.Target, "job-slow", remote.Stdout, page.NextOffset, 100, 100*time.Millisecond)
	require.NoError(t, err)
	require.Empty(t, page.Data)
	require.False(t, page.EOF)
	require.GreaterOrEqual(t, time.Since(begun), 95*time.Millisecond)
	require.NoError(t, os.WriteFile(filepath.Join(h.home, "go"), nil, 0o600))
	page, err = p.Page(ctx, h.Target, "job-slow", remote.Stdout, page.NextOffset, 100, wait)
	require.NoError(t, err)
	require.Equal(t, "two\n", string(page.Data))
	page, err = p.Page(ctx, h.Target, "job-slow", remote.Stdout, page.NextOffset, 100, wait)
	require.NoError(t, err)
	require.Empty(t, page.Data)
	require.True(t, page.EOF)
}

// 100 MB in one line: every byte arrives, and neither the pages nor head and tail take memory for the whole.
// Not beside other tests, whose memory would count.
func TestLargeOutput(t *testing.T) {
	h := startHost(t)
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	const size = 100 << 20
	job, stdout, _, err := p.Run(ctx, h.Target, "job-large", remote.Command{
		Shell: fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x | tee >(sha256sum >sum)", size),
	}, wait, 1000, 1000)
	require.NoError(t, err)
	require.Equal(t, remote.ReasonExit, job.Reason)
	require.Equal(t, int64(size), job.StdoutBytes)
	require.Len(t, stdout.Tail, 1000)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	hash := sha256.New()
	for offset := int64(0); ; {
		page, err := p.Page(ctx, h.Target, "job-large", remote.Stdout, offset, 4<<20, wait)
		require.NoError(t, err)
		hash.Write(page.Data)
		if offset = page.NextOffset; page.EOF {
			break
		}
	}
	runtime.ReadMemStats(&after)
	t.Logf("heap in use: %d KiB before, %d KiB after", before.HeapInuse>>10, after.HeapInuse>>10)
	require.Less(t, after.HeapInuse, before.HeapInuse+64<<20)
	sum, err := os.ReadFile(filepath.Join(h.home, "sum"))
	require.NoError(t, err)
	require.Equal(t, string(sum[:64]), fmt.Sprintf("%x", hash.Sum(nil)))
}

// The network is cut again and again while a job's output is paged: every byte comes once and in order.
func TestPageOverABadNetwork(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	proxy := startProxy(t, h.Addr)
	p := newPool(t, remote.Config{})
	target := h.Target
	target.Addr = proxy.addr
	ctx := testContext(t)
	whole := pattern(2_000_000)
	_, _, _, err := p.Run(ctx, target, "job-page-cut", remote.Command{Argv: []string{"cat"}, Stdin: whole}, wait, 0, 0)
	require.NoError(t, err)
	var got []byte
	for cuts := 0; ; {
		if cuts < 5 && len(got) >= cuts*400_000 {
			cuts++
			timer := time.AfterFunc(time.Duration(cuts)*5*time.Millisecond, proxy.cut)
			defer timer.Stop()
		}
		page, err := p.Page(ctx, target, "job-page-cut", remote.Stdout, int64(len(got)), 100_000, wait)
		require.NoError(t, err)
		require.Equal(t, int64(len(got)), page.Offset)
		if got = append(got, page.Data...); page.EOF {
			break
		}
	}
	require.True(t, bytes.Equal(whole, got))
	require.Greater(t, proxy.accepted(), 1, "it was cut")
}
