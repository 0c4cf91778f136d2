package tools_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
	"github.com/gpulease/gpulease/tools"
)

// log is the growing output of a job that may end.
type log struct {
	mu       sync.Mutex
	written  string
	over     bool
	searches int
}

func (g *log) add(text string, over bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.written, g.over = g.written+text, over
}

func (g *log) now() (string, remote.Job) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over {
		return g.written, exited(0)
	}
	return g.written, running()
}

// page answers as the machine does: when there is something behind offset, when the job has ended or when the wait is over.
func (g *log) page(_ remote.Stream, offset int64, limit int, wait time.Duration) (remote.Page, error) {
	for end := time.Now().Add(wait); ; time.Sleep(20 * time.Millisecond) {
		all, job := g.now()
		size := int64(len(all))
		if offset < size || job.Over() || !time.Now().Before(end) {
			next := min(size, offset+int64(limit))
			return remote.Page{Data: []byte(all[offset:next]), Offset: offset, NextOffset: next, Size: size, EOF: job.Over() && next == size, Job: job}, nil
		}
	}
}

// search finds a text, where it looks.
func (g *log) search(_ remote.Stream, what remote.Search) (remote.Found, error) {
	all, job := g.now()
	g.searches++
	size := int64(len(all))
	from := what.Offset
	if from < 0 {
		from = max(0, size+from)
	}
	f := remote.Found{NextOffset: size, Size: size, Job: job}
	if i := strings.Index(all[from:], what.Pattern); i >= 0 {
		at := from + int64(i)
		f.Snippets = []remote.Snippet{{Offset: at, Data: []byte(what.Pattern), Matches: []int64{at}}}
	}
	return f, nil
}

func (g *log) desk() *slowDesk {
	return &slowDesk{desk: &desk{row: ready(), looks: []remote.Job{running()}, page: g.page, search: g.search}}
}

func TestAPatternIsWaitedFor(t *testing.T) {
	for name, c := range map[string]struct {
		write func(g *log)
		args  string
		took  time.Duration // about
		found bool
		eof   bool
	}{
		"there already": {func(g *log) { g.add("loss 1\ndone\n", false) }, `"wait_seconds":40`, 0, true, false},
		"no wait":       {func(*log) {}, `"wait_seconds":0`, 0, false, false},
		"comes after other lines, in two halves": {func(g *log) {
			for i := range 100 {
				g.add(fmt.Sprintf("loss %d\n", i), false)
				time.Sleep(100 * time.Millisecond)
			}
			g.add("do", false)
			time.Sleep(3 * time.Second)
			g.add("ne\n", false)
		}, `"wait_seconds":40`, 13 * time.Second, true, false},
		"comes behind an offset from the end": {func(g *log) {
			time.Sleep(5 * time.Second)
			g.add("done\n", false)
		}, `"wait_seconds":40,"offset":-3`, 5 * time.Second, true, false},
		"the job ends with it": {func(g *log) {
			time.Sleep(5 * time.Second)
			g.add("done\n", true)
		}, `"wait_seconds":40`, 5 * time.Second, true, true},
		"the job ends without it": {func(g *log) {
			time.Sleep(5 * time.Second)
			g.add("failed\n", true)
		}, `"wait_seconds":40`, 5 * time.Second, false, true},
		"the time is over": {func(g *log) {
			for range 30 {
				time.Sleep(time.Second)
				g.add("loss\n", false)
			}
		}, `"wait_seconds":10`, 10 * time.Second, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &log{written: "start\n"}
				if c.took == 0 {
					c.write(g)
				} else {
					go c.write(g)
				}
				began := time.Now()
				r, err := use(t, tools.Deps{Leases: g.desk()}, "read_output", `{"job_id":"`+jobID+`","pattern":"done",`+c.args+`}`)
				require.NoError(t, err)
				got := fields(t, r)
				require.InDelta(t, c.took.Seconds(), time.Since(began).Seconds(), 0.7)
				require.Equal(t, c.found, got["matches"] == 1.0, "%v", got)
				require.Equal(t, c.eof, got["eof"])
				require.LessOrEqual(t, g.searches, int(2*c.took.Seconds())+3)
				if !c.found && !c.eof {
					require.Contains(t, got["next"], "the same pattern and wait_seconds 40 to wait for it")
				}
				time.Sleep(time.Minute) // the writer ends
			})
		})
	}
}

// A wrong expression is said to be the pattern's, with what grep has against it.
func TestAPatternThatIsNone(t *testing.T) {
	cause := fmt.Errorf("search stdout of job x: %w: grep: Unmatched ( or \\(", remote.ErrInvalid)
	d := &desk{row: ready(), search: func(remote.Stream, remote.Search) (remote.Found, error) {
		return remote.Found{}, &lease.Error{Code: lease.CodeInvalidInput, Message: "search the job's output: it cannot be done like this", Why: cause.Error(), Err: cause}
	}}
	text := failed(t, d, "read_output", `{"job_id":"`+jobID+`","pattern":"loss (","wait_seconds":5}`)
	require.Contains(t, text, `error invalid_input: pattern "loss (" is no extended regular expression (grep -E)`)
	require.Contains(t, text, `grep: Unmatched ( or \(`)
	require.Contains(t, text, "next: mend pattern and call again")
}
