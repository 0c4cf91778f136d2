package tools

import (
	"context"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/gpulease/gpulease/remote"
)

type readIn struct {
	JobID       string `json:"job_id"`
	Stream      string `json:"stream,omitempty" jsonschema:"enum=stdout,enum=stderr,default=stdout"`
	Offset      int64  `json:"offset,omitempty" jsonschema_description:"First byte; negative counts from the end. Go on with next_offset."`
	LimitBytes  int    `json:"limit_bytes,omitempty" jsonschema:"minimum=16,maximum=40000,default=8000"`
	WaitSeconds int    `json:"wait_seconds,omitempty" jsonschema:"minimum=0,maximum=45" jsonschema_description:"Wait so long for output after offset."`
}

type readOut struct {
	jobFields
	Stream     string `json:"stream"`
	Data       string `json:"data"`
	Offset     int64  `json:"offset"`
	NextOffset int64  `json:"next_offset"`
	SizeBytes  int64  `json:"size_bytes"`
	EOF        bool   `json:"eof" jsonschema_description:"The job is over and this is the end."`
	leaseBeside
	advice
}

const defaultPage = 8000

func readOutput(l interface {
	Reader
	Worker
}) Tool {
	return New(Def{
		Name:  "read_output",
		Title: "Read a job's output",
		Description: "Reads a page of a job's stdout or stderr by byte offset, and the job's state and exit code. " +
			"With wait_seconds it waits for more. Works while the job runs and until its lease ends.",
		Annotations: Annotations{ReadOnly: true, Idempotent: true},
	}, func(ctx context.Context, in readIn) (readOut, error) {
		if in.Stream == "" {
			in.Stream = string(remote.Stdout)
		}
		if in.LimitBytes == 0 {
			in.LimitBytes = defaultPage
		}
		p, owner, err := l.Page(ctx, in.JobID, remote.Stream(in.Stream), in.Offset, in.LimitBytes, Wait(ctx, in.WaitSeconds))
		if err != nil {
			return readOut{}, ofLease(err, owner.ID)
		}
		data, offset, next := wholeCharacters(p)
		if light := lightStart(data, in.LimitBytes); len(light) < len(data) {
			data, next, p.EOF = light, next-int64(len(data)-len(light)), false
		}
		s := status(ctx, l, owner)
		out := readOut{
			jobFields: fieldsOf(p.Job), Stream: in.Stream, Data: valid(string(data)), Offset: offset, NextOffset: next, SizeBytes: p.Size,
			EOF: p.EOF, leaseBeside: besideOf(s),
		}
		out.advice = adviceOf(s, nextForPage(out, in.Stream))
		if !utf8.Valid(data) {
			out.Warnings = append(slices.Clone(out.Warnings), mendedWarning(in.Stream))
		}
		return out, nil
	})
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

func nextForPage(o readOut, stream string) step {
	more := with{"job_id": o.JobID, "stream": stream, "offset": o.NextOffset}
	switch {
	case o.EOF && o.ExitCode != nil && *o.ExitCode != 0 && stream == string(remote.Stdout):
		return then("read_output", with{"job_id": o.JobID, "stream": "stderr", "offset": -4000}, "read_output with job_id %q, stream stderr and offset -4000 for its errors", o.JobID)
	case o.EOF:
		return then("stop_lease", with{"lease_id": o.LeaseID}, "that was all; stop_lease when you are done")
	case o.NextOffset < o.SizeBytes:
		return then("read_output", more, "read_output with job_id %q, stream %s and offset %d for more", o.JobID, stream, o.NextOffset)
	default:
		more["wait_seconds"] = 40
		return then("read_output", more, "read_output with job_id %q, stream %s, offset %d and wait_seconds 40 for what comes", o.JobID, stream, o.NextOffset)
	}
}

// Text is the job in a line and the page.
func (o readOut) Text() string {
	return fmt.Sprintf("%s; %s bytes %d to %d of %d\n%s", o.jobFields.line(), o.Stream, o.Offset, o.NextOffset, o.SizeBytes, o.Data) + o.lines()
}
