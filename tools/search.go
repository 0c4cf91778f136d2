package tools

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

const (
	// searchPause is the least time between two searches for the same pattern.
	searchPause = 500 * time.Millisecond
	// lineSought is how far back the beginning of an unfinished line is looked for.
	lineSought = 4000
)

// awaited finds a pattern, and waits until there is a match, the job has ended or
// the time is over.
func awaited(ctx context.Context, l Worker, in readIn, hidden *secrets) (output, error) {
	end := time.Now().Add(Wait(ctx, in.WaitSeconds))
	last, from := in.Offset < 0, in.Offset
	for {
		searched := time.Now()
		o, more, err := search(ctx, l, in, from, last, hidden)
		if err != nil || in.WaitSeconds == 0 || o.matches > 0 || more || o.job.Over() {
			return o, err
		}
		took := time.Since(searched) // and so will the next one
		left := func() time.Duration { return time.Until(end) - took }
		if left() <= 0 {
			return o, nil
		}
		if from < 0 {
			from = max(0, o.size+from)
		}
		from = max(from, unfinished(ctx, l, in, o.size))
		p, _, err := l.Page(ctx, in.JobID, remote.Stream(in.Stream), o.size, smallestPage, left())
		if err != nil || !p.Job.Over() && p.NextOffset == p.Offset {
			o.job = jobOr(p.Job, o.job)
			return o, nil // what was found is known all the same
		}
		if pause := min(searchPause-time.Since(searched), left()); pause > 0 && !p.Job.Over() {
			if _, err := l.Job(ctx, in.JobID, pause); err != nil { // it waits, and no longer than the job lives
				return o, nil
			}
		}
	}
}

func jobOr(j, otherwise remote.Job) remote.Job {
	if j.ID == "" {
		return otherwise
	}
	return j
}

// unfinished is where the line begins that a stream of so many bytes ends in: what
// comes may make it match. Where that is not found near, it is 0.
func unfinished(ctx context.Context, l Worker, in readIn, size int64) int64 {
	at := max(0, size-lineSought)
	p, _, err := l.Page(ctx, in.JobID, remote.Stream(in.Stream), at, int(size-at), 0)
	if err != nil {
		return 0
	}
	return p.Offset + int64(bytes.LastIndexByte(p.Data, '\n')+1)
}

// search finds a pattern from an offset on, and shows each place below a line with its
// offset. more says that there was no time to look at everything.
func search(ctx context.Context, l Worker, in readIn, from int64, last bool, hidden *secrets) (o output, more bool, err error) {
	what := remote.Search{Pattern: in.Pattern, Offset: from, Last: last, Lines: in.ContextLines}
	f, owner, err := l.Search(ctx, in.JobID, remote.Stream(in.Stream), what)
	o = output{next: f.NextOffset, size: f.Size, job: f.Job, owner: owner, eof: f.Job.Over() && !f.More}
	if err != nil {
		return o, false, patternError(in.Pattern, err)
	}
	if what.Last { // what is shown is the end, and what is left out lies before it
		o.eof = f.Job.Over()
		f.Snippets = lastThatFit(f.Snippets, in.LimitBytes)
	}
	for i, s := range f.Snippets {
		text := place(s, hidden.mask(owner.ID, s.Data))
		if len(o.data)+len(text) > in.LimitBytes || heavy(append(o.data[:len(o.data):len(o.data)], text...), in.LimitBytes) {
			if i > 0 { // the rest is for the next call
				o.next, o.eof = s.Matches[0], false
				break
			}
			text = lightStart(wholeEnd(text[:min(len(text), in.LimitBytes)]), in.LimitBytes/4*5)
		}
		if i == 0 {
			o.offset = s.Offset
		}
		o.data, o.matches = append(onNewLine(o.data), text...), o.matches+len(s.Matches)
	}
	return o, f.More, nil
}

// patternError names the argument that the machine does not take.
func patternError(pattern string, err error) error {
	var e *lease.Error
	if !errors.As(err, &e) || !errors.Is(err, remote.ErrInvalid) {
		return err
	}
	named := *e
	named.Message = fmt.Sprintf("pattern %q is no extended regular expression (grep -E)", pattern)
	named.Next = `mend pattern and call again; \ before a special character, as in \( or \[, takes it as it stands`
	return &named
}

func place(s remote.Snippet, data []byte) []byte {
	return fmt.Appendf(nil, "[offset %d]\n%s", s.Offset, data)
}

// lastThatFit leaves out the first of them.
func lastThatFit(all []remote.Snippet, limit int) []remote.Snippet {
	for i := len(all) - 1; i >= 0; i-- {
		if limit -= len(place(all[i], all[i].Data)) + 1; limit < 0 {
			return all[min(i+1, len(all)-1):]
		}
	}
	return all
}
