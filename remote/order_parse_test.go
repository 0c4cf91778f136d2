package remote

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseOrder(t *testing.T) {
	t.Parallel()
	ms := time.Millisecond
	require.Equal(t, []Written{{50 * ms, 3, 0}, {100 * ms, 3, 4}, {200 * ms, 9, 4}}, parseOrder("5 3 0\n10 3 4\nx\n12 1 4\n11\n20 9 4\n21 10 4"),
		"a half-written last line, a stream that shrank and rubbish are left out")
	require.Empty(t, parseOrder(""))
}

func TestInterleave(t *testing.T) {
	t.Parallel()
	ms := time.Millisecond
	order := []Written{{10 * ms, 4, 0}, {20 * ms, 4, 4}, {30 * ms, 4, 8}, {40 * ms, 8, 8}}
	require.Equal(t, []Chunk{
		{Stdout, 0, []byte("out\n"), 10 * ms},
		{Stderr, 0, []byte("err\nERR\n"), 30 * ms},
		{Stdout, 4, []byte("OUT\n"), 40 * ms},
		{Stderr, 8, []byte("late"), -1},
	}, Interleave(order, []byte("out\nOUT\n"), 0, []byte("err\nERR\nlate"), 0))
	require.Equal(t, []Chunk{
		{Stderr, 6, []byte("R\n"), 30 * ms},
		{Stdout, 6, []byte("T\n"), 40 * ms},
	}, Interleave(order, []byte("T\n"), 6, []byte("R\n"), 6), "pages from the middle")
	require.Equal(t, []Chunk{{Stdout, 0, []byte("a"), -1}, {Stderr, 0, []byte("b"), -1}}, Interleave(nil, []byte("a"), 0, []byte("b"), 0))
	require.Empty(t, Interleave(order, nil, 0, nil, 0))
}

func TestTrouble(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"kernel NVRM: Xid (PCI:0000:08:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.": "Xid 79 on GPU 0000:08:00: the GPU has fallen off the bus: the machine is broken (pid='<unknown>', name=<unknown>, GPU has fallen off the bus.)",
		"kernel NVRM: Xid (PCI:0000:08:00): 31, pid=4242, name=python3":                                       "Xid 31 on GPU 0000:08:00: the program accessed GPU memory that is not its own (pid=4242, name=python3)",
		"kernel NVRM: Xid (0000:08:00): 79":                                                                   "Xid 79 on GPU 0000:08:00: the GPU has fallen off the bus: the machine is broken",
		"kernel NVRM: Xid (PCI:0000:08:00): 999, something new":                                               "Xid 999 on GPU 0000:08:00: something new",
		"kernel NVRM: Xid something else":                                                                     "NVRM: Xid something else",
		"kernel Out of memory: Killed process 4242 (python3) total-vm:1kB":                                    "killed for lack of memory: process 4242 (python3)",
		"kernel Memory cgroup out of memory: Killed process 7 (a b)":                                          "killed for lack of memory: process 7 (a b)",
		"stderr CUDA out of memory. Tried to allocate 20.00 GiB.":                                             "CUDA out of memory. Tried to allocate 20.00 GiB.",
		"": "",
	} {
		require.Equal(t, want, trouble(line))
	}
}

func TestCutSnippets(t *testing.T) {
	t.Parallel()
	const text = "zero\none\ntwo\nthree\nfour\nfive\n"
	for name, tt := range map[string]struct {
		matches []int64
		lines   int
		want    []Snippet
	}{
		"One":      {[]int64{110}, 0, []Snippet{{109, []byte("two\n"), []int64{110}}}},
		"Context":  {[]int64{109}, 1, []Snippet{{105, []byte("one\ntwo\nthree\n"), []int64{109}}}},
		"Edges":    {[]int64{100, 128}, 9, []Snippet{{100, []byte(text), []int64{100, 128}}}},
		"Apart":    {[]int64{100, 119}, 0, []Snippet{{100, []byte("zero\n"), []int64{100}}, {119, []byte("four\n"), []int64{119}}}},
		"Touching": {[]int64{100, 105}, 0, []Snippet{{100, []byte("zero\none\n"), []int64{100, 105}}}},
		"SameLine": {[]int64{113, 115}, 0, []Snippet{{113, []byte("three\n"), []int64{113, 115}}}},
		"LineEnd":  {[]int64{104}, 0, []Snippet{{100, []byte("zero\n"), []int64{104}}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, cutSnippets(100, []byte(text), tt.matches, tt.lines))
		})
	}
}

func TestSpan(t *testing.T) {
	t.Parallel()
	order := []Written{{Stdout: 4}, {Stdout: 4, Stderr: 4}, {Stdout: 9, Stderr: 4}}
	last := Written{Stdout: 9, Stderr: 6}
	for name, tt := range map[string]struct {
		last          Written
		over          bool
		offset, limit int64
		want          piece
	}{
		"All":           {last, true, 0, 100, piece{Written{}, Written{Stdout: 9, Stderr: 6}}},
		"Running":       {last, false, 0, 100, piece{Written{}, Written{Stdout: 9, Stderr: 4}}},
		"OneStream":     {last, true, 5, 2, piece{Written{Stdout: 4, Stderr: 1}, Written{Stderr: 2}}},
		"AcrossBoth":    {last, true, 6, 5, piece{Written{Stdout: 4, Stderr: 2}, Written{Stdout: 3, Stderr: 2}}},
		"BehindAllNote": {last, true, 13, 100, piece{Written{Stdout: 9, Stderr: 4}, Written{Stderr: 2}}},
		"BehindTheEnd":  {last, true, 99, 100, piece{Written{Stdout: 9, Stderr: 6}, Written{}}},
		"CutAtItsLimit": {Written{Stdout: 2, Stderr: 6}, true, 0, 100, piece{Written{}, Written{Stdout: 2, Stderr: 6}}},
	} {
		require.Equal(t, tt.want, span(order, tt.last, tt.over, tt.offset, tt.limit), name)
	}
}
