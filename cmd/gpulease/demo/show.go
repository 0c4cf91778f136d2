package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/gpulease/gpulease/cmd/gpulease/agent"
)

// step is one call of the transcript.
type step struct {
	Step      string         `json:"step"`
	Tool      string         `json:"tool"`
	Arguments map[string]any `json:"arguments"`
	Answer    agent.Answer   `json:"answer"`
	Seconds   float64        `json:"seconds"`
}

// transcript is what --json writes.
type transcript struct {
	Simulated bool     `json:"simulated"` // always true: no step of the demo reaches a real cloud
	Version   string   `json:"version"`
	Project   string   `json:"project"`
	Command   string   `json:"command"`
	Steps     []step   `json:"steps"`
	Receipt   *receipt `json:"receipt,omitempty"`
	Failure   string   `json:"failure,omitempty"`
	Seconds   float64  `json:"seconds"`
}

// show writes what happens for people, or keeps it for the transcript.
type show struct {
	o       Options
	out     io.Writer
	began   time.Time
	t       transcript
	pending bool // a progress line is on the terminal
	last    string
}

func newShow(o Options, out io.Writer) *show {
	return &show{o: o, out: out, began: time.Now(), t: transcript{Simulated: true, Version: o.Version, Project: o.Project, Command: o.Command, Steps: []step{}}}
}

func (s *show) printf(format string, args ...any) {
	if s.o.JSON {
		return
	}
	if s.pending {
		fmt.Fprint(s.out, "\r\x1b[K")
		s.pending = false
	}
	s.last = ""
	fmt.Fprintf(s.out, format, args...)
}

func (s *show) head(title, call string) {
	s.printf("\n== %s\n   agent calls %s\n", title, call)
}

func (s *show) line(format string, args ...any) { s.printf("   "+format+"\n", args...) }

// progress says where a wait stands: in place on a terminal, as a line of its
// own in a pipe and then only when it changed.
func (s *show) progress(what string, since time.Time) {
	switch {
	case s.o.JSON:
	case s.o.Terminal:
		fmt.Fprintf(s.out, "\r\x1b[K   .. %s (%ds)", what, int(time.Since(since).Seconds()))
		s.pending = true
	case what != s.last:
		s.printf("   .. %s\n", what)
		s.last = what
	}
}

// quote shows text that a tool has returned, as the agent would see it.
func (s *show) quote(text string) {
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		s.printf("   | %s\n", strings.TrimRight(line, "\r"))
	}
}

// table shows rows with aligned columns; the second is of numbers.
func (s *show) table(rows [][4]string) {
	var w [3]int
	for _, r := range rows {
		for i := range w {
			w[i] = max(w[i], len(r[i]))
		}
	}
	for _, r := range rows {
		s.line("%-*s  %*s  %-*s  %s", w[0], r[0], w[1], r[1], w[2], r[2], r[3])
	}
}

// firstLines and lastLines are what is shown of a long output.
const (
	firstLines = 40
	lastLines  = 20
)

// cutter shows an output that comes in pieces: the first lines as they come, of
// the others only the last. The transcript has all of it.
type cutter struct {
	show  *show
	shown int
	left  int // lines that are neither shown nor among the last
	last  []string
	part  string // of a line whose end has not come yet
}

func (c *cutter) write(data string) {
	c.part += data
	for {
		line, rest, ok := strings.Cut(c.part, "\n")
		if !ok {
			return
		}
		c.part = rest
		c.line(line)
	}
}

func (c *cutter) line(line string) {
	if c.shown < firstLines {
		c.shown++
		c.show.quote(line + "\n")
		return
	}
	if c.last = append(c.last, line); len(c.last) > lastLines {
		c.last = c.last[1:]
		c.left++
	}
}

func (c *cutter) end() {
	if c.part != "" {
		c.line(c.part)
	}
	if c.left > 0 {
		c.show.line("| ... %d lines are left out ...", c.left)
	}
	for _, l := range c.last {
		c.show.quote(l + "\n")
	}
}

func (s *show) record(name, tool string, args map[string]any, a agent.Answer, began time.Time) {
	if args == nil {
		args = map[string]any{}
	}
	s.t.Steps = append(s.t.Steps, step{Step: name, Tool: tool, Arguments: args, Answer: a, Seconds: time.Since(began).Round(time.Millisecond).Seconds()})
}

func (s *show) finish(failure error) error {
	s.t.Seconds = time.Since(s.began).Round(time.Millisecond).Seconds()
	if !s.o.JSON {
		switch {
		case failure == nil:
			s.printf("\nNothing is left behind: no process, no simulated instance, no file. %.0f s in all.\n", s.t.Seconds)
		case failure.Error() == ErrInterrupted.Error(): // joined with another error, something may be left behind
			s.printf("\nInterrupted after %.0f s. Nothing is left behind: no process, no simulated instance, no file.\n", s.t.Seconds)
		default:
			s.printf("\nFAILED after %.0f s.\n", s.t.Seconds)
		}
		return nil
	}
	if failure != nil {
		s.t.Failure = failure.Error()
	}
	e := json.NewEncoder(s.out)
	e.SetIndent("", "  ")
	if err := e.Encode(s.t); err != nil {
		return fmt.Errorf("write the transcript: %w", err)
	}
	return nil
}
