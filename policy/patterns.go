package policy

import (
	"fmt"
	"slices"
	"strings"
)

// allows says whether name passes; if not, rule is "allow" or "deny" and limit is what it fell foul of.
func (ps Patterns) allows(name string) (ok bool, rule, limit string) {
	for _, pattern := range ps.Deny {
		// No name is no proof that a denied one is not meant.
		if name == "" || matches(pattern, name) {
			return false, "deny", pattern
		}
	}
	if len(ps.Allow) == 0 {
		return true, "", ""
	}
	for _, pattern := range ps.Allow {
		if matches(pattern, name) {
			return true, "", ""
		}
	}
	return false, "allow", strings.Join(ps.Allow, ", ")
}

// matches reports whether the glob covers the whole name. Its time is bounded by the product of the lengths.
func matches(glob, name string) bool {
	g, n := []rune(strings.ToLower(glob)), []rune(strings.ToLower(name))
	var i, j int
	star, mark := -1, 0 // the last * seen, and how much of the name it has swallowed up to
	for j < len(n) {
		switch {
		case i < len(g) && g[i] == '*':
			star, mark = i, j
			i++
		case i < len(g) && (g[i] == '?' || g[i] == n[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(g) && g[i] == '*' {
		i++
	}
	return i == len(g)
}

// checkPattern refuses what can match nothing that Lambda has, which is a slip of the pen.
// Sees reports whether a principal may see and use another's leases: where leases_of says so, for all or for it alone.
func (p *Policy) Sees(principal, other string) bool {
	own := func(glob string) bool { return matches(glob, other) }
	return slices.ContainsFunc(p.LeasesOf, own) || slices.ContainsFunc(p.Principals[principal].LeasesOf, own)
}

func checkPattern(s string) error {
	if s == "" {
		return fmt.Errorf("a pattern is empty")
	}
	if len(s) > 200 {
		return fmt.Errorf("pattern %q is too long", clip(s))
	}
	for _, c := range s {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.ContainsRune("_-.*?", c):
		default:
			return fmt.Errorf("pattern %q: %q cannot be in a name; a pattern has letters, digits, _ - . and the wildcards * and ?",
				clip(s), c)
		}
	}
	return nil
}
