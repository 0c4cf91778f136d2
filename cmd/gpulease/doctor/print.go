package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// Print writes the report for people: a line a check, and below it what mends it.
func (r Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, l := range r.Lines {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", l.Finding, l.Class, l.Check, l.Text)
		if l.Mend != "" && l.Finding != OK {
			fmt.Fprintf(t, "\t\t\tmend: %s\n", l.Mend)
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	_, err := fmt.Fprintln(w, r.Summary())
	return err
}

// Summary is the report in a line.
func (r Report) Summary() string {
	text := fmt.Sprintf("%s, %s", count(r.Count(Fail), "failure"), count(r.Count(Warn), "warning"))
	if c, failed := r.Failed(); failed {
		text += fmt.Sprintf("; mend %s first (exit code %d)", c, r.ExitCode())
	}
	return text
}

// MarshalJSON writes the report as one object with version, at, finding (the
// worst), class (of the exit code; absent without a failure), exit_code and
// checks.
func (r Report) MarshalJSON() ([]byte, error) {
	worst := OK
	switch {
	case r.Count(Fail) > 0:
		worst = Fail
	case r.Count(Warn) > 0:
		worst = Warn
	}
	class, _ := r.Failed()
	lines := r.Lines
	if lines == nil {
		lines = []Line{}
	}
	return json.Marshal(struct {
		Version  int       `json:"version"`
		At       time.Time `json:"at"`
		Finding  Finding   `json:"finding"`
		Class    Class     `json:"class,omitempty"`
		ExitCode int       `json:"exit_code"`
		Checks   []Line    `json:"checks"`
	}{1, r.At.UTC().Truncate(time.Second), worst, class, r.ExitCode(), lines})
}
