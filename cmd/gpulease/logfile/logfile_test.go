package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

func TestFileNeverGrowsOverItsSize(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	a, b := &File{Path: path, Size: 1000}, &File{Path: path, Size: 1000} // as two processes would
	for i := range 500 {
		l := a
		if i%3 == 0 {
			l = b
		}
		n, err := fmt.Fprintf(l, "line %04d\n", i)
		require.NoError(t, err)
		require.Equal(t, 10, n)
		for _, p := range []string{path, path + ".old"} {
			if info, err := os.Stat(p); err == nil {
				require.LessOrEqual(t, info.Size(), int64(1000))
				require.Zero(t, info.Mode().Perm()&0o077)
			}
		}
	}
	all := read(t, path+".old") + read(t, path)
	require.True(t, strings.HasSuffix(all, "line 0498\nline 0499\n"), all)
	require.GreaterOrEqual(t, strings.Count(all, "\n"), 100, "one old file is kept")
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 2)
	require.NoError(t, errors.Join(a.Close(), b.Close()))
}

func TestFileCutsALongLine(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	l := &File{Path: path, Size: 1 << 20}
	line := strings.Repeat("x", 1<<20)
	n, err := l.Write([]byte(line))
	require.NoError(t, err)
	require.Equal(t, 1<<20, n)
	require.Equal(t, line[:longestLine]+"[cut]\n", read(t, path))
	require.NoError(t, l.Close())
}

func TestFileWhoseDirectoryIsDeleted(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	require.NoError(t, os.Mkdir(dir, 0o700))
	l := &File{Path: filepath.Join(dir, "log"), Size: 1000, Fallback: dir + ".log"}
	fmt.Fprintln(l, "here")
	require.NoError(t, os.RemoveAll(dir))
	for i := range 300 {
		fmt.Fprintf(l, "there %03d\n", i)
	}
	require.NoDirExists(t, dir, "it is not for the log to bring it back")
	require.True(t, strings.HasSuffix(read(t, dir+".log"), "there 299\n"))
	require.LessOrEqual(t, len(read(t, dir+".log")), 1000)

	// It comes back.
	require.NoError(t, os.Mkdir(dir, 0o700))
	fmt.Fprintln(l, "back")
	require.Equal(t, "back\n", read(t, filepath.Join(dir, "log")))
	require.NoError(t, l.Close())
}

func TestFileWithoutAnyPlace(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	l := &File{Path: filepath.Join(dir, "log"), Size: 1000}
	for range 7 {
		_, err := fmt.Fprintln(l, "lost")
		require.NoError(t, err)
	}
	require.NoError(t, os.Mkdir(dir, 0o700))
	fmt.Fprintln(l, "kept")
	text := read(t, filepath.Join(dir, "log"))
	require.True(t, strings.HasPrefix(text, "kept\n"), text)
	require.Contains(t, text, `"lines":7`)
	require.NoError(t, l.Close())
}

// A week of a cloud that does not answer: a try each thirty seconds, each over another local port.
func TestCalmKeepsAWeekOfTheSameSmall(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	c := NewCalm(&out, func() time.Time { return now })
	log := slog.New(slog.NewJSONHandler(c, &slog.HandlerOptions{}))
	lines := 0
	for end := now.Add(7 * 24 * time.Hour); now.Before(end); now = now.Add(30 * time.Second) {
		lines++
		log.Warn("reconcile", "err", fmt.Sprintf("list instances: read tcp 127.0.0.1:%d->127.0.0.1:80: refused after %d ms", 1024+lines%60000, lines%977))
	}
	require.Equal(t, 20160, lines)
	require.Less(t, strings.Count(out.String(), "\n"), 200)
	require.Less(t, out.Len(), 50<<10)
	last := out.String()[strings.LastIndex(strings.TrimSpace(out.String()), "\n")+1:]
	require.Contains(t, last, `,"repeated":119}`)

	// What is new is said at once, also beside it.
	before := out.Len()
	log.Info("ended", "lease", "abcdefgh2345")
	log.Info("ended", "lease", "abcdefgh2346")
	require.Equal(t, 2, strings.Count(out.String()[before:], "\n"))
}

func TestCalmSaysAgainWhatWasSilentForLong(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	c := NewCalm(&out, func() time.Time { return now })
	for range 3 {
		_, err := c.Write([]byte("the same\n"))
		require.NoError(t, err)
	}
	require.Equal(t, "the same\n", out.String())
	now = now.Add(2 * time.Hour)
	_, err := c.Write([]byte("the same\n"))
	require.NoError(t, err)
	require.Equal(t, "the same\nthe same\n", out.String())
	now = now.Add(time.Second)
	_, _ = c.Write([]byte("the same\n"))
	now = now.Add(time.Minute)
	_, _ = c.Write([]byte("the same\n"))
	require.True(t, strings.HasSuffix(out.String(), "the same (repeated 1 times)\n"), out.String())
}

func TestCalmRemembersABoundedNumberOfLines(t *testing.T) {
	t.Parallel()
	c := NewCalm(&bytes.Buffer{}, time.Now)
	for i := range 10_000 {
		_, err := fmt.Fprintf(c, "word%d\n", i)
		require.NoError(t, err)
	}
	require.Len(t, c.known, linesKnown)
}
