package remote

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// listing is the reply of "files.sh list".
type listing struct {
	total  int64
	hashed bool   // or the hashes have to be asked for
	ranged bool   // the machine can read parts of a file
	kinds  []byte // of what was asked for, in order
	files  []remoteFile
	closed []string
	odd    []string
	run    map[string]bool // what this computer would run or obey
	links  []struct{ name, target string }
}

type remoteFile struct {
	path  string // on the machine
	name  string // below dst
	size  int64
	mtime time.Time
	mode  fs.FileMode // permissions
	hash  string      // empty: not known yet
}

const (
	mostListing = 256 << 20
	fewPaths    = 8 << 10 // bytes: they are put on a command line
	mostFile    = 1 << 42 // bytes: what is larger is no file, and its parts would be too many to count
	// hashAtOnce is how many bytes are hashed with the listing: less than a round trip's worth of time.
	hashAtOnce = 64 << 20
)

func (j *fetching) list(n *conn, asked []wanted) (listing, error) {
	paths := make([]string, len(asked))
	for i, w := range asked {
		paths[i] = w.path
	}
	if len(paths) == 0 {
		return listing{}, nil // patterns without a match
	}
	most := hashAtOnce
	if j.empty() {
		most = 0 // everything has to come, and is hashed meanwhile
	}
	args := []string{"list", j.base, strconv.FormatInt(j.limit, 10), strconv.Itoa(most)}
	list := nulList(paths)
	if len(list) <= fewPaths {
		args, list = append(args, paths...), []byte{} // a round trip less: sshd lets no input come before the start is told
	}
	for tries := 0; ; tries++ {
		r, err := n.callAnd(j.ctx, request{
			script: filesScript,
			args:   j.verb(args...),
			list:   list,
			data:   mostListing,
		}, func() { j.hire(n, most == 0) })
		if err != nil {
			return listing{}, err
		}
		l, err := parseListing(r, len(paths))
		if !errors.Is(err, errMoving) || tries == 3 {
			return l, err
		}
	}
}

// empty reports whether the target has nothing yet.
func (j *fetching) empty() bool {
	dir, err := j.root.Open(".")
	if err != nil {
		return false // the writing of it will meet the same, and say so
	}
	defer func() { _ = dir.Close() }()
	_, err = dir.Readdirnames(1)
	return err == io.EOF
}

func parseListing(r reply, asked int) (listing, error) {
	l := listing{hashed: r.get("hashed") == "yes", ranged: r.get("ranged") == "yes", run: map[string]bool{}}
	total, err := r.numbers("total", 1)
	if err != nil {
		return l, err
	}
	l.total = total[0]
	parts, err := r.parts(7)
	if err != nil {
		return l, err
	}
	l.kinds = parts[0]
	if len(l.kinds) != asked {
		return l, fmt.Errorf("%w: %d answers for %d paths", ErrMachine, len(l.kinds), asked)
	}
	if err := l.addFiles(splitList(parts[1]), strings.Fields(string(parts[5])), strings.Fields(string(parts[6]))); err != nil {
		return l, err
	}
	l.closed, l.odd = splitList(parts[2]), splitList(parts[3])
	targets := splitList(parts[4])
	for i := 0; i+1 < len(targets); i += 2 {
		if name := landing(targets[i]); validName(name) && filepath.IsLocal(name) && !l.isRun(name) {
			l.links = append(l.links, struct{ name, target string }{name, targets[i+1]})
		}
	}
	return l, nil
}

// addFiles takes three words of stats for each name, and a hash if there are any.
func (l *listing) addFiles(names, stats, hashes []string) error {
	if len(stats) != 3*len(names) || l.hashed && len(hashes) != len(names) {
		return errMoving
	}
	seen := map[string]bool{}
	for i, name := range names {
		f := remoteFile{path: name, name: landing(name)}
		if !validName(f.name) || !filepath.IsLocal(f.name) {
			return fmt.Errorf("%w: path %q", ErrMachine, name)
		}
		size, err := strconv.ParseInt(stats[3*i], 10, 64)
		seconds, err2 := strconv.ParseInt(stats[3*i+1], 10, 64)
		mode, err3 := strconv.ParseUint(stats[3*i+2], 8, 32)
		if err := errors.Join(err, err2, err3); err != nil || size < 0 || size > mostFile {
			return fmt.Errorf("%w: size, time and mode %q of %s", ErrMachine, stats[3*i:3*i+3], name)
		}
		f.size, f.mtime, f.mode = size, time.Unix(seconds, 0), fs.FileMode(mode).Perm()
		if l.hashed {
			if f.hash = hashes[i]; len(f.hash) != 64 {
				return fmt.Errorf("%w: hash %q of %s", ErrMachine, f.hash, name)
			}
		}
		if !seen[f.name] && !l.isRun(f.name) {
			seen[f.name] = true
			l.files = append(l.files, f)
		}
	}
	return nil
}

