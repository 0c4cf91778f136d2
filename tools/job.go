package tools

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
)

// jobFields is where a job stands. Its state and reason are the job's; the
// lease's state is lease_state.
type jobFields struct {
	JobID           string   `json:"job_id"`
	State           string   `json:"state" jsonschema:"enum=running,enum=exited,enum=lost"`
	ExitCode        *int     `json:"exit_code,omitempty"`
	Signal          string   `json:"signal,omitempty"`
	Reason          string   `json:"reason,omitempty"`
	DurationSeconds *float64 `json:"duration_seconds,omitempty"`
}

// leaseBeside is the lease's standing in an answer about a job. What every answer
// about a lease has is not told again in the schemas of these: they are sent to
// the model with every request.
type leaseBeside struct {
	LeaseID     lease.ID      `json:"lease_id"`
	LeaseState  string        `json:"lease_state"`
	Price       *policy.Money `json:"price_usd_per_hour,omitempty" jsonschema:"-"`
	Cost        *policy.Money `json:"cost_usd,omitempty" jsonschema:"-"`
	Deadline    string        `json:"deadline,omitempty" jsonschema:"-"`
	MinutesLeft *int          `json:"minutes_left,omitempty" jsonschema:"-"`
	Guard       string        `json:"guard,omitempty" jsonschema:"-"`
}

func fieldsOf(j remote.Job) jobFields {
	f := jobFields{JobID: j.ID, State: j.State, ExitCode: exitCode(j), Signal: j.Signal, Reason: j.Reason}
	if !j.Ended.IsZero() && !j.Started.IsZero() {
		// Both by the machine's clock.
		d := max(0, j.Ended.Sub(j.Started)).Round(10 * time.Millisecond).Seconds()
		f.DurationSeconds = &d
	}
	return f
}

func besideOf(s lease.Status) leaseBeside {
	o := standingOf(s)
	return leaseBeside{
		LeaseID: o.LeaseID, LeaseState: o.State, Price: o.Price, Cost: o.Cost,
		Deadline: o.Deadline, MinutesLeft: o.MinutesLeft, Guard: o.Guard,
	}
}

// exitCode is nil for a job that has none: a missing code is not a zero.
func exitCode(j remote.Job) *int {
	if j.State != remote.Exited {
		return nil
	}
	return &j.ExitCode
}

// line is the job in one line, for people.
func (f jobFields) line() string {
	text := fmt.Sprintf("job %s: %s", f.JobID, f.State)
	if f.ExitCode != nil {
		text += fmt.Sprintf(", exit code %d", *f.ExitCode)
	}
	if f.Signal != "" {
		text += ", " + f.Signal
	}
	if f.Reason != "" && f.Reason != remote.ReasonExit {
		text += ", " + f.Reason
	}
	if f.DurationSeconds != nil {
		text += fmt.Sprintf(", %.1f s", *f.DurationSeconds)
	}
	return text
}

// shown is the part of a stream that an answer carries.
type shown struct {
	text      string
	truncated bool
	mended    bool // some bytes were no UTF-8 and are shown as U+FFFD
}

// excerpt makes text of the beginning and the end of a stream.
func excerpt(e remote.Excerpt, stream string) shown {
	omitted := e.Omitted()
	if omitted <= 0 {
		all := append(append([]byte{}, e.Head...), e.Tail...)
		return shown{text: valid(string(all)), mended: !utf8.Valid(all)}
	}
	// A cut through a character is our doing, not the stream's.
	head, tail := wholeEnd(e.Head), wholeStart(e.Tail)
	omitted += int64(len(e.Head) - len(head) + len(e.Tail) - len(tail))
	mark := fmt.Sprintf("\n[... %d bytes left out; read_output with stream %q and offset %d shows them ...]\n", omitted, stream, len(head))
	return shown{
		text:      valid(string(head)) + mark + valid(string(tail)),
		truncated: true,
		mended:    !utf8.Valid(head) || !utf8.Valid(tail),
	}
}

func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// wholeEnd drops the beginning of a character that the end of b cuts in two.
func wholeEnd(b []byte) []byte {
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-i:]) {
				return b[:len(b)-i]
			}
			break
		}
	}
	return b
}

// wholeStart drops the rest of a character that the start of b cuts in two.
func wholeStart(b []byte) []byte {
	for i := 0; i < utf8.UTFMax && i < len(b); i++ {
		if utf8.RuneStart(b[i]) {
			return b[i:]
		}
	}
	return b
}

func mendedWarning(stream string) string {
	return "some bytes of " + stream + " are not UTF-8 and are shown as \uFFFD"
}
