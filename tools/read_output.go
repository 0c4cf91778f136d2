package tools

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

type readIn struct {
	JobID        string `json:"job_id"`
	Stream       string `json:"stream,omitempty" jsonschema:"enum=stdout,enum=stderr,enum=both,default=stdout" jsonschema_description:"both: in the order of writing, with offsets of their own."`
	Offset       int64  `json:"offset,omitempty" jsonschema_description:"First byte; negative counts from the end. Go on with next_offset."`
	LimitBytes   int    `json:"limit_bytes,omitempty" jsonschema:"minimum=16,maximum=40000,default=8000"`
	WaitSeconds  int    `json:"wait_seconds,omitempty" jsonschema:"minimum=0,maximum=45" jsonschema_description:"Wait so long for output after offset, or for a match."`
	Pattern      string `json:"pattern,omitempty" jsonschema:"maxLength=1000" jsonschema_description:"Only lines after offset that match this grep -E pattern; with a negative offset the last ones."`
	ContextLines int    `json:"context_lines,omitempty" jsonschema:"minimum=0,maximum=20"`
}

type readOut struct {
	jobFields
	Stream     string    `json:"stream"`
	Data       string    `json:"data"`
	Offset     int64     `json:"offset"`
	NextOffset int64     `json:"next_offset"`
	SizeBytes  int64     `json:"size_bytes"`
	EOF        bool      `json:"eof" jsonschema_description:"The job is over and this is the end."`
	Matches    int       `json:"matches,omitempty"`
	Tests      *testsOut `json:"tests,omitempty" jsonschema:"-"`
	leaseBeside
	advice
	sought string // where a pattern was looked for, if one was
}

// streamBoth is both streams together; [remote.Stream] has one.
const streamBoth = "both"

const (
	smallestPage = 16
	defaultPage  = 8000
	// gather is how long a wait for output goes on after the first of it, for a
	// program that prints line by line.
	gather = time.Second
)

// output is what a call has read.
type output struct {
	full               bool // an answer has no room for more, though it is less than was asked for
	data               []byte
	offset, next, size int64
	eof                bool
	matches            int
	job                remote.Job
	owner              lease.Lease
}

func readOutput(l interface {
	Reader
	Worker
}, hidden *secrets) Tool {
	return New(Def{
		Name:  "read_output",
		Title: "Read a job's output",
		Description: "Reads a page of a job's output by byte offset, or what matches a pattern, and the job's state and exit code. " +
			"With wait_seconds it waits for more. Works while the job runs and until its lease ends.",
		Annotations: Annotations{ReadOnly: true, Idempotent: true},
	}, func(ctx context.Context, in readIn) (readOut, error) {
		if in.Stream == "" {
			in.Stream = string(remote.Stdout)
		}
		if in.LimitBytes == 0 {
			in.LimitBytes = defaultPage
		}
		var o output
		var err error
		switch {
		case in.Pattern != "" && in.Stream == streamBoth:
			err = &lease.Error{Code: lease.CodeInvalidInput, Message: "a pattern is looked for in one stream", Next: "call read_output again with stream stdout or stderr"}
		case in.Pattern != "":
			o, err = awaited(ctx, l, in, hidden)
		default:
			o, err = gathered(ctx, l, in, hidden)
		}
		if err != nil {
			return readOut{}, ofLease(err, o.owner.ID)
		}
		s := status(ctx, l, o.owner)
		out := readOut{
			jobFields: fieldsOf(o.job), Stream: in.Stream, Data: valid(string(o.data)), Offset: o.offset, NextOffset: o.next, SizeBytes: o.size,
			EOF: o.eof, Matches: o.matches, leaseBeside: besideOf(s), sought: in.sought(),
		}
		out.advice = adviceOf(s, nextForPage(out, in, o.job.StderrBytes > 0))
		if o.eof && in.Pattern == "" && in.Stream != string(remote.Stderr) {
			out.Tests = testsAtEnd(ctx, l, o, hidden)
		}
		if !utf8.Valid(o.data) {
			out.Warnings = append(slices.Clone(out.Warnings), mendedWarning(in.Stream))
		}
		return out, nil
	})
}

// testsAtEnd sums up the tests for who has read a job to its end: it took longer
// than run_command waits.
func testsAtEnd(ctx context.Context, l Worker, o output, hidden *secrets) *testsOut {
	stdout, _, err := l.Output(ctx, o.job.ID, rawHead, rawTail)
	if err != nil {
		return nil
	}
	return testsOf(ctx, l, lease.Job{Lease: o.owner, Job: o.job}, stdout, hidden)
}

// gathered reads a page. When it has waited for it, or might have, it does not
// come back with a line or two while more is on its way.
func gathered(ctx context.Context, l Worker, in readIn, hidden *secrets) (output, error) {
	began := time.Now()
	o, err := page(ctx, l, in, Wait(ctx, in.WaitSeconds), hidden)
	left := min(gather, Wait(ctx, in.WaitSeconds)-time.Since(began))
	if err != nil || in.WaitSeconds == 0 || o.job.Over() || o.next == o.offset || o.full || o.next-o.offset >= int64(in.LimitBytes) || left <= 0 {
		return o, err
	}
	if _, err := l.Job(ctx, in.JobID, left); err != nil { // it waits, and no longer than the job lives
		return o, nil
	}
	in.Offset = o.offset
	if more, err := page(ctx, l, in, 0, hidden); err == nil {
		return more, nil
	}
	return o, nil
}

