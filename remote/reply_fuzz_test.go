package remote

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Whatever a machine answers, it is understood or refused as [ErrMachine], and what is understood makes sense.
func FuzzReplies(f *testing.F) {
	const job = "job job-1\nstate exited\ncode 137\nreason oom\nstarted 1.5\nended 2.5\nstdout 9\nstderr 0\nwrote 2\ncpu 12\n" +
		"memory 4096\nhang 7\ncapped yes\ntrouble kernel NVRM: Xid (PCI:0:8): 79, x\ncommand \"x\"\n"
	f.Add(job + "found 0 9 1\nmatch 2\nmatch 4\nwindow 0 9\n\none\ntwo\n!")
	f.Add(job + "found 5 9 0\nmatch 8\nmatch 6\nwindow 5 4\n\nfour")
	f.Add("now 100\nsamples 2 50 60\nbusy 2 1 60\ncpu 1 2\nmemory 3 4 5 5\ndisk 6 7\ngpu 0 1 2 3 4 5 6 7 8\n\n")
	f.Add("by torch\n\ngpu 0 computes\ngpu 1 fails: x\n\x1e0")
	f.Fuzz(func(t *testing.T, text string) {
		r, ok := parseReply([]byte(replyMark + text))
		if !ok {
			return
		}
		if found, err := parseFound(r, Search{Pattern: "x", Lines: 1}); err != nil {
			require.True(t, errors.Is(err, ErrMachine), err)
		} else {
			for _, s := range found.Snippets {
				require.NotEmpty(t, s.Matches)
				for _, m := range s.Matches {
					require.True(t, m >= s.Offset && m < s.Offset+int64(len(s.Data)), "%+v", s)
				}
			}
			require.True(t, found.NextOffset >= 0)
			j := found.Job
			require.True(t, j.CPUTime >= Unknown && j.PeakMemoryMiB >= Unknown && j.Hanging >= 0 && j.Hanging < 1<<62)
		}
		if s, err := parseSamples(r); err != nil {
			require.True(t, errors.Is(err, ErrMachine), err)
		} else {
			require.True(t, s.GPUBusyPercent >= Unknown && s.GPUBusyPercent <= 100)
			require.True(t, s.SinceGPUBusy >= -1 && s.SinceGPUBusy < 200*365*24*time.Hour)
		}
		c := parseCUDA(r.get("by"), string(r.data), 1)
		require.Contains(t, []string{CUDAComputes, CUDAFails, CUDAUnknown}, c.Verdict)
		require.Equal(t, c.Verdict != CUDAComputes, c.Detail != "")
		parseOrder(text)
	})
}
