package remote

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Written is how long a job's streams were at one moment.
type Written struct {
	After  time.Duration // since the job's start
	Stdout int64         // bytes
	Stderr int64
}

// Order tells when the streams of a job grew, oldest first. The machine looks at them 10 times a second in the first
// second, 4 times a second for ten minutes and then twice; a job that has been growing for a quarter of an hour gets a
// note a second, later one each 5 s. What was written between two looks has no order.
func (p *Pool) Order(ctx context.Context, t Target, jobID string) ([]Written, error) {
	if err := validateJobID(jobID); err != nil {
		return nil, err
	}
	var order []Written
	err := p.with(ctx, t, func(n *conn) error {
		r, err := n.call(ctx, request{script: jobScript, args: []string{"order", jobID}, data: 8 << 20})
		if err == nil {
			order = parseOrder(string(r.data))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("order of job %s: %w", jobID, err)
	}
	return order, nil
}

// parseOrder skips what makes no sense: the last line may be half written, and a job may truncate its own streams.
func parseOrder(text string) []Written {
	var order []Written
	var last Written
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 || !strings.HasSuffix(line, "\n") {
			continue
		}
		after, stdout, stderr := count(f[0]), count(f[1]), count(f[2])
		w := Written{After: time.Duration(after) * 10 * time.Millisecond, Stdout: stdout, Stderr: stderr}
		if after < 0 || stdout < last.Stdout || stderr < last.Stderr || w.After < last.After {
			continue
		}
		order, last = append(order, w), w
	}
	return order
}

// Chunk is a piece of a stream that was written at about the same time.
type Chunk struct {
	Stream Stream
	Offset int64
	Data   []byte
	After  time.Duration // since the job's start, at the latest; negative when the end of it is not known
}

// Interleave puts pieces of both streams, from the given offsets on, into the order in which they were written, as far
// as order tells. Of what was written between two looks stdout comes first. Neighbours of one stream are one chunk.
func Interleave(order []Written, stdout []byte, stdoutOffset int64, stderr []byte, stderrOffset int64) []Chunk {
	var out []Chunk
	take := func(s Stream, data []byte, offset *int64, upTo int64, after time.Duration) []byte {
		n := min(upTo-*offset, int64(len(data)))
		if n <= 0 {
			return data
		}
		if last := len(out) - 1; last >= 0 && out[last].Stream == s {
			out[last].Data = append(out[last].Data, data[:n]...)
			out[last].After = after
		} else {
			out = append(out, Chunk{Stream: s, Offset: *offset, Data: append([]byte(nil), data[:n]...), After: after})
		}
		*offset += n
		return data[n:]
	}
	for _, w := range order {
		stdout = take(Stdout, stdout, &stdoutOffset, w.Stdout, w.After)
		stderr = take(Stderr, stderr, &stderrOffset, w.Stderr, w.After)
	}
	take(Stdout, stdout, &stdoutOffset, 1<<62, -1)
	take(Stderr, stderr, &stderrOffset, 1<<62, -1)
	return out
}
