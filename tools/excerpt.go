package tools

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/gpulease/gpulease/remote"
)

// shown is the part of a stream that an answer carries.
type shown struct {
	text      string
	truncated bool
	mended    bool // some bytes were no UTF-8 and are shown as U+FFFD
}

// excerpt makes text of the beginning and the end of a stream: progress bars are
// folded, and what is still too long loses its middle.
func excerpt(e remote.Excerpt, stream string) shown {
	head, tail := e.Head, e.Tail
	if e.Omitted() <= 0 {
		all := append(bytes.Clone(head), tail...)
		if folded := remote.Fold(all); len(folded) <= headBytes+tailBytes {
			return shown{text: valid(string(folded)), mended: !utf8.Valid(folded)}
		}
		head, tail = all, all
	}
	first, used := fromStart(head, headBytes)
	if e.Omitted() <= 0 {
		tail = tail[used:]
	} else {
		tail = wholeStart(tail)
	}
	last, usedLast := fromEnd(tail, tailBytes)
	omitted := e.Size - int64(used) - int64(usedLast)
	mark := fmt.Sprintf("\n[... %d bytes left out; read_output with stream %q and offset %d shows them ...]\n", omitted, stream, used)
	return shown{
		text:      valid(string(first)) + mark + valid(string(last)),
		truncated: true,
		mended:    !utf8.Valid(first) || !utf8.Valid(last),
	}
}

// fromStart is the folded beginning of data in at most budget bytes, and how much
// of data that is.
func fromStart(data []byte, budget int) (text []byte, used int) {
	for line := range bytes.Lines(data) {
		folded := remote.Fold(line)
		room := budget - len(text)
		if len(folded) <= room {
			text, used = append(text, folded...), used+len(line)
			continue
		}
		if len(folded) == len(line) { // a folded one has no beginning that could be shown
			part := wholeEnd(line[:room])
			text, used = append(text, part...), used+len(part)
		}
		break
	}
	return text, used
}

// fromEnd is the folded end of data in at most budget bytes, and how much of data
// that is.
func fromEnd(data []byte, budget int) (text []byte, used int) {
	for rest := data; len(rest) > 0; {
		at := bytes.LastIndexByte(rest[:len(rest)-1], '\n') + 1
		line := rest[at:]
		folded := remote.Fold(line)
		room := budget - len(text)
		if len(folded) > room {
			part := wholeStart(folded[len(folded)-room:])
			return append(bytes.Clone(part), text...), used + len(line) - (len(folded) - len(part))
		}
		text, used, rest = append(bytes.Clone(folded), text...), used+len(line), rest[:at]
	}
	return text, used
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
