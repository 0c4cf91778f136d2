package remote

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Excerpt is the beginning and the end of a stream, in exact bytes. When the whole fits, Head is all of it.
type Excerpt struct {
	Head []byte
	Tail []byte // what ends at Size; never overlaps Head
	Size int64  // of the stream when it was read
}

// Omitted is the number of bytes between Head and Tail.
func (e Excerpt) Omitted() int64 { return e.Size - int64(len(e.Head)) - int64(len(e.Tail)) }

const mostExcerpt = 4 << 20

// Output returns head and tail of both streams in one round trip. A stream that is no longer than headBytes and
// tailBytes together comes whole. Each of the two is at most 4 MiB.
func (p *Pool) Output(ctx context.Context, t Target, jobID string, headBytes, tailBytes int) (stdout, stderr Excerpt, err error) {
	if err := validateJobID(jobID); err != nil {
		return Excerpt{}, Excerpt{}, err
	}
	_, stdout, stderr, err = p.excerpts(ctx, t, "show", jobID, nil, 0, headBytes, tailBytes)
	if err != nil {
		return Excerpt{}, Excerpt{}, fmt.Errorf("output of job %s: %w", jobID, err)
	}
	return stdout, stderr, nil
}

// excerpts is the call behind Start, Run, Job and Output. A command is what start sends.
func (p *Pool) excerpts(ctx context.Context, t Target, verb, jobID string, c *Command, wait time.Duration, head, tail int) (Job, Excerpt, Excerpt, error) {
	var job Job
	var stdout, stderr Excerpt
	if head < 0 || tail < 0 || head > mostExcerpt || tail > mostExcerpt {
		return job, stdout, stderr, invalid("head %d and tail %d: 0 to %d bytes", head, tail, mostExcerpt)
	}
	until := p.config.Now().Add(wait)
	begun := false // it is known to have been started
	err := p.with(ctx, t, func(n *conn) error {
		for tries := 0; ; tries++ {
			left := until.Sub(p.config.Now())
			ask := request{
				script: jobScript,
				args:   []string{verb, jobID, strconv.FormatInt(centiseconds(left), 10), strconv.Itoa(head), strconv.Itoa(tail)},
				data:   2 * (int64(head) + int64(tail)),
				wait:   left,
				hold:   verb == "show",
			}
			if c != nil {
				if err := c.pack(&ask); err != nil {
					return err
				}
			}
			r, err := n.call(ctx, ask)
			if errors.Is(err, errUnanswered) {
				verb, c, begun = "show", nil, true
				continue
			}
			if begun && errors.Is(err, ErrJobNotFound) {
				return ErrGone
			}
			if errors.Is(err, errLong) || ask.plain && errors.Is(err, ErrMachine) && !errors.Is(err, ErrGone) { // a login shell that takes no lines in quotes, say
				c.long = true
				continue
			}
			if err != nil {
				return err
			}
			if job, err = parseJob(r); err != nil {
				return err
			}
			stdout, stderr, err = parseExcerpts(r, job)
			if !errors.Is(err, errShrank) || tries == 3 {
				return err
			}
		}
	})
	return job, stdout, stderr, err
}

// errShrank says that a job truncated its own stream between the look at its size and the reading.
var errShrank = fmt.Errorf("%w: output shrank while it was read", ErrMachine)

func parseExcerpts(r reply, job Job) (stdout, stderr Excerpt, err error) {
	sizes, err := r.numbers("excerpt", 4)
	if err != nil {
		return stdout, stderr, err
	}
	var parts [4][]byte
	data := r.data
	for i, size := range sizes {
		if int64(len(data)) < size {
			return stdout, stderr, errShrank
		}
		parts[i], data = data[:size:size], data[size:]
	}
	stdout = Excerpt{Head: parts[0], Tail: parts[1], Size: job.StdoutBytes}
	stderr = Excerpt{Head: parts[2], Tail: parts[3], Size: job.StderrBytes}
	return stdout, stderr, nil
}
