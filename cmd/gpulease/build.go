package main

import (
	"cmp"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// build says which program this is.
type build struct {
	Version string    `json:"version"`
	Commit  string    `json:"commit"`
	Time    time.Time `json:"time,omitzero"` // of the commit
}

// thisBuild is the running program, as far as the linker and Go know it.
func thisBuild() build {
	b := build{Version: version, Commit: "unknown commit"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	// go install gpulease@v1.2.3 sets no linker flag. Of any other build Go only guesses the version.
	if v := info.Main.Version; b.Version == "dev" && !guessedVersion.MatchString(v) {
		if _, ok := parseRelease(v); ok {
			b.Version = v
		}
	}
	dirty := ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Time, _ = time.Parse(time.RFC3339, s.Value) // without it, this build is newer than no other
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+"
			}
		}
	}
	b.Commit += dirty
	return b
}

// newer reports whether b is surely newer than other. Releases are compared by
// their versions; builds without one ("dev", a commit) by the times of their
// commits. A release and a build without a version cannot be compared, and of
// two that differ in neither none is newer. So "newer" never runs in a circle,
// however many builds there are: two of them cannot take turns in replacing each
// other's keeper.
func (b build) newer(other build) bool {
	mine, isRelease := parseRelease(b.Version)
	others, otherIs := parseRelease(other.Version)
	switch {
	case isRelease && otherIs:
		return mine.compare(others) > 0
	case isRelease || otherIs || b.Time.IsZero() || other.Time.IsZero():
		return false
	}
	return b.Time.After(other.Time)
}

// String is for people: "v1.2.3 (4f2a…)".
func (b build) String() string { return b.Version + " (" + b.Commit + ")" }

// release is a version as vMAJOR.MINOR.PATCH[-PRE][-AHEAD-gCOMMIT][-dirty]: the
// second half is what git describe adds to the last tag.
type release struct {
	numbers [3]uint64
	pre     string // "" for the release itself, which comes after its previews
	ahead   uint64 // commits after the tag
}

var (
	releaseForm    = regexp.MustCompile(`^v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:-([0-9A-Za-z][0-9A-Za-z.-]*?))??(?:-(\d{1,9})-g[0-9a-f]{4,40})?(?:-dirty)?(?:\+[0-9A-Za-z.-]*)?$`)
	guessedVersion = regexp.MustCompile(`\d{14}-[0-9a-f]{12}|\+`)
)

func parseRelease(v string) (release, bool) {
	m := releaseForm.FindStringSubmatch(v)
	if m == nil {
		return release{}, false
	}
	r := release{pre: m[4]}
	for i := range r.numbers {
		r.numbers[i], _ = strconv.ParseUint(m[i+1], 10, 64) // nine digits at most
	}
	if m[5] != "" {
		r.ahead, _ = strconv.ParseUint(m[5], 10, 64)
	}
	return r, true
}

// compare is negative for r before other.
func (r release) compare(other release) int {
	for i, n := range r.numbers {
		if c := cmp.Compare(n, other.numbers[i]); c != 0 {
			return c
		}
	}
	return cmp.Or(comparePreviews(r.pre, other.pre), cmp.Compare(r.ahead, other.ahead))
}

// comparePreviews orders what stands behind the numbers as semver does: numbers
// before words, numbers by value, words by their letters.
func comparePreviews(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == "":
		return 1
	case b == "":
		return -1
	}
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(as), len(bs)) {
		x, errX := strconv.ParseUint(as[i], 10, 64)
		y, errY := strconv.ParseUint(bs[i], 10, 64)
		c := 0
		switch {
		case errX == nil && errY == nil:
			c = cmp.Compare(x, y)
		case errX == nil:
			c = -1
		case errY == nil:
			c = 1
		default:
			c = strings.Compare(as[i], bs[i])
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Compare(len(as), len(bs))
}
