package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// DefaultFetchLimit is how many bytes a fetch brings at most when it names no limit.
const DefaultFetchLimit = 2 << 30

// FetchOptions say how [Pool.Fetch] works.
type FetchOptions struct {
	Base string // the directory on the machine that relative paths start from; empty is the home directory
	// MaxBytes is how much all files together may have. 0 is DefaultFetchLimit; negative is no limit.
	MaxBytes int64
	// Progress is called after each file that came, by one goroutine, with sums over all of this fetch.
	Progress func(files int, bytes int64)
}

// FetchSummary is what a fetch brought. Files and Skipped are sorted by path.
type FetchSummary struct {
	Files   []Fetched
	Bytes   int64     // of all Files
	Missing []string  // of the paths that were asked for: not there, or gone before they could be read
	Skipped []Skipped // found, and not brought
}

// Fetched is one file that is here now.
type Fetched struct {
	Path   string // below the target directory, with slashes
	Bytes  int64
	SHA256 string // in hex, of what is here
	// Changed says that the file was being written to: what came is not what was there a moment before or after.
	Changed bool
	// Same says that it was here already and did not have to come.
	Same bool
}

// Fetch brings files and directories into the local directory dst. A relative path lands under its own name below
// dst, an absolute one under its name without the leading slash. Directories come with all files below them, and with
// those links that lead further down; empty directories, other links and special files do not come. A path that is
// itself a link is followed.
//
// Each file is compared with the sha256 that the machine computed, and replaces what is here by rename. Files that
// are here already in the same bytes are not sent. Nothing outside dst is written, whatever the machine sends and
// whatever links there are in dst. What is missing is told in the summary and is not an error.
func (p *Pool) Fetch(ctx context.Context, t Target, paths []string, dst string, o FetchOptions) (FetchSummary, error) {
	sum, err := p.fetch(ctx, t, paths, dst, o)
	if err != nil {
		return sum, fmt.Errorf("fetch to %s: %w", dst, err)
	}
	return sum, nil
}

func (p *Pool) fetch(ctx context.Context, t Target, paths []string, dst string, o FetchOptions) (FetchSummary, error) {
	if len(paths) == 0 {
		return FetchSummary{}, invalid("no paths to fetch")
	}
	base, err := cleanRemote(o.Base)
	if err != nil {
		return FetchSummary{}, err
	}
	job := &fetching{ctx: ctx, base: base, limit: o.MaxBytes, progress: o.Progress, got: map[string]Fetched{}}
	switch {
	case job.limit == 0:
		job.limit = DefaultFetchLimit
	case job.limit < 0:
		job.limit = math.MaxInt64
	}
	for _, name := range paths {
		clean, err := cleanAsked(name)
		if err != nil {
			return FetchSummary{}, err
		}
		job.asked = append(job.asked, clean)
		job.names = append(job.names, name)
	}
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return FetchSummary{}, err
	}
	if job.root, err = os.OpenRoot(dst); err != nil {
		return FetchSummary{}, err
	}
	defer func() { _ = job.root.Close() }()
	err = p.with(ctx, t, job.attempt)
	return job.summary(), err
}

// cleanAsked makes a path one that starts with "./" or "/". A relative one stays below the base.
func cleanAsked(name string) (string, error) {
	if name == "" || strings.ContainsFunc(name, unicode.IsControl) || len(name) > 4000 {
		return "", invalid("path %q", name)
	}
	return cleanRemote(name)
}

// fetching is a fetch under way.
type fetching struct {
	ctx      context.Context
	root     *os.Root
	base     string
	limit    int64
	progress func(files int, bytes int64)
	names    []string // as the caller wrote them
	asked    []string // the same, clean

	got     map[string]Fetched
	missing []string
	skipped []Skipped
	files   int // that came over the connection, and their bytes
	bytes   int64
	came    int64 // bytes, in the archive that is being read
}

// attempt fetches everything that is not here yet. Files that change while they are read get two more chances.
func (j *fetching) attempt(n *conn) error {
	j.missing, j.skipped = nil, nil
	asked := j.asked
	for round := 0; ; round++ {
		there, err := j.list(n, asked)
		if err != nil {
			return err
		}
		if there.total > j.limit {
			return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, there.total, j.limit)
		}
		if round == 0 {
			if err := j.note(there); err != nil {
				return err
			}
		}
		var need []remoteFile
		for _, f := range there.files {
			if hash, err := hashFile(j.root, f.name); err == nil && hash == f.hash {
				old := j.got[f.name]
				j.got[f.name] = Fetched{Path: f.name, Bytes: f.size, SHA256: hash, Same: old.Path == "" || old.Same}
				continue
			}
			need = append(need, f)
		}
		if len(need) > 0 {
			if err := j.receive(n, need); err != nil {
				return err
			}
		}
		asked = asked[:0:0]
		for _, f := range need {
			if came, ok := j.got[f.name]; ok && came.SHA256 == f.hash {
				continue
			}
			asked = append(asked, f.path)
			if round < 2 {
				continue
			}
			if came, ok := j.got[f.name]; ok {
				came.Changed = true
				j.got[f.name] = came
			} else {
				j.missing = append(j.missing, f.path)
			}
		}
		if len(asked) == 0 || round == 2 {
			return nil
		}
	}
}

