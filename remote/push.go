package remote

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"unicode"
)

// DefaultPushLimit is how many bytes a push sends at most when it names no limit.
const DefaultPushLimit = 2 << 30

// PushOptions say how [Pool.Push] works. The zero value sends what has changed and deletes nothing.
type PushOptions struct {
	// Delete removes from the machine what an earlier push put there, is no longer here, and has not been changed there.
	Delete bool
	// MaxDelete is how many files Delete may remove; more is [ErrMassDeletion]. 0 is half of what earlier pushes put there,
	// or 10 where that is less; negative is no limit.
	MaxDelete int
	DryRun    bool // compare only: the summary tells what would be sent
	// Exclude are absolute paths of files and directories that are never sent, under whatever name they are met below
	// src. What is not there is no error. A src inside one of them is the caller's to refuse.
	Exclude []string
	// MaxBytes is how much may have to be sent, before compression. 0 is DefaultPushLimit; negative is no limit.
	MaxBytes int64
	// Progress is called after each file that went out and after each part of a large one, by one goroutine at a time,
	// with sums over all of this push. What is sent again after a break counts again.
	Progress func(files int, bytes int64)
}

// freeDeletions is how many files a push with Delete may remove however few there are.
const freeDeletions = 10

// PushSummary is what a push did.
type PushSummary struct {
	Files     int   // files, links and empty directories that the machine has now from here
	Bytes     int64 // of these
	Sent      int   // of these, how many had to be sent
	SentBytes int64 // before compression
	Deleted   int
	Skipped   []Skipped // what of the directory was not sent, and why; what is ignored is not named
}

// Push makes dst on the machine (absolute, or relative to the home directory) have what src has, sending only what
// differs by sha256, or in being executable. In a git work tree the files are those that git tracks or does not
// ignore, otherwise all but .git and what the .gitignore files in src and below it name; what .gpuleaseignore in src names is left out of both. Files keep mode and time.
// Links that lead out of src, devices, pipes and sockets are skipped. The machine needs tar and sha256sum; with zstd,
// flock and GNU dd it goes faster.
//
// Each file appears by rename, whole or not at all; the push as a whole is not atomic. When it breaks off, by ctx or by
// the connection, the next one sends what is missing: files, and parts of large ones. Nothing outside dst is written, deleted or written through a link in dst. What is in
// dst and did not come by a push is overwritten by a file of the same name, and otherwise left alone; a directory in
// the place of a file or the reverse is [ErrConflict]. Two pushes to one dst at once may undo each other's work.
func (p *Pool) Push(ctx context.Context, t Target, src, dst string, o PushOptions) (PushSummary, error) {
	sum, err := p.push(ctx, t, src, dst, o)
	if err != nil {
		return sum, fmt.Errorf("push %s to %s: %w", src, dst, err)
	}
	return sum, nil
}

