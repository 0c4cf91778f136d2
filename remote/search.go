package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Search says what to look for in a stream of a job.
type Search struct {
	// Pattern is a POSIX extended regular expression, as grep -E takes it, matched byte by byte within lines.
	Pattern    string
	Literal    bool  // Pattern stands for itself
	IgnoreCase bool  // of ASCII letters
	Offset     int64 // first byte to look at; negative counts from the end
	Matches    int   // most matches to return; 0 is 20, at most 100
	Last       bool  // the last matches, not the first
	Lines      int   // lines to show before and after each match; 0 to 20
}

// Found is what a [Search] has found.
type Found struct {
	Snippets []Snippet
	// More says that there may be further matches: with Last before those shown, else behind NextOffset.
	More       bool
	NextOffset int64 // where to go on
	Size       int64 // of the stream when it was read
	Job        Job   // as it was just before the size was read
}

// Snippet is a piece of a stream, in exact bytes, with at least one match in it. It is whole lines, or less of those
// that are longer than a few KiB.
type Snippet struct {
	Offset  int64 // of the first byte of Data
	Data    []byte
	Matches []int64 // offsets in the stream at which matches begin
}

const (
	defaultMatches = 20
	mostMatches    = 100
	mostLines      = 20
	searchTime     = 20 * time.Second // as long as job.sh lets grep work; 2 GiB take less
)

func (s Search) validate() error {
	switch {
	case s.Pattern == "":
		return invalid("empty pattern")
	case len(s.Pattern) > 4<<10:
		return invalid("a pattern of %d bytes; at most %d", len(s.Pattern), 4<<10)
	case strings.ContainsAny(s.Pattern, "\n\x00"):
		return invalid("a line end or NUL in the pattern: it is matched within lines")
	case s.Matches < 0 || s.Matches > mostMatches:
		return invalid("%d matches; 1 to %d", s.Matches, mostMatches)
	case s.Lines < 0 || s.Lines > mostLines:
		return invalid("%d lines around a match; 0 to %d", s.Lines, mostLines)
	}
	return nil
}

// around is how many bytes before and after a match the machine sends.
func (s Search) around() int64 { return min(int64(1+s.Lines)<<10, 8<<10) }

// Search looks for a pattern on the machine, for at most 20 s. A pattern that grep refuses is [ErrInvalid].
func (p *Pool) Search(ctx context.Context, t Target, jobID string, s Stream, what Search) (Found, error) {
	if err := validateJobID(jobID); err != nil {
		return Found{}, err
	}
	if s != Stdout && s != Stderr {
		return Found{}, invalid("stream %q: stdout or stderr", s)
	}
	if err := what.validate(); err != nil {
		return Found{}, err
	}
	if what.Matches == 0 {
		what.Matches = defaultMatches
	}
	how, last := "-E", "no"
	if what.Literal {
		how = "-F"
	}
	if what.IgnoreCase {
		how += "i"
	}
	if what.Last {
		last = "yes"
	}
	args := []string{
		"find", jobID, string(s), strconv.FormatInt(clamp(what.Offset), 10), strconv.Itoa(what.Matches), last,
		strconv.FormatInt(what.around(), 10), how, what.Pattern,
	}
	var found Found
	err := p.with(ctx, t, func(n *conn) error {
		for tries := 0; ; tries++ {
			r, err := n.call(ctx, request{script: jobScript, args: args, data: 2 * what.around() * int64(what.Matches)})
			if err != nil {
				return err
			}
			if found, err = parseFound(r, what); !errors.Is(err, errShrank) || tries == 3 {
				return err
			}
		}
	})
	if err != nil {
		return Found{}, fmt.Errorf("search %s of job %s: %w", s, jobID, err)
	}
	return found, nil
}

func parseFound(r reply, what Search) (Found, error) {
	job, err := parseJob(r)
	if err != nil {
		return Found{}, err
	}
	numbers, err := r.numbers("found", 3)
	if err != nil {
		return Found{}, err
	}
	f := Found{Job: job, NextOffset: numbers[1], Size: numbers[1], More: numbers[2] != 0}
	data := r.data
	var matches []int64
	for _, line := range r.fields {
		one := reply{fields: []field{line}}
		switch line.key {
		case "match":
			m, err := one.numbers("match", 1)
			if err != nil {
				return Found{}, err
			}
			if n := len(matches); n > 0 && m[0] < matches[n-1] {
				return Found{}, fmt.Errorf("%w: matches out of order", ErrMachine)
			}
			matches = append(matches, m[0])
		case "window":
			w, err := one.numbers("window", 2)
			if err != nil {
				return Found{}, err
			}
			begin, size := w[0], w[1]
			if int64(len(data)) < size {
				return Found{}, errShrank
			}
			in := 0
			for in < len(matches) && matches[in] >= begin && matches[in] < begin+size {
				in++
			}
			f.Snippets = append(f.Snippets, cutSnippets(begin, data[:size:size], matches[:in], what.Lines)...)
			data, matches = data[size:], matches[in:]
		}
	}
	if len(matches) > 0 {
		return Found{}, fmt.Errorf("%w: a match outside the bytes sent", ErrMachine)
	}
	if f.More && !what.Last && len(f.Snippets) > 0 {
		f.NextOffset = f.Snippets[len(f.Snippets)-1].lineAfter()
	}
	if f.More && len(f.Snippets) == 0 {
		f.NextOffset = numbers[0] // it took too long, and nothing is known
	}
	return f, nil
}

// cutSnippets cuts the bytes around matches to the lines that were asked for. Those that touch become one.
func cutSnippets(begin int64, data []byte, matches []int64, lines int) []Snippet {
	var out []Snippet
	for _, m := range matches {
		at := int(m - begin)
		lo, hi := lineStart(data, at, lines), lineEnd(data, at, lines)
		if n := len(out); n > 0 {
			last := &out[n-1]
			if end := int(last.Offset-begin) + len(last.Data); lo <= end {
				last.Data = data[last.Offset-begin : max(hi, end) : max(hi, end)]
				last.Matches = append(last.Matches, m)
				continue
			}
		}
		out = append(out, Snippet{Offset: begin + int64(lo), Data: data[lo:hi:hi], Matches: []int64{m}})
	}
	return out
}

// lineStart is where the line begins that is so many lines before the one with data[at].
func lineStart(data []byte, at, lines int) int {
	for ; ; lines-- {
		at = bytes.LastIndexByte(data[:at], '\n')
		if at < 0 {
			return 0
		}
		if lines == 0 {
			return at + 1
		}
	}
}

// lineEnd is where the line ends, with its line end, that is so many lines after the one with data[at].
func lineEnd(data []byte, at, lines int) int {
	for ; ; lines-- {
		i := bytes.IndexByte(data[at:], '\n')
		if i < 0 {
			return len(data)
		}
		at += i + 1
		if lines == 0 {
			return at
		}
	}
}

// lineAfter is where the line after that with the last match begins, or where the snippet ends.
func (s Snippet) lineAfter() int64 {
	last := int(s.Matches[len(s.Matches)-1] - s.Offset)
	return s.Offset + int64(lineEnd(s.Data, last, 0))
}
