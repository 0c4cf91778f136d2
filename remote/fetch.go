package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// DefaultFetchLimit is how many bytes a fetch brings at most when it names no limit.
const DefaultFetchLimit = 2 << 30

// FetchOptions say how [Pool.Fetch] works.
type FetchOptions struct {
	Base string // the directory on the machine that relative paths start from; empty is the home directory
	// MaxBytes is how much all files together may have. 0 is DefaultFetchLimit; negative is no limit.
	MaxBytes int64
	// Progress is called after each file that came and after each part of a large one, by one goroutine at a time, with
	// sums over all of this fetch.
	Progress func(files int, bytes int64)
	// Manifest is the name below dst, if any, of a file that gets the summary with all hashes, also when the fetch ends
	// early. See [FetchSummary.Manifest].
	Manifest string
	// Unlinked refuses a dst to which a link leads. Without it, who may put a link in the place of dst, or of a directory
	// above it, decides where the files land.
	Unlinked bool
}

// FetchSummary is what a fetch brought. Files, Left and Skipped are sorted by path.
type FetchSummary struct {
	Files   []Fetched
	Bytes   int64     // of all Files
	Missing []string  // of the paths that were asked for: not there, or gone before they could be read
	Left    []Left    // there, and not here, because the fetch ended early
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

// Left is a file that a fetch found and had no time for.
type Left struct {
	Path  string // below the target directory, with slashes
	Bytes int64
}

// Fetch brings files and directories into the local directory dst. A relative path lands under its own name below
// dst, an absolute one under its name without the leading slash. Directories come with all files below them, and with
// those links that lead further down; empty directories, other links, special files and what this computer would run (see [RunsHere]) do not come.
// A path that is itself a link is followed.
//
// A path with "*", "?", "[a-z]" or "**" (any number of directories) is a pattern, unless a file of that very name is
// there. Hidden files match too. A pattern follows no links, so that it finds nothing outside the directory that it
// begins with.
//
// Each file is compared with the sha256 that the machine computed, and replaces what is here by rename. Files that
// are here already in the same bytes are not sent. Nothing outside dst is written, whatever the machine sends and
// whatever links there are in dst. What is missing is told in the summary and is not an error.
//
// When ctx ends first, or the connection is lost for good, the error says so, the files that had come are here whole,
// and the summary tells what is left. Of a large file the parts that had come are kept beside its place, and the next
// fetch goes on from there.
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
	if o.Manifest != "" && !filepath.IsLocal(o.Manifest) {
		return FetchSummary{}, invalid("manifest %q is not below the target directory", o.Manifest)
	}
	base, err := cleanRemote(o.Base)
	if err != nil {
		return FetchSummary{}, err
	}
	job := &fetching{ctx: ctx, local: &p.hashes, base: base, limit: o.MaxBytes, progress: o.Progress, got: map[string]Fetched{}}
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
		job.asked = append(job.asked, wanted{name, clean})
	}
	if job.root, err = openTarget(dst, o.Unlinked); err != nil {
		return FetchSummary{}, err
	}
	defer func() { _ = job.root.Close() }()
	err = p.with(ctx, t, func(n *conn) error {
		err := job.attempt(n)
		if errors.Is(err, ErrStorage) && !job.memory {
			job.memory = true
			err = job.attempt(n)
		}
		return err
	})
	sum := job.summary()
	looked := err == nil || len(sum.Files)+len(sum.Left)+len(sum.Missing)+len(sum.Skipped) > 0
	if o.Manifest != "" && looked { // what an earlier fetch wrote is worth more than nothing
		err = errors.Join(err, writeManifest(job.root, o.Manifest, sum))
	}
	return sum, err
}

// cleanAsked makes a path one that starts with "./" or "/". A relative one stays below the base.
func cleanAsked(name string) (string, error) {
	if name == "" || strings.ContainsFunc(name, unicode.IsControl) || len(name) > 4000 {
		return "", invalid("path %q", name)
	}
	return cleanRemote(name)
}

// wanted is a path to fetch: as the caller wrote it, and clean.
type wanted struct{ name, path string }

// fetching is a fetch under way.
type fetching struct {
	ctx      context.Context
	local    *hashes
	root     *os.Root
	base     string
	limit    int64
	progress func(files int, bytes int64)
	asked    []wanted
	memory   bool // the machine's disk is full

	found   []remoteFile // all that is to be here in the end
	missing []string
	skipped []Skipped

	givers []*giver // that stand by

	mu    sync.Mutex // of what follows: several streams come at once
	got   map[string]Fetched
	files int // that came over the connection, and their bytes
	bytes int64
}