func (p *Pool) push(ctx context.Context, t Target, src, dst string, o PushOptions) (PushSummary, error) {
	dst, err := cleanRemote(dst)
	if err != nil {
		return PushSummary{}, err
	}
	if src, err = filepath.Abs(src); err != nil {
		return PushSummary{}, err
	}
	if src, err = filepath.EvalSymlinks(src); err != nil {
		return PushSummary{}, err
	}
	root, err := os.OpenRoot(src)
	if err != nil {
		return PushSummary{}, err
	}
	defer func() { _ = root.Close() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	job := &pushing{ctx: ctx, local: &p.hashes, root: root, dst: dst, options: o, listed: make(chan struct{})}
	go job.list(src, cancel)
	defer func() { <-job.listed }() // before root is closed
	err = p.with(ctx, t, func(n *conn) error {
		for tries := 0; ; tries++ {
			err := job.attempt(n)
			if !errors.Is(err, errMoving) || tries == 3 {
				return err
			}
		}
	})
	<-job.listed
	if job.listErr != nil {
		return PushSummary{}, job.listErr
	}
	job.sum.Files -= len(job.skipped)
	job.sum.Skipped = append(job.left, job.skipped...)
	return job.sum, err
}

// pushing is a push under way. An attempt starts from nothing, so it can be made again.
type pushing struct {
	ctx     context.Context
	local   *hashes
	root    *os.Root
	dst     string
	options PushOptions

	listed  chan struct{} // closed when what follows is known: it is found out while the machine is asked for
	items   []item
	left    []Skipped
	listErr error

	mu      sync.Mutex // of what follows: several streams go at once
	sum     PushSummary
	skipped []Skipped
	files   int // that went out in all attempts, and their bytes
	bytes   int64
}

// list finds out what there is here, and has the rest end if it cannot.
func (j *pushing) list(src string, fail func()) {
	defer close(j.listed)
	if j.items, j.left, j.listErr = tree(j.ctx, src, j.root, j.options.Exclude); j.listErr != nil {
		fail()
		return
	}
	if runtime.GOOS == "windows" {
		for i := range j.items {
			j.items[i].mode = 0o644
		}
	}
}

// went takes down what was sent.
func (j *pushing) went(files int, bytes int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.files += files
	j.bytes += bytes
	if j.options.Progress != nil {
		j.options.Progress(j.files, j.bytes)
	}
}

func (j *pushing) attempt(n *conn) error {
	ctx, cancel := context.WithCancel(j.ctx)
	defer cancel()
	j.skipped = nil
	crew := &crew{hire: func() *taker { return j.taker(ctx, n) }}
	defer crew.dismiss()
	prepared := func() {}
	defer func() { prepared() }()
	there, err := j.probe(ctx, n, func() {
		<-j.listed
		j.sum.Files, j.sum.Bytes = len(j.items), 0
		for _, it := range j.items {
			j.sum.Bytes += it.size
		}
		if j.listErr != nil || j.options.DryRun {
			return
		}
		if j.sum.Bytes > oneArchive {
			prepared = n.prepareBulk()
		}
		crew.grow(j.expected(n))
	})
	if err != nil {
		return err
	}
	if n.near() {
		there.how = asItIs
	}
	plan, err := makePlan(j.local, j.root, j.items, there, j.options.Delete)
	if err != nil {
		return err
	}
	limit := j.options.MaxBytes
	if limit == 0 {
		limit = DefaultPushLimit
	}
	if limit > 0 && plan.size > limit {
		return tooMuch(plan, limit)
	}
	if err := plan.guard(j.options.MaxDelete); err != nil {
		return err
	}
	if j.options.DryRun {
		j.sum.Sent, j.sum.SentBytes, j.sum.Deleted = len(plan.send), plan.size, len(plan.after)
		return nil
	}
	if !plan.idle() {
		if err := j.apply(ctx, n, plan, there, crew); err != nil {
			return err
		}
	}
	if err := j.remember(n, there); err != nil {
		return err
	}
	n.pushed.Store(j.dst, true)
	return nil
}

// expected is how many streams will be wanted, as far as can be told before it is known what the machine has.
func (j *pushing) expected(n *conn) int {
	if _, again := n.pushed.Load(j.dst); again || j.sum.Bytes <= oneArchive {
		return 1
	}
	return bulkStreams
}

// tooMuch names what takes the most room, so that it can be left out.
func tooMuch(p *plan, limit int64) error {
	files := make([]Left, len(p.send))
	for i, it := range p.send {
		files[i] = Left{it.path, it.size}
	}
	return fmt.Errorf("%w: %d bytes to send, at most %d; the largest: %s", ErrTooLarge, p.size, limit, largest(files))
}

// CheckPath says what is wrong with a path on the machine that is to be fetched, before anything is asked of the machine.
func CheckPath(name string) error {
	_, err := cleanAsked(name)
	return err
}

// cleanRemote makes a directory on the machine one that cd takes as it stands. A relative one stays in the home.
func cleanRemote(dir string) (string, error) {
	if strings.ContainsFunc(dir, unicode.IsControl) || len(dir) > 4000 {
		return "", invalid("remote directory %q", dir)
	}
	if dir == "~" || dir == "" {
		return "./.", nil
	}
	dir = strings.TrimPrefix(dir, "~/")
	if strings.HasPrefix(dir, "/") {
		return path.Clean(dir), nil
	}
	clean := path.Clean(dir)
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", invalid("remote directory %q leaves the home directory; give it as an absolute path", dir)
	}
	return "./" + clean, nil
}
