package policy

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Bounds on a policy file. They are far above what a policy needs, and keep a hostile or broken file from taking the parser's
// time, memory or stack: it is checked against them before it is parsed.
const (
	maxFileBytes  = 1 << 20
	maxLineBytes  = 1 << 10
	maxLines      = 10_000 // that are neither blank nor a comment
	maxFlowDepth  = 32     // of [ and {, wherever they stand
	maxIndent     = 64
	maxEntries    = 1_000 // patterns in one list; principals
	byteOrderMark = "\ufeff"
)

// checkText refuses what is not one document of plain text within the bounds.
func checkText(path string, data []byte) error {
	fail := func(line, column int, format string, args ...any) error {
		return &FileError{Path: path, Line: line, Column: column, Msg: fmt.Sprintf(format, args...)}
	}
	if len(data) > maxFileBytes {
		return fail(0, 0, "the file is larger than %d bytes", maxFileBytes)
	}
	text := strings.TrimPrefix(string(data), byteOrderMark)
	lines, depth := 0, 0
	for i, line := range strings.Split(text, "\n") {
		number := i + 1
		line = strings.TrimSuffix(line, "\r")
		if !utf8.ValidString(line) {
			return fail(number, 1, "the line is not UTF-8 text")
		}
		if at := strings.IndexFunc(line, unprintable); at >= 0 {
			r, _ := utf8.DecodeRuneInString(line[at:])
			return fail(number, utf8.RuneCountInString(line[:at])+1, "the character %U is not allowed", r)
		}
		if len(line) > maxLineBytes {
			return fail(number, maxLineBytes+1, "the line is longer than %d bytes", maxLineBytes)
		}
		rest := strings.TrimLeft(line, " \t")
		if rest == "" || rest[0] == '#' {
			continue
		}
		if lines++; lines > maxLines {
			return fail(number, 1, "the file has more than %d lines with text", maxLines)
		}
		if indent := len(line) - len(rest); indent > maxIndent {
			return fail(number, indent+1, "the line is indented by more than %d", maxIndent)
		}
		if strings.HasPrefix(rest, "- - ") {
			return fail(number, len(line)-len(rest)+1, "a list within a list")
		}
		if marker(line) && (lines > 1 || !strings.HasPrefix(line, "---")) {
			return fail(number, 1, "the file must be one YAML document without directives")
		}
		if depth += strings.Count(line, "[") + strings.Count(line, "{"); depth > maxFlowDepth {
			return fail(number, 1, "more than %d brackets are open", maxFlowDepth)
		}
		depth = max(0, depth-strings.Count(line, "]")-strings.Count(line, "}"))
	}
	if lines == 0 {
		// An editor that is about to write the file leaves it empty for a moment, and that must not mean the defaults.
		return fail(0, 0, "the file sets nothing: for the defaults remove it, or write {}")
	}
	return nil
}

// marker reports whether the line separates documents or is a directive.
func marker(line string) bool {
	return strings.HasPrefix(line, "---") || strings.HasPrefix(line, "...") || strings.HasPrefix(line, "%")
}

// unprintable are control characters, and those that turn or end lines in some readers' eyes and not in others'.
func unprintable(r rune) bool {
	switch {
	case r == '\t':
		return false
	case r < ' ', r >= 0x7f && r <= 0x9f, r == '\u2028', r == '\u2029', r == '\ufeff', r >= '\u202a' && r <= '\u202e',
		r >= '\u2066' && r <= '\u2069':
		return true
	}
	return false
}
