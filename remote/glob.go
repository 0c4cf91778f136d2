package remote

import (
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// mostGlobMatches is how many paths one pattern may stand for.
const mostGlobMatches = 100_000

// glob is a pattern for paths of the machine.
type glob struct {
	wanted
	dir     string // what of it has no pattern in it
	depth   int    // how far below dir it looks; 0 is any depth
	matches *regexp.Regexp
}

// parseGlob reads a clean path; false when there is no pattern in it.
func parseGlob(w wanted) (glob, bool, error) {
	if !strings.ContainsAny(w.path, "*?[") {
		return glob{}, false, nil
	}
	parts := strings.Split(w.path, "/")
	plain := 0
	for !strings.ContainsAny(parts[plain], "*?[") {
		plain++
	}
	g := glob{wanted: w, dir: strings.Join(parts[:plain], "/"), depth: len(parts) - plain}
	if g.dir == "" {
		g.dir = "/"
	}
	rest := strings.Join(parts[plain:], "/")
	if strings.Contains(rest, "**") {
		g.depth = 0
	}
	var err error
	if g.matches, err = regexp.Compile(translatePattern(widen("/" + rest))); err != nil {
		return glob{}, false, invalid("pattern %q: %v", w.name, err)
	}
	return g, true, nil
}

// expand puts what the machine has in the place of patterns.
func (j *fetching) expand(n *conn) ([]wanted, error) {
	var plain []wanted
	var globs []glob
	for _, w := range j.asked {
		g, isGlob, err := parseGlob(w)
		switch {
		case err != nil:
			return nil, err
		case isGlob:
			globs = append(globs, g)
		default:
			plain = append(plain, w)
		}
	}
	if len(globs) == 0 {
		return plain, nil
	}
	var list []string
	for _, g := range globs {
		list = append(list, g.dir, strconv.Itoa(g.depth), g.path)
	}
	r, err := n.call(j.ctx, request{
		script: filesScript,
		args:   []string{"names", j.base},
		list:   nulList(list),
		data:   mostListing,
	})
	if err != nil {
		return nil, err
	}
	at := -1
	count := make([]int, len(globs))
	literal := false // the entries are of a pattern that is the name of a file
	ahead := false   // the next pattern is
	for _, entry := range splitList(r.data) {
		switch {
		case entry == "=":
			ahead = true
			continue
		case strings.HasPrefix(entry, "D"):
			if at++; at == len(globs) || entry[1:] != globs[at].dir {
				return nil, fmt.Errorf("%w: unknown directory %q", ErrMachine, entry[1:])
			}
			if literal, ahead = ahead, false; literal {
				plain = append(plain, globs[at].wanted)
				count[at] = 1
			}
			continue
		case at < 0 || len(entry) < 2:
			return nil, fmt.Errorf("%w: name %q", ErrMachine, entry)
		}
		if literal {
			continue
		}
		g := globs[at]
		below := strings.TrimPrefix(entry[1:], "./")
		if !validName(below) || !g.matches.MatchString(widen(below)) {
			continue
		}
		if count[at]++; count[at] > mostGlobMatches {
			return nil, fmt.Errorf("%w: pattern %q has over %d matches", ErrTooLarge, g.name, mostGlobMatches)
		}
		full := strings.TrimSuffix(g.dir, "/") + "/" + below
		if entry[0] == 'l' {
			j.skipped = append(j.skipped, Skipped{landing(full), "symbolic link; name it without a pattern to follow it"})
			continue
		}
		plain = append(plain, wanted{path.Clean(full), full})
	}
	for i, g := range globs {
		if count[i] == 0 {
			j.missing = append(j.missing, g.name)
		}
	}
	return plain, nil
}
