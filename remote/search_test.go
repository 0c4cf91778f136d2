//go:build unix

package remote_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest/machine"
	"github.com/gpulease/gpulease/remote"
)

func TestMachineSearch(t *testing.T) {
	t.Parallel()
	_, target := startMachine(t, machine.Config{})
	testSearch(t, target, "job-search-sim")
}

func TestSearch(t *testing.T) {
	t.Parallel()
	testSearch(t, startHost(t).Target, "job-search-host")
}

func testSearch(t *testing.T, target remote.Target, id string) {
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "line %03d\n", i)
	}
	whole := text.String()
	_, _, _, err := p.Run(ctx, target, id, remote.Command{Shell: "cat; printf 'a\\0Error: b\\377\\n-x (y\\n' >&2", Stdin: []byte(whole)}, wait, 0, 0)
	require.NoError(t, err)
	at := func(n int) int64 { return int64(9 * n) }
	for name, tt := range map[string]struct {
		stream remote.Stream
		search remote.Search
		want   []string
		offset int64 // of the first snippet
		more   bool
		next   int64
	}{
		"One":         {"stdout", remote.Search{Pattern: "line 500"}, []string{"line 500\n"}, at(500), false, at(1000)},
		"Context":     {"stdout", remote.Search{Pattern: "500$", Lines: 1}, []string{"line 499\nline 500\nline 501\n"}, at(499), false, at(1000)},
		"None":        {"stdout", remote.Search{Pattern: "nothing"}, nil, 0, false, at(1000)},
		"First":       {"stdout", remote.Search{Pattern: "00$", Matches: 2}, []string{"line 000\n", "line 100\n"}, 0, true, at(101)},
		"GoOn":        {"stdout", remote.Search{Pattern: "00$", Matches: 2, Offset: at(101)}, []string{"line 200\n", "line 300\n"}, at(200), true, at(301)},
		"Exactly":     {"stdout", remote.Search{Pattern: "00$", Matches: 10}, []string{"line 000\n", "line 100\n", "line 200\n", "line 300\n", "line 400\n", "line 500\n", "line 600\n", "line 700\n", "line 800\n", "line 900\n"}, 0, false, at(1000)},
		"Last":        {"stdout", remote.Search{Pattern: "00$", Matches: 2, Last: true}, []string{"line 800\n", "line 900\n"}, at(800), true, at(1000)},
		"FromEnd":     {"stdout", remote.Search{Pattern: "line", Offset: -18}, []string{"line 998\nline 999\n"}, at(998), false, at(1000)},
		"BehindEnd":   {"stdout", remote.Search{Pattern: "line", Offset: 1 << 40}, nil, 0, false, at(1000)},
		"Regexp":      {"stdout", remote.Search{Pattern: "(777|778)$"}, []string{"line 777\nline 778\n"}, at(777), false, at(1000)},
		"Case":        {"stdout", remote.Search{Pattern: "LINE 42[0]", IgnoreCase: true}, []string{"line 420\n"}, at(420), false, at(1000)},
		"Literal":     {"stderr", remote.Search{Pattern: "(y", Literal: true}, []string{"-x (y\n"}, 12, false, 18},
		"LeadingDash": {"stderr", remote.Search{Pattern: "-x"}, []string{"-x (y\n"}, 12, false, 18},
		"Binary":      {"stderr", remote.Search{Pattern: "Error"}, []string{"a\x00Error: b\xff\n"}, 0, false, 18},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := p.Search(ctx, target, id, tt.stream, tt.search)
			require.NoError(t, err)
			var got []string
			for _, s := range found.Snippets {
				got = append(got, string(s.Data))
				require.NotEmpty(t, s.Matches)
			}
			require.Equal(t, tt.want, got)
			if len(tt.want) > 0 {
				require.Equal(t, tt.offset, found.Snippets[0].Offset)
			}
			require.Equal(t, tt.more, found.More)
			require.Equal(t, tt.next, found.NextOffset)
			require.Equal(t, remote.Exited, found.Job.State)
		})
	}
	for name, search := range map[string]remote.Search{
		"Empty": {}, "NoRegexp": {Pattern: "(y"}, "LineEnd": {Pattern: "a\nb"}, "TooMany": {Pattern: "a", Matches: 1000}, "TooWide": {Pattern: "a", Lines: 99},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := p.Search(ctx, target, id, "stdout", search)
			require.ErrorIs(t, err, remote.ErrInvalid)
		})
	}
	_, err = p.Search(ctx, target, id+"-none", "stdout", remote.Search{Pattern: "a"})
	require.ErrorIs(t, err, remote.ErrJobNotFound)
}

// 1 GB with a line of 100 MB in it, searched and paged: nothing of it takes memory here. Not beside other tests, whose
// memory would count.
func TestSearchInAGigabyte(t *testing.T) {
	h := startHost(t)
	p := newPool(t, remote.Config{})
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	job, _, _, err := p.Run(ctx, h.Target, "job-gigabyte", remote.Command{
		Shell: `half() { yes "an ordinary line of the log, as long as lines are" | head -c 450000000; }
half; echo; head -c 50000000 /dev/zero | tr '\0' x; printf NEEDLE; head -c 50000000 /dev/zero | tr '\0' x; echo; half; echo; echo the last NEEDLE`,
	}, wait, 0, 0)
	require.NoError(t, err)
	for !job.Over() {
		job, err = p.Job(ctx, h.Target, "job-gigabyte", wait)
		require.NoError(t, err)
	}
	require.Equal(t, remote.ReasonExit, job.Reason)
	require.Greater(t, job.StdoutBytes, int64(1_000_000_000))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	found, err := p.Search(ctx, h.Target, "job-gigabyte", remote.Stdout, remote.Search{Pattern: "NEEDLE", Lines: 2})
	require.NoError(t, err)
	require.False(t, found.More)
	require.Len(t, found.Snippets, 2)
	require.Len(t, found.Snippets[0].Data, 2*3<<10, "of a line that is too long, what is around the match")
	require.Equal(t, int64(450000000+1+50000000), found.Snippets[0].Matches[0])
	require.True(t, strings.HasSuffix(string(found.Snippets[1].Data), "\nthe last NEEDLE\n"))
	found, err = p.Search(ctx, h.Target, "job-gigabyte", remote.Stdout, remote.Search{Pattern: "ordinary", Last: true, Matches: 100})
	require.NoError(t, err)
	require.True(t, found.More)
	require.Equal(t, job.StdoutBytes, found.Size)
	last := found.Snippets[len(found.Snippets)-1]
	require.Greater(t, last.Matches[len(last.Matches)-1], job.StdoutBytes-1000, "they are the last ones")
	stdout, _, err := p.Output(ctx, h.Target, "job-gigabyte", 4096, 4096)
	require.NoError(t, err)
	require.Equal(t, job.StdoutBytes-8192, stdout.Omitted())
	for offset := int64(0); offset < job.StdoutBytes; offset += job.StdoutBytes / 50 {
		page, err := p.Page(ctx, h.Target, "job-gigabyte", remote.Stdout, offset, 1<<20, 0)
		require.NoError(t, err)
		require.Len(t, page.Data, int(min(1<<20, job.StdoutBytes-offset)))
	}
	runtime.ReadMemStats(&after)
	t.Logf("heap in use: %d KiB before, %d KiB after", before.HeapInuse>>10, after.HeapInuse>>10)
	require.Less(t, after.HeapInuse, before.HeapInuse+64<<20)
}
