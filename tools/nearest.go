package tools

import (
	"strings"
	"unicode/utf8"
)

// Nearest is the known name that was most likely meant by name, or "" if none is
// near: a slip of the keyboard (edit distance up to about a third of the length), a
// part of the name (type for instance_type) or its abbreviation (cmd for
// command). Of equally near ones, the first known.
func Nearest(name string, known []string) string {
	plain := fold(name)
	if plain == "" {
		return ""
	}
	best, score := "", -1
	for _, k := range known {
		candidate := fold(k)
		d := distance(plain, candidate)
		length := max(utf8.RuneCountInString(plain), utf8.RuneCountInString(candidate))
		switch {
		case d == 0 || (d <= (length+1)/3 && length > 4):
		case len(plain) >= 3 && (strings.Contains(candidate, plain) || strings.Contains(plain, candidate)):
			d += 100
		case len(plain) >= 3 && abbreviates(plain, candidate):
			d += 200
		case d <= 1 && length >= 3: // in a short name, a slip is the weakest reading: cmd is not cwd
			d += 300
		default:
			continue
		}
		if score < 0 || d < score {
			best, score = k, d
		}
	}
	return best
}

// fold drops what models mix up: case, dashes, underscores.
func fold(name string) string {
	return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(name))
}

// abbreviates reports whether short's letters stand in long in the same order,
// beginning with the same letter.
func abbreviates(short, long string) bool {
	if len(short) >= len(long) || short[0] != long[0] {
		return false
	}
	i := 0
	for j := 0; j < len(long) && i < len(short); j++ {
		if long[j] == short[i] {
			i++
		}
	}
	return i == len(short)
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours that turn a into b.
func distance(a, b string) int {
	s, t := []rune(a), []rune(b)
	before, last := make([]int, len(t)+1), make([]int, len(t)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(s); i++ {
		row := make([]int, len(t)+1)
		row[0] = i
		for j := 1; j <= len(t); j++ {
			cost := 1
			if s[i-1] == t[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(t)]
}
