package tools

import (
	"encoding/json"
	"slices"
	"unicode/utf8"
)

// An answer has some 8 KB, and a little for what stands beside, unless more was asked for:
// it stays in the model's context for the rest of a session. All are bytes as JSON.
const (
	seen          = 240  // of a text that somebody else wrote
	listRoom      = 6000 // of a list
	streamRoom    = 4300 // of one of a job's two streams
	argumentsRoom = 600  // of the next call's arguments
	warningRoom   = 1200 // of all warnings together
	warningsShown = 8
)

// trim keeps what is said beside an answer short, whatever it is about, and names no
// next call of a tool that is not served.
func (a *advice) trim(served []string) {
	var kept []string
	room := warningRoom
	for i, w := range a.Warnings {
		w = short(Served(w, served), 2*seen)
		raw, err := json.Marshal(w)
		if room -= len(raw); err != nil || (room < 0 && i > 0) || (i == warningsShown-1 && i < len(a.Warnings)-1) {
			kept = append(kept, plural(len(a.Warnings)-i, "more warning")+" not shown")
			break
		}
		kept = append(kept, w)
	}
	a.Warnings = kept
	a.Next.Text = short(Served(a.Next.Text, served), 2*seen)
	if raw, err := json.Marshal(a.Next.Arguments); err != nil || len(raw) > argumentsRoom || (served != nil && !slices.Contains(served, a.Next.Tool)) {
		a.Next.Tool, a.Next.Arguments = "", nil // the sentence says "the same arguments"
	}
}

// fit gives the first of the items that have room together, and how many do not. There
// is always one.
func fit[T any](items []T, room int) (kept []T, omitted int) {
	for i, item := range items {
		raw, err := json.Marshal(item)
		if room -= len(raw) + 1; (err != nil || room < 0) && i > 0 {
			return items[:i], len(items) - i
		}
	}
	return items, 0
}

// weight is how many bytes a character of a JSON string takes.
func weight(r rune, size int) int {
	switch {
	case r == '\n' || r == '\t' || r == '\r' || r == '"' || r == '\\' || r == '\b' || r == '\f':
		return 2
	case r < ' ' || r == 0x7f:
		return 6
	case r == utf8.RuneError:
		return len(string(utf8.RuneError))
	}
	return size
}

// lightStart is the longest beginning of data that takes at most room bytes in JSON.
func lightStart[T string | []byte](data T, room int) T {
	text := string(data)
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		if room -= weight(r, size); room < 0 {
			return data[:i]
		}
		i += size
	}
	return data
}

// heavy reports whether data takes over a quarter more room in an answer than its length.
func heavy(data []byte, length int) bool { return len(lightStart(data, length/4*5)) < len(data) }

// short is the beginning of a text that somebody else wrote.
func short(text string, room int) string {
	text = valid(text)
	if part := lightStart(text, room); len(part) < len(text) {
		return part + "…"
	}
	return text
}

// lightEnd is the longest end of it.
func lightEnd(text string, room int) string {
	for i := len(text); i > 0; {
		r, size := utf8.DecodeLastRuneInString(text[:i])
		if room -= weight(r, size); room < 0 {
			return text[i:]
		}
		i -= size
	}
	return text
}

// squeeze takes the middle out of a text that is small as it was written and large in
// an answer: control characters take six bytes there.
func (s *shown) squeeze() {
	if len(lightStart(s.text, streamRoom)) == len(s.text) {
		return
	}
	s.text = lightStart(s.text, streamRoom/4) + "\n[... left out here; read_output shows all ...]\n" + lightEnd(s.text, streamRoom/4*3)
	s.truncated = true
}
