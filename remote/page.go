package remote

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
)

// Stream is one of the two that a job writes.
type Stream string

// The streams.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

const (
	defaultPage = 32 << 10
	mostPage    = 4 << 20
)

// Page is a piece of a stream, in exact bytes.
type Page struct {
	Data       []byte
	Offset     int64 // of the first byte of Data
	NextOffset int64 // where to go on
	Size       int64 // of the stream when it was read
	// EOF says that the job is over and Data reaches the end. A daemon that the job left behind may still write more.
	EOF bool
	Job Job // as it was just before the size was read
}

// Page reads at most limit bytes (0: 32 KiB; at most 4 MiB) of a stream from offset; a negative offset counts from
// the end, an offset behind the end is the end. When there is nothing to read yet and the job runs, it waits for at
// most wait.
func (p *Pool) Page(ctx context.Context, t Target, jobID string, s Stream, offset int64, limit int, wait time.Duration) (Page, error) {
	if err := validateJobID(jobID); err != nil {
		return Page{}, err
	}
	if s != Stdout && s != Stderr {
		return Page{}, invalid("stream %q: stdout or stderr", s)
	}
	if limit == 0 {
		limit = defaultPage
	}
	if limit < 0 || limit > mostPage {
		return Page{}, invalid("limit %d: 1 to %d bytes", limit, mostPage)
	}
	offset = clamp(offset)
	until := p.config.Now().Add(wait)
	var page Page
	err := p.with(ctx, t, func(n *conn) error {
		for tries := 0; ; tries++ {
			left := until.Sub(p.config.Now())
			r, err := n.call(ctx, request{
				script: jobScript,
				args: []string{"page", jobID, string(s), strconv.FormatInt(offset, 10), strconv.Itoa(limit),
					strconv.FormatInt(centiseconds(left), 10)},
				data: int64(limit),
				hold: true,
			})
			if err != nil {
				return err
			}
			if page, err = parsePage(r); !errors.Is(err, errShrank) || tries == 3 {
				return err
			}
		}
	})
	if err != nil {
		return Page{}, fmt.Errorf("%s of job %s: %w", s, jobID, err)
	}
	return page, nil
}

// clamp: a shell's arithmetic is signed 64 bits, and it negates.
func clamp(offset int64) int64 { return max(offset, -math.MaxInt64) }

func parsePage(r reply) (Page, error) {
	job, err := parseJob(r)
	if err != nil {
		return Page{}, err
	}
	numbers, err := r.numbers("page", 3)
	if err != nil {
		return Page{}, err
	}
	offset, count, size := numbers[0], numbers[1], numbers[2]
	if int64(len(r.data)) != count {
		return Page{}, errShrank
	}
	next := offset + count
	return Page{Data: r.data, Offset: offset, NextOffset: next, Size: size, EOF: job.Over() && next >= size, Job: job}, nil
}