// isRun reports whether a path is one that this computer would run or obey, and takes down what leads to it.
func (l *listing) isRun(name string) bool {
	part, yes := RunsHere(name)
	if yes {
		l.run[part] = true
	}
	return yes
}

// note takes down what will not come, and makes the links that may.
func (j *fetching) note(there listing, asked []wanted) {
	for i, kind := range there.kinds {
		switch kind {
		case '-':
			j.missing = append(j.missing, asked[i].name)
		case 'o':
			j.skipped = append(j.skipped, Skipped{asked[i].name, "not a file or directory"})
		}
	}
	for _, name := range there.closed {
		j.skipped = append(j.skipped, Skipped{landing(name), "no permission to read it"})
	}
	for _, name := range there.odd {
		j.skipped = append(j.skipped, Skipped{landing(name), "not a file"})
	}
	for name := range there.run {
		j.skipped = append(j.skipped, Skipped{name, "programs of this computer run or obey what is named so"})
	}
	for _, l := range there.links {
		if reason := j.link(l.name, l.target); reason != "" {
			j.skipped = append(j.skipped, Skipped{l.name, reason})
		}
	}
}

// avoid takes out of the listing what a link would lead to where programs of this computer run or obey what is written: a
// link that somebody has made here.
func (j *fetching) avoid(there *listing) {
	known := map[string]bool{}
	there.files = slices.DeleteFunc(there.files, func(f remoteFile) bool {
		dir := path.Dir(f.name)
		leads, ok := known[dir]
		if !ok {
			leads = j.leadsToRun(f.name)
			known[dir] = leads
		}
		if leads {
			j.skipped = append(j.skipped, Skipped{f.name, "a link here leads to what programs of this computer run or obey"})
		}
		return leads
	})
}

// leadsToRun reports whether the directory of name, by its links, is one of which RunsHere says so.
func (j *fetching) leadsToRun(name string) bool {
	top, err := filepath.EvalSymlinks(j.root.Name())
	if err != nil {
		return false // the writing will meet the same, and say so
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		real, err := filepath.EvalSymlinks(filepath.Join(top, filepath.FromSlash(dir)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false
		}
		below, err := filepath.Rel(top, real)
		_, yes := RunsHere(filepath.ToSlash(below))
		return err == nil && yes
	}
	return false
}

// link makes a symbolic link, unless it could lead up: links without ".." cannot, however they are put together. Nor does
// it lead to what this computer runs, for what comes next may have to be written through it.
func (j *fetching) link(name, target string) (reason string) {
	if _, yes := RunsHere(path.Join(path.Dir(name), target)); yes || j.leadsToRun(name) {
		return "symbolic link to what programs of this computer run or obey"
	}
	if target == "" || path.IsAbs(target) || !filepath.IsLocal(target) || slices.Contains(strings.Split(target, "/"), "..") {
		return "symbolic link to " + printable([]byte(target))
	}
	if now, err := j.root.Readlink(name); err == nil && filepath.ToSlash(now) == target {
		return ""
	}
	if err := j.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return reasonOf(err)
	}
	if info, err := j.root.Lstat(name); err == nil && info.Mode()&os.ModeSymlink != 0 {
		_ = j.root.Remove(name)
	}
	if err := j.root.Symlink(filepath.FromSlash(target), name); err != nil {
		return "symbolic link: " + err.Error()
	}
	return ""
}

func splitList(data []byte) []string {
	if len(data) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
}

// landing is where a path of the machine goes below dst.
func landing(name string) string { return strings.TrimPrefix(path.Clean(name), "/") }