func page(ctx context.Context, l Worker, in readIn, wait time.Duration, hidden *secrets) (output, error) {
	if in.Stream == streamBoth {
		m, owner, err := l.Mixed(ctx, in.JobID, in.Offset, in.LimitBytes, wait)
		o := output{offset: m.Offset, next: m.NextOffset, size: m.Size, eof: m.EOF, job: m.Job, owner: owner}
		for _, c := range m.Chunks {
			o.data = named(o.data, c.Stream, hidden.mask(owner.ID, c.Data))
		}
		if in.LimitBytes > smallestPage && heavy(o.data, in.LimitBytes) {
			in.LimitBytes = max(in.LimitBytes/8, smallestPage)
			less, err := page(ctx, l, in, 0, hidden)
			less.full = true
			return less, err
		}
		return o, err
	}
	p, owner, err := l.Page(ctx, in.JobID, remote.Stream(in.Stream), in.Offset, in.LimitBytes, wait)
	p.Data = hidden.mask(owner.ID, p.Data)
	data, offset, next := wholeCharacters(p)
	full := heavy(data, in.LimitBytes)
	if full {
		light := lightStart(data, in.LimitBytes/4*5)
		data, next, p.EOF = light, next-int64(len(data)-len(light)), false
	}
	return output{data: data, offset: offset, next: next, full: full, size: p.Size, eof: p.EOF, job: p.Job, owner: owner}, err
}

// named appends a piece below a line that says which stream it is of.
func named(all []byte, stream remote.Stream, data []byte) []byte {
	return fmt.Appendf(onNewLine(all), "[%s]\n%s", stream, data)
}

func onNewLine(b []byte) []byte {
	if len(b) > 0 && !bytes.HasSuffix(b, []byte("\n")) {
		return append(b, '\n')
	}
	return b
}

// wholeCharacters leaves a character that the page's edge cuts in two to the
// page that has the rest of it, unless nothing would be left: then the reader
// would never get on.
func wholeCharacters(p remote.Page) (data []byte, offset, next int64) {
	data, offset, next = p.Data, p.Offset, p.NextOffset
	if offset > 0 {
		if whole := wholeStart(data); len(whole) > 0 {
			offset += int64(len(data) - len(whole))
			data = whole
		}
	}
	if !p.EOF {
		if whole := wholeEnd(data); len(whole) > 0 {
			next -= int64(len(data) - len(whole))
			data = whole
		}
	}
	return data, offset, next
}

func nextForPage(o readOut, in readIn, complained bool) step {
	text := fmt.Sprintf("read_output with job_id %q, stream %s", o.JobID, in.Stream)
	more := with{"job_id": o.JobID, "stream": in.Stream}
	switch {
	case in.Pattern != "" && o.Matches == 0 && !o.EOF:
		more["pattern"], more["offset"], more["wait_seconds"] = in.Pattern, in.Offset, 40
		return then("read_output", more, "%s, the same pattern and wait_seconds 40 to wait for it; without pattern it shows what is there", text)
	case in.Pattern != "" && o.Matches == 0:
		return then("read_output", more, "%s and without pattern shows what is there", text)
	case in.Pattern != "" && in.Offset < 0:
		return say("%s and an offset from data shows what is around a match", text)
	case o.EOF && o.ExitCode != nil && *o.ExitCode != 0 && in.Stream == string(remote.Stdout) && complained:
		return then("read_output", with{"job_id": o.JobID, "stream": "stderr", "offset": -4000}, "read_output with job_id %q, stream stderr and offset -4000 for its errors", o.JobID)
	case o.EOF && o.ExitCode != nil && *o.ExitCode != 0:
		return say("that was all; run_command to go on, stop_lease when you are done")
	case o.EOF:
		return then("stop_lease", with{"lease_id": o.LeaseID}, "that was all; stop_lease when you are done")
	}
	more["offset"] = o.NextOffset
	if in.Pattern != "" {
		more["pattern"] = in.Pattern
	}
	switch {
	case o.NextOffset < o.SizeBytes:
		return then("read_output", more, "%s and offset %d for more", text, o.NextOffset)
	default:
		more["wait_seconds"] = 40
		return then("read_output", more, "%s, offset %d and wait_seconds 40 for what comes", text, o.NextOffset)
	}
}

// sought is the part of the stream in which the pattern is looked for.
func (in readIn) sought() string {
	switch {
	case in.Pattern == "":
		return ""
	case in.Offset < 0:
		return fmt.Sprintf("the last %s of %s", plural(int(-in.Offset), "byte"), in.Stream)
	case in.Offset > 0:
		return fmt.Sprintf("%s from byte %d on", in.Stream, in.Offset)
	}
	return in.Stream
}

// Text is the job in a line and the page.
func (o readOut) Text() string {
	soFar := ""
	if !o.EOF {
		soFar = " so far"
	}
	switch {
	case o.Matches > 0:
		return fmt.Sprintf("%s; %s of %s\n%s", o.jobFields.line(), count(o.Matches, "match"), o.Stream, o.Data) + o.lines()
	case o.sought != "":
		return fmt.Sprintf("%s; no match in %s, which has %d bytes%s", o.jobFields.line(), o.sought, o.SizeBytes, soFar) + o.lines()
	}
	sep := "; "
	if o.Tests != nil {
		sep = "\n"
	}
	return fmt.Sprintf("%s%s%s bytes %d to %d of %d\n%s", o.jobFields.line()+o.Tests.line(), sep, o.Stream, o.Offset, o.NextOffset, o.SizeBytes, o.Data) + o.lines()
}

func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ses", n, thing)
}
