package remote

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

const (
	// large is the size from which on a file goes in parts over several channels.
	large = 16 << 20
	// enough is what one more channel must have to carry to be worth its opening.
	enough = 1 << 20
)

// compare lists what has to come, and sets the hashes of the files of which there may be the same here.
func (j *fetching) compare(n *conn, there listing) ([]*remoteFile, error) {
	if !there.hashed {
		var here []*remoteFile
		for i := range there.files {
			f := &there.files[i]
			if info, err := j.root.Lstat(f.name); err == nil && info.Mode().IsRegular() && info.Size() == f.size {
				here = append(here, f)
			}
		}
		if len(here) > 0 {
			j.keep(0)
		}
		if err := j.hash(j.ctx, n, here, nil); err != nil {
			return nil, err
		}
	}
	in := &folder{root: j.root}
	defer in.close()
	var need []*remoteFile
	for i := range there.files {
		f := &there.files[i]
		if f.hash != "" {
			if hash, err := j.local.of(in, f.name); err == nil && hash == f.hash {
				j.mu.Lock()
				old := j.got[f.name]
				j.got[f.name] = Fetched{Path: f.name, Bytes: f.size, SHA256: hash, Same: old.Path == "" || old.Same}
				j.mu.Unlock()
				continue
			}
		}
		need = append(need, f)
	}
	return need, nil
}

// hash asks for the hashes of files, and calls known, if there is one, for each.
func (j *fetching) hash(ctx context.Context, n *conn, files []*remoteFile, known func(*remoteFile)) error {
	small, big := sizeApart(files)
	if len(small) > 0 {
		// Many at a time, which tells nothing when one of them goes away meanwhile.
		err := j.hashThese(ctx, n, small, "bulk", nil)
		switch {
		case errors.Is(err, errMoving):
			big = files
		case err != nil:
			return err
		case known != nil:
			for _, f := range small {
				known(f)
			}
		}
	}
	if len(big) == 0 {
		return nil
	}
	return j.hashThese(ctx, n, big, "each", known)
}

func (j *fetching) hashThese(ctx context.Context, n *conn, files []*remoteFile, how string, known func(*remoteFile)) error {
	paths := nulList(pathsOf(files))
	return n.stream(ctx, []string{"sums", j.base, how}, paths, func(_ reply, r *bufio.Reader) error {
		for _, f := range files {
			line, err := r.ReadSlice('\n') // never more than r holds
			if err == io.EOF {
				return errMoving
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				return err
			}
			if f.hash = strings.TrimSuffix(string(line), "\n"); len(f.hash) != 64 && f.hash != "-" {
				return fmt.Errorf("%w: hash %q of %s", ErrMachine, printable(line), f.path)
			}
			if known != nil {
				known(f)
			}
		}
		return nil
	})
}

func sizeApart(files []*remoteFile) (small, big []*remoteFile) {
	for _, f := range files {
		if f.size < large {
			small = append(small, f)
		} else {
			big = append(big, f)
		}
	}
	return small, big
}

func pathsOf(files []*remoteFile) []string {
	paths := make([]string, len(files))
	for i, f := range files {
		paths[i] = f.path
	}
	return paths
}

// bring gets files: the small ones first and in several archives at once, then each large one over several channels.
// What hashes are not known yet are computed meanwhile.
func (j *fetching) bring(n *conn, need []*remoteFile, ranged, last bool) error {
	var unknown []*remoteFile
	known := map[*remoteFile]chan struct{}{}
	for _, f := range need {
		known[f] = make(chan struct{})
		if f.hash == "" {
			unknown = append(unknown, f)
		} else {
			close(known[f])
		}
	}
	small, big := sizeApart(need)
	if !ranged {
		small, big = need, nil
	}
	room := &allowance{left: j.limit}
	parts := portions(small)
	j.keep(len(parts))
	transfer := func(ctx context.Context) error {
		var streams []func(context.Context) error
		for _, files := range parts {
			streams = append(streams, func(ctx context.Context) error { return j.receive(ctx, n, files, room) })
		}
		if err := together(ctx, streams...); err != nil {
			return err
		}
		j.keep(0)
		for _, f := range big {
			if err := room.take(f.size); err != nil {
				return err
			}
			if err := j.receiveLarge(ctx, n, f, known[f], last); err != nil {
				return err
			}
		}
		return nil
	}
	hash := func(ctx context.Context) error {
		return j.hash(ctx, n, unknown, func(f *remoteFile) { close(known[f]) })
	}
	err := together(j.ctx, transfer, hash)
	if j.ctx.Err() != nil {
		return j.ctx.Err()
	}
	return err
}

// portions divides files into at most bulkStreams parts of about the same size.
func portions(files []*remoteFile) [][]*remoteFile {
	var total int64
	for _, f := range files {
		total += f.size + 512
	}
	count := min(max(total/enough, 1), bulkStreams)
	var all [][]*remoteFile
	var size int64
	start := 0
	for i, f := range files {
		if size += f.size + 512; size >= total/count || i == len(files)-1 {
			all = append(all, files[start:i+1])
			start, size = i+1, 0
		}
	}
	return all
}

// allowance is how many bytes may still come, over all streams: what the machine listed may have grown since.
type allowance struct {
	mu   sync.Mutex
	left int64
}

func (a *allowance) take(size int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.left -= size; a.left < 0 {
		return fmt.Errorf("%w: the files grew over the limit while they came", ErrTooLarge)
	}
	return nil
}
