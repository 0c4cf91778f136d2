package remote

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// Mixed is a piece of both streams of a job together, in the order in which they were written. Its offsets count the
// bytes of both.
type Mixed struct {
	Chunks     []Chunk
	Offset     int64 // of the first byte
	NextOffset int64 // where to go on
	// Size is that of both streams. While the job runs it is what has been noted of them, which is behind by what was
	// written since the last look, see [Pool.Order].
	Size int64
	EOF  bool // as in [Page]
	Job  Job
}

// Mixed reads as [Pool.Page] does, of both streams. It takes two round trips.
func (p *Pool) Mixed(ctx context.Context, t Target, jobID string, offset int64, limit int, wait time.Duration) (Mixed, error) {
	if err := validateJobID(jobID); err != nil {
		return Mixed{}, err
	}
	if limit == 0 {
		limit = defaultPage
	}
	if limit < 0 || limit > mostPage {
		return Mixed{}, invalid("limit %d: 1 to %d bytes", limit, mostPage)
	}
	m, order, err := p.mixedOrder(ctx, t, jobID, clamp(offset), wait)
	if err != nil {
		return Mixed{}, fmt.Errorf("streams of job %s: %w", jobID, err)
	}
	last := Written{Stdout: m.Job.StdoutBytes, Stderr: m.Job.StderrBytes}
	s := span(order, last, m.Job.Over(), m.Offset, int64(limit))
	var parts [2]Page
	read := func(i int, stream Stream, from, count int64) func(context.Context) error {
		return func(ctx context.Context) (err error) {
			if count > 0 {
				parts[i], err = p.Page(ctx, t, jobID, stream, from, int(count), 0)
			}
			return err
		}
	}
	if err := together(ctx, read(0, Stdout, s.from.Stdout, s.count.Stdout), read(1, Stderr, s.from.Stderr, s.count.Stderr)); err != nil {
		return Mixed{}, err
	}
	m.Chunks = Interleave(order, parts[0].Data, s.from.Stdout, parts[1].Data, s.from.Stderr)
	m.NextOffset = m.Offset + s.count.Stdout + s.count.Stderr
	m.EOF = m.Job.Over() && m.NextOffset >= m.Size
	return m, nil
}

func (p *Pool) mixedOrder(ctx context.Context, t Target, jobID string, offset int64, wait time.Duration) (m Mixed, order []Written, err error) {
	until := p.config.Now().Add(wait)
	err = p.with(ctx, t, func(n *conn) error {
		left := until.Sub(p.config.Now())
		r, err := n.call(ctx, request{
			script: jobScript, hold: true, data: 8 << 20,
			args: []string{"page", jobID, "both", strconv.FormatInt(offset, 10), "0", strconv.FormatInt(centiseconds(left), 10)},
		})
		if err != nil {
			return err
		}
		if m.Job, err = parseJob(r); err != nil {
			return err
		}
		numbers, err := r.numbers("page", 3)
		if err != nil {
			return err
		}
		m.Offset, m.Size, order = numbers[0], numbers[2], parseOrder(string(r.data))
		return nil
	})
	return m, order, err
}

// piece is a part of each stream.
type piece struct{ from, count Written }

// span is which parts of the streams are limit bytes of both together from offset on. What is behind the last note
// belongs to them only when the streams have ended, at last.
func span(order []Written, last Written, over bool, offset, limit int64) piece {
	var s piece
	var at Written
	pos := int64(0)
	take := func(size int64, from, count *int64) {
		skipped := min(max(offset-pos, 0), size)
		taken := min(size-skipped, limit)
		*from, *count = *from+skipped, *count+taken
		pos, limit = pos+size, limit-taken
	}
	if over {
		order = append(order[:len(order):len(order)], last)
	}
	for _, w := range order {
		// A stream that was cut at its limit is shorter than it once was.
		w.Stdout, w.Stderr = max(min(w.Stdout, last.Stdout), at.Stdout), max(min(w.Stderr, last.Stderr), at.Stderr)
		take(w.Stdout-at.Stdout, &s.from.Stdout, &s.count.Stdout)
		take(w.Stderr-at.Stderr, &s.from.Stderr, &s.count.Stderr)
		at = w
	}
	return s
}