// note takes down what will not come, and makes the links that may.
func (j *fetching) note(there listing) error {
	for i, kind := range there.kinds {
		switch kind {
		case '-':
			j.missing = append(j.missing, j.names[i])
		case 'o':
			j.skipped = append(j.skipped, Skipped{j.names[i], "not a file or directory"})
		}
	}
	for _, name := range there.closed {
		j.skipped = append(j.skipped, Skipped{landing(name), "no permission to read it"})
	}
	for _, name := range there.odd {
		j.skipped = append(j.skipped, Skipped{landing(name), "not a file"})
	}
	for _, l := range there.links {
		if reason := j.link(l.name, l.target); reason != "" {
			j.skipped = append(j.skipped, Skipped{l.name, reason})
		}
	}
	return nil
}

// link makes a symbolic link, unless it could lead up: links without ".." cannot, however they are put together.
func (j *fetching) link(name, target string) (reason string) {
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

func (j *fetching) summary() FetchSummary {
	sum := FetchSummary{Missing: j.missing, Skipped: j.skipped}
	for _, f := range j.got {
		sum.Files = append(sum.Files, f)
		sum.Bytes += f.Bytes
	}
	slices.SortFunc(sum.Files, func(a, b Fetched) int { return strings.Compare(a.Path, b.Path) })
	slices.SortFunc(sum.Skipped, func(a, b Skipped) int { return strings.Compare(a.Path, b.Path) })
	return sum
}

// listing is the reply of "files.sh list".
type listing struct {
	total  int64
	kinds  []byte // of what was asked for, in order
	files  []remoteFile
	closed []string
	odd    []string
	links  []struct{ name, target string }
}

type remoteFile struct {
	path string // on the machine
	name string // below dst
	size int64
	hash string
}

const mostListing = 256 << 20

func (j *fetching) list(n *conn, asked []string) (listing, error) {
	for tries := 0; ; tries++ {
		r, err := n.call(j.ctx, request{
			script: filesScript,
			args:   []string{"list", j.base, strconv.FormatInt(j.limit, 10)},
			stdin:  func() io.Reader { return bytes.NewReader(nulList(asked)) },
			data:   mostListing,
		})
		if err != nil {
			return listing{}, err
		}
		l, err := parseListing(r, len(asked), j.limit)
		if !errors.Is(err, errMoving) || tries == 3 {
			return l, err
		}
	}
}

func parseListing(r reply, asked int, limit int64) (listing, error) {
	var l listing
	total, err := r.numbers("total", 1)
	if err != nil {
		return l, err
	}
	l.total = total[0]
	var parts [7][]byte
	data, next := r.data, 0
	for _, f := range r.fields {
		if f.key != "part" || next == len(parts) {
			continue
		}
		size, err := strconv.ParseInt(f.value, 10, 64)
		if err != nil || size < 0 || size > int64(len(data)) {
			return l, fmt.Errorf("%w: list part %q", ErrMachine, f.value)
		}
		parts[next], data = data[:size], data[size:]
		next++
	}
	l.kinds = parts[0]
	if next != len(parts) || len(l.kinds) != asked {
		return l, fmt.Errorf("%w: %d answers for %d paths", ErrMachine, len(l.kinds), asked)
	}
	if l.total > limit {
		return l, nil // no hashes were made
	}
	names, sizes, hashes := splitList(parts[1]), strings.Fields(string(parts[5])), strings.Fields(string(parts[6]))
	if len(sizes) != len(names) || len(hashes) != len(names) {
		return l, errMoving
	}
	seen := map[string]bool{}
	for i, name := range names {
		f := remoteFile{path: name, name: landing(name), hash: hashes[i]}
		if f.size, err = strconv.ParseInt(sizes[i], 10, 64); err != nil || len(f.hash) != 64 {
			return l, fmt.Errorf("%w: size %q of %s", ErrMachine, sizes[i], name)
		}
		if !validName(f.name) || !filepath.IsLocal(f.name) {
			return l, fmt.Errorf("%w: path %q", ErrMachine, name)
		}
		if !seen[f.name] {
			seen[f.name] = true
			l.files = append(l.files, f)
		}
	}
	l.closed, l.odd = splitList(parts[2]), splitList(parts[3])
	targets := splitList(parts[4])
	for i := 0; i+1 < len(targets); i += 2 {
		if name := landing(targets[i]); validName(name) && filepath.IsLocal(name) {
			l.links = append(l.links, struct{ name, target string }{name, targets[i+1]})
		}
	}
	return l, nil
}

func splitList(data []byte) []string {
	if len(data) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
}

// landing is where a path of the machine goes below dst.
func landing(name string) string { return strings.TrimPrefix(path.Clean(name), "/") }
