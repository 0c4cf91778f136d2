package remote

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// ignoreFile is read at the top of a directory that is pushed. Its patterns are those of .gitignore, and it leaves
// out tracked files too.
const ignoreFile = ".gpuleaseignore"

// ignoreRules are the patterns of an ignore file. The last one that matches decides.
type ignoreRules []ignoreRule

type ignoreRule struct {
	pattern *regexp.Regexp
	keep    bool // "!pattern"
	dirOnly bool // "pattern/"
}

// parseIgnore reads the ignore file of that name.
func parseIgnore(name, text string) (ignoreRules, error) {
	var rules ignoreRules
	for number, line := range strings.Split(text, "\n") {
		line = trimPattern(strings.TrimSuffix(line, "\r"))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		var rule ignoreRule
		if rest, found := strings.CutPrefix(line, "!"); found {
			line, rule.keep = rest, true
		}
		if rest, found := strings.CutSuffix(line, "/"); found {
			line, rule.dirOnly = rest, true
		}
		if line == "" {
			continue
		}
		var err error
		if rule.pattern, err = regexp.Compile(translatePattern(widen(line))); err != nil {
			return nil, fmt.Errorf("%s line %d: %w", name, number+1, err)
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// trimPattern drops trailing spaces that are not quoted.
func trimPattern(line string) string {
	for strings.HasSuffix(line, " ") && !strings.HasSuffix(line, `\ `) {
		line = line[:len(line)-1]
	}
	return line
}

// translatePattern turns one pattern into a regular expression for a whole path below the root.
func translatePattern(p string) string {
	var b strings.Builder
	b.WriteString("(?s)^")
	if !strings.Contains(p, "/") {
		b.WriteString("(?:.*/)?") // a name matches at any depth
	}
	p = strings.TrimPrefix(p, "/")
	for p != "" {
		first, width := utf8.DecodeRuneInString(p)
		switch {
		case p == "/**":
			b.WriteString("/.+")
			p = ""
		case strings.HasPrefix(p, "/**/"):
			b.WriteString("/(?:.*/)?")
			p = p[len("/**/"):]
		case strings.HasPrefix(p, "**/") && strings.HasSuffix(b.String(), "^"):
			b.WriteString("(?:.*/)?")
			p = p[len("**/"):]
		case p[0] == '*':
			b.WriteString("[^/]*")
			p = strings.TrimLeft(p, "*")
		case p[0] == '?':
			b.WriteString("[^/]")
			p = p[1:]
		case p[0] == '[':
			class, rest := translateClass(p)
			b.WriteString(class)
			p = rest
		case p[0] == '\\' && len(p) > 1:
			_, width = utf8.DecodeRuneInString(p[1:])
			b.WriteString(regexp.QuoteMeta(p[1 : 1+width]))
			p = p[1+width:]
		default:
			b.WriteString(regexp.QuoteMeta(string(first)))
			p = p[width:]
		}
	}
	b.WriteString("$")
	return b.String()
}

// translateClass turns "[a-z]" or "[!a-z]" into a regular expression's class that never matches a slash. Without an
// end it is a bracket.
func translateClass(p string) (class, rest string) {
	end := 1
	if end < len(p) && (p[end] == '!' || p[end] == '^') {
		end++
	}
	if end < len(p) && p[end] == ']' {
		end++
	}
	for end < len(p) && p[end] != ']' {
		if named := namedClass.FindString(p[end:]); named != "" {
			end += len(named)
			continue
		}
		if p[end] == '\\' {
			end++
		}
		end++
	}
	if end >= len(p) {
		return `\[`, p[1:]
	}
	inner := p[1:end]
	if strings.HasPrefix(inner, "!") || strings.HasPrefix(inner, "^") {
		return "[^/" + escapeClass(inner[1:]) + "]", p[end+1:]
	}
	return "[" + escapeClass(inner) + "]", p[end+1:]
}

// namedClass is "[:alpha:]" and the like, which mean the same in both notations.
var namedClass = regexp.MustCompile(`^\[:[a-z]+:\]`)

func escapeClass(inner string) string {
	var b strings.Builder
	for inner != "" {
		if named := namedClass.FindString(inner); named != "" {
			b.WriteString(named)
			inner = inner[len(named):]
			continue
		}
		if strings.ContainsRune("[]^&", rune(inner[0])) {
			b.WriteByte('\\')
		}
		b.WriteByte(inner[0])
		inner = inner[1:]
	}
	return b.String()
}

// widen makes each byte a character, since git's patterns match bytes.
func widen(s string) string {
	ascii := true
	for i := range len(s) {
		ascii = ascii && s[i] < 0x80
	}
	if ascii {
		return s
	}
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i])
	}
	return string(runes)
}

// excluded reports whether the path, or a directory above it, is ignored. As in git, nothing below an ignored
// directory can be kept.
func (r ignoreRules) excluded(path string, isDir bool) bool {
	if len(r) == 0 {
		return false
	}
	for i := range len(path) {
		if path[i] == '/' && r.match(path[:i], true) {
			return true
		}
	}
	return r.match(path, isDir)
}

func (r ignoreRules) match(path string, isDir bool) bool {
	ignored, _ := r.verdict(path, isDir)
	return ignored
}

// verdict is what the rules say of a path, and whether they say anything.
func (r ignoreRules) verdict(path string, isDir bool) (ignored, said bool) {
	wide := widen(path)
	for i := len(r) - 1; i >= 0; i-- {
		if (isDir || !r[i].dirOnly) && r[i].pattern.MatchString(wide) {
			return !r[i].keep, true
		}
	}
	return false, false
}
