package remote

import "bytes"

// Fold shows bytes as a terminal would leave them, for people: of a line that was written over again and again with
// carriage returns, as progress bars do, what was written last; and no escape sequences. The machine keeps the exact
// bytes. What comes out is never longer than what went in, and folding it again changes nothing.
func Fold(b []byte) []byte {
	if bytes.IndexByte(b, '\r') < 0 && bytes.IndexByte(b, escape) < 0 {
		return b
	}
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		line, end := b, []byte(nil)
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line, end = b[:i], b[i:i+1]
		}
		b = b[len(line)+len(end):]
		out = append(append(out, lastWritten(line)...), end...)
	}
	return out
}

// lastWritten is the last part of a line between carriage returns that shows anything. A part that only cleans the
// line stands for an empty one, unless there is nothing else.
func lastWritten(line []byte) []byte {
	for rest := line; ; {
		i := bytes.LastIndexByte(rest, '\r')
		part := plain(rest[i+1:])
		if len(bytes.TrimSpace(part)) > 0 {
			return part
		}
		if i < 0 {
			return part
		}
		rest = rest[:i]
	}
}

const escape = 0x1b

// plain drops escape sequences: colours, cursor movements, titles. One that is cut off at the end goes too.
func plain(b []byte) []byte {
	if bytes.IndexByte(b, escape) < 0 {
		return b
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		if b[i] != escape {
			out = append(out, b[i])
			i++
			continue
		}
		i += sequence(b[i:])
	}
	return out
}

// sequence is the length of the escape sequence at the start of b.
func sequence(b []byte) int {
	if len(b) < 2 {
		return len(b)
	}
	switch b[1] {
	case '[': // up to a letter
		for i := 2; i < len(b); i++ {
			if b[i] >= 0x40 && b[i] <= 0x7e {
				return i + 1
			}
			if b[i] < 0x20 || b[i] > 0x7e {
				return i // not a sequence after all
			}
		}
		return len(b)
	case ']': // a title, up to a bell or to escape and backslash
		for i := 2; i < len(b); i++ {
			if b[i] == 0x07 {
				return i + 1
			}
			if b[i] == escape {
				return min(i+2, len(b))
			}
		}
		return len(b)
	case escape:
		return 1
	}
	return 2
}
