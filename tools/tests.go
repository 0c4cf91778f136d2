package tools

import (
	"context"
	"fmt"
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
	out := &testsOut{Passed: s.Passed, Failed: s.Failed, Skipped: s.Skipped, Partial: s.Partial || !whole}
	cover := func(text string) string { return valid(string(hidden.mask(j.Lease.ID, []byte(text)))) }
	for _, f := range s.Failures {
		out.Failures = append(out.Failures, testFailure{Name: cover(f.Name), Text: cover(f.Text)})
	}
	return out
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
