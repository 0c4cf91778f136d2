package tools

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
	"github.com/gpulease/gpulease/tools/testreport"
)

// testsOut is what the tests of a job have come to, by the report that it has
// printed.
type testsOut struct {
	Passed   int           `json:"passed"`
	Failed   int           `json:"failed"`
	Skipped  int           `json:"skipped"`
	Failures []testFailure `json:"first_failures,omitempty"`
	Partial  bool          `json:"partial,omitempty"` // the report breaks off, or is too long to be read whole
}

type testFailure struct {
	Name string `json:"name"`
	Text string `json:"text,omitempty"`
}

const (
	reportMost = 32 << 20 // bytes of output that are read for a report
	reportPage = 2 << 20
	reportHead = 4 << 10 // in which a file shows that it is one
	reportTime = 10 * time.Second
)

// testsOf sums up the test report on a job's stdout, nil where there is none. The
// excerpt is of its stdout.
func testsOf(ctx context.Context, l Worker, j lease.Job, e remote.Excerpt, hidden *secrets) *testsOut {
	if !j.Over() || !testreport.Looks(e.Head) && !testreport.Ends(e.Tail) {
		return nil
	}
	r := &testreport.Reader{}
	whole := e.Omitted() <= 0
	if whole {
		_, _ = r.Write(e.Head)
		_, _ = r.Write(e.Tail)
	} else {
		whole = readReport(ctx, l, j.ID, r)
	}
	s, ok := r.Summary()
	if !ok {
		return nil
	}
	out := &testsOut{}
	out.add(s, whole, func(text string) string { return string(hidden.mask(j.Lease.ID, []byte(text))) })
	return out
}

// add counts a report in, which was read whole or not.
func (o *testsOut) add(s testreport.Summary, whole bool, cover func(string) string) {
	o.Passed += s.Passed
	o.Failed += s.Failed
	o.Skipped += s.Skipped
	o.Partial = o.Partial || s.Partial || !whole
	for _, f := range s.Failures[:min(len(s.Failures), testreport.MaxFailures-len(o.Failures))] {
		o.Failures = append(o.Failures, testFailure{Name: valid(cover(f.Name)), Text: valid(cover(f.Text))})
	}
}

// readReport reads a job's whole stdout, and reports whether it came to its end.
func readReport(ctx context.Context, l Worker, jobID string, r *testreport.Reader) bool {
	ctx, cancel := context.WithTimeout(ctx, min(reportTime, Wait(ctx, int(reportTime/time.Second))))
	defer cancel()
	for offset := int64(0); offset < reportMost; {
		p, _, err := l.Page(ctx, jobID, remote.Stdout, offset, reportPage, 0)
		if err != nil || p.NextOffset <= offset {
			return err == nil && p.EOF
		}
		_, _ = r.Write(p.Data)
		if offset = p.NextOffset; p.EOF {
			return true
		}
	}
	return false
}

// testsFetched sums up the test reports among files that have come home below dir, nil where there is none.
func testsFetched(ctx context.Context, dir string, files []remote.Fetched, cover func(string) string) *testsOut {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil
	}
	defer root.Close()
	var out *testsOut
	left := int64(reportMost)
	for _, f := range files {
		if ext := strings.ToLower(path.Ext(f.Path)); ext != ".xml" && ext != ".json" && ext != ".jsonl" {
			continue
		}
		if left <= 0 || ctx.Err() != nil {
			break
		}
		s, read, whole, ok := reportIn(root, f, left)
		left -= read
		if !ok {
			continue
		}
		if out == nil {
			out = &testsOut{}
		}
		out.add(s, whole, cover)
	}
	return out
}

// reportIn sums up the report in a file of at most so many bytes, and says how many were read and whether those were all.
func reportIn(root *os.Root, f remote.Fetched, most int64) (s testreport.Summary, read int64, whole, ok bool) {
	name := filepath.FromSlash(f.Path)
	// What is not a file of ours any more could be a pipe that nobody writes to.
	if is, err := root.Lstat(name); err != nil || !is.Mode().IsRegular() {
		return s, 0, false, false
	}
	file, err := root.Open(name)
	if err != nil {
		return s, 0, false, false
	}
	defer file.Close()
	head := make([]byte, reportHead)
	n, err := io.ReadFull(file, head)
	if head = head[:n]; !testreport.Looks(head) {
		return s, int64(n), false, false
	}
	r := &testreport.Reader{}
	_, _ = r.Write(head)
	read = int64(n)
	if whole = err != nil; !whole { // there is more than the head
		rest, err := io.Copy(r, io.LimitReader(file, most-read))
		read += rest
		whole = err == nil && read >= f.Bytes
	}
	s, ok = r.Summary()
	return s, read, whole, ok
}

// line is the tests for people.
func (o *testsOut) line() string {
	if o == nil {
		return ""
	}
	text := fmt.Sprintf("\ntests: %d passed, %d failed, %d skipped", o.Passed, o.Failed, o.Skipped)
	if o.Partial {
		text += " (of a report that is not whole)"
	}
	for _, f := range o.Failures {
		text += "\nfailed: " + f.Name
		if f.Text != "" {
			text += ": " + strings.ReplaceAll(f.Text, "\n", "\n  ")
		}
	}
	return text
}