// verb is a call of files.sh that has to note something meanwhile.
func (j *fetching) verb(words ...string) []string {
	if j.memory {
		return append([]string{"inmemory"}, words...)
	}
	return words
}

// rounds is how often a file that changes while it is read is asked for.
const rounds = 3

// attempt fetches everything that is not here yet.
func (j *fetching) attempt(n *conn) error {
	defer n.prepareBulk()()
	defer j.keep(0)
	j.missing, j.skipped = nil, nil
	asked, err := j.expand(n)
	if err != nil {
		return err
	}
	for round := range rounds {
		there, err := j.list(n, asked)
		if err != nil {
			return err
		}
		if there.total > j.limit {
			return tooLarge(there, j.limit)
		}
		if round == 0 {
			j.note(there, asked)
		}
		j.avoid(&there)
		if round == 0 {
			j.found = there.files
		} else {
			j.gone(there, asked)
		}
		need, err := j.compare(n, there)
		if err != nil {
			return err
		}
		if len(need) > 0 {
			if err := j.bring(n, need, there.ranged, round == rounds-1); err != nil {
				return err
			}
		}
		if asked = j.again(need, round == rounds-1); len(asked) == 0 {
			return nil
		}
	}
	return nil
}

// gone takes down what was there in an earlier round.
func (j *fetching) gone(there listing, asked []wanted) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, kind := range there.kinds {
		if kind == 'f' {
			continue
		}
		if came, here := j.got[landing(asked[i].path)]; here {
			came.Changed = true
			j.got[came.Path] = came
		} else {
			j.missing = append(j.missing, asked[i].path)
		}
	}
}

// again lists what has not come as the machine had it. In the last round it is taken as it is.
func (j *fetching) again(need []*remoteFile, last bool) []wanted {
	j.mu.Lock()
	defer j.mu.Unlock()
	var asked []wanted
	for _, f := range need {
		came, here := j.got[f.name]
		switch {
		case here && came.SHA256 == f.hash:
		case !last:
			asked = append(asked, wanted{f.path, f.path})
		case here:
			came.Changed = true
			j.got[f.name] = came
		default:
			j.missing = append(j.missing, f.path)
		}
	}
	return asked
}

// came takes down a file that is here now, and how many of its bytes have not been counted yet.
func (j *fetching) came(f Fetched, more int64) {
	j.mu.Lock()
	j.got[f.Path] = f
	j.mu.Unlock()
	j.count(1, more)
}

// count adds to what came over the connection.
func (j *fetching) count(files int, more int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.files += files
	j.bytes += more
	if j.progress != nil {
		j.progress(j.files, j.bytes)
	}
}

func (j *fetching) summary() FetchSummary {
	sum := FetchSummary{Missing: j.missing, Skipped: j.skipped}
	for _, f := range j.got {
		sum.Files = append(sum.Files, f)
		sum.Bytes += f.Bytes
	}
	for _, f := range j.found {
		if _, here := j.got[f.name]; !here && !slices.Contains(j.missing, f.path) {
			sum.Left = append(sum.Left, Left{f.name, f.size})
		}
	}
	slices.SortFunc(sum.Files, func(a, b Fetched) int { return strings.Compare(a.Path, b.Path) })
	slices.SortFunc(sum.Left, func(a, b Left) int { return strings.Compare(a.Path, b.Path) })
	slices.SortFunc(sum.Skipped, func(a, b Skipped) int { return strings.Compare(a.Path, b.Path) })
	return sum
}

// tooLarge names what takes the most room, so that the next request can leave it out.
func tooLarge(l listing, limit int64) error {
	files := make([]Left, len(l.files))
	for i, f := range l.files {
		files[i] = Left{f.name, f.size}
	}
	return fmt.Errorf("%w: %d bytes in %d files, at most %d; the largest: %s", ErrTooLarge, l.total, len(files), limit, largest(files))
}

// largest names up to three files.
func largest(files []Left) string {
	slices.SortFunc(files, func(a, b Left) int { return cmp.Compare(b.Bytes, a.Bytes) })
	var names []string
	for _, f := range files[:min(len(files), 3)] {
		names = append(names, fmt.Sprintf("%s (%d bytes)", printable([]byte(f.Path)), f.Bytes))
	}
	return strings.Join(names, ", ")
}
