// Package testreport sums up the results of test runs as test programs write
// them: the JSON lines of "go test -json", and JUnit XML. It reads a stream of any
// length in bounded memory, and takes what is no report, or broken, for no report.
package testreport

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// Summary is what a run's tests have come to.
type Summary struct {
	Format   string // "go" or "junit"
	Passed   int
	Failed   int // with errors
	Skipped  int
	Failures []Failure // the first of them
	// Partial says that the report breaks off, or is longer than what was read.
	Partial bool
}

// Failure is a test that failed.
type Failure struct {
	Name string
	Text string // its message or the end of its output, shortened
}

// Bounds of what is kept, whatever the report holds.
const (
	MaxFailures = 10
	maxName     = 200
	maxText     = 500
	maxLine     = 64 << 10
	maxOpen     = 1000 // tests at a time whose output is remembered
)

// Reader sums up what is written to it.
type Reader struct {
	line  []byte // of which no more than maxLine is kept
	long  bool   // it goes on beyond that
	tests *goTests
	xml   *junit
}

// Looks reports whether the beginning of a stream may be that of a report.
func Looks(head []byte) bool {
	r := &Reader{}
	_, _ = r.Write(head)
	return r.tests != nil || r.xml != nil
}

// Ends reports whether the end of a stream may be that of a report, which other output may come before.
func Ends(tail []byte) bool {
	for line := range bytes.Lines(tail) {
		if bytes.Contains(line, []byte("</testsuite")) || goEvent(bytes.TrimSpace(line)) {
			return true
		}
	}
	return false
}

// Write never fails. Lines before a report are skipped.
func (r *Reader) Write(p []byte) (int, error) {
	all := len(p)
	for len(p) > 0 {
		if r.xml != nil {
			r.xml.write(p)
			break
		}
		i := bytes.IndexByte(p, '\n')
		piece := p
		if i >= 0 {
			piece = p[:i+1]
		}
		p = p[len(piece):]
		if room := maxLine - len(r.line); len(piece) > room {
			piece, r.long = piece[:room], true
		}
		r.line = append(r.line, piece...)
		if r.tests == nil && beginsXML(r.line) { // which may be one long line
			r.xml = &junit{}
			p = append(r.line, p...)
			continue
		}
		if i >= 0 {
			r.flush()
		}
	}
	return all, nil
}

func (r *Reader) flush() {
	if r.tests == nil && goEvent(bytes.TrimSpace(r.line)) {
		r.tests = &goTests{open: map[string]*openTest{}}
	}
	if r.tests != nil {
		r.tests.line(r.line, r.long)
	}
	r.line, r.long = r.line[:0], false
}

func beginsXML(line []byte) bool {
	text := bytes.TrimSpace(bytes.TrimPrefix(line, []byte("\ufeff")))
	return bytes.HasPrefix(text, []byte("<testsuite")) || bytes.HasPrefix(text, []byte("<?xml"))
}

// Summary ends the stream. It is false where that was no report with a test in it.
func (r *Reader) Summary() (Summary, bool) {
	var s Summary
	switch {
	case r.xml != nil:
		s = r.xml.end()
	default:
		r.flush()
		if r.tests == nil {
			return s, false
		}
		s = r.tests.end()
	}
	return s, s.Passed+s.Failed+s.Skipped > 0
}

func (s *Summary) fail(name, text string) {
	s.Failed++
	if len(s.Failures) < MaxFailures {
		s.Failures = append(s.Failures, Failure{Name: start(name, maxName), Text: end(strings.TrimSpace(text), maxText)})
	}
}

// start is the beginning of s in at most n bytes.
func start(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// end is the end of s in at most n bytes.
func end(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	from := len(s) - n
	for from < len(s) && !utf8.RuneStart(s[from]) {
		from++
	}
	return "…" + s[from:]
}
