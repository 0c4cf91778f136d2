package remote

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
)

// sendLarge sends one file in parts over several channels. The machine keeps the parts until it has all and their hash
// is right; only then is the file put in its place.
func (j *pushing) sendLarge(ctx context.Context, n *conn, batch *packing, it *item, how string) error {
	defer batch.in.close()
	f, err := batch.open(it)
	if err != nil {
		batch.skipped = append(batch.skipped, Skipped{it.path, reasonOf(err)})
		j.placed(batch, 0)
		return nil
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	it.size, it.mtime = info.Size(), info.ModTime()
	if !sameIdentity(info, it.info) {
		it.hash = "" // it has changed since that was taken, and would be sent in vain again and again
	}
	sample, err := samples(f, it.size)
	if err != nil {
		return fmt.Errorf("send %s: %w", it.path, err)
	}
	how = worthwhile(how, sample[:min(sampleSize, it.size)])
	key := hashOf(fmt.Sprintf("%s %d %d %s", it.path, it.size, it.mtime.UnixNano(), sample))[:16]
	todo, err := j.partsToSend(ctx, n, key, it.size)
	if err != nil {
		return err
	}
	there := newArrivals(partCount(it.size), todo)
	tasks := []func(context.Context) error{func(ctx context.Context) error {
		defer close(there.hashed)
		return it.hashWhole(ctx, f)
	}}
	for first := range min(bulkStreams, len(todo)) {
		tasks = append(tasks, func(ctx context.Context) error {
			return j.sendParts(ctx, n, f, it.size, key, how, everyFrom(todo, first), there)
		})
	}
	join := func(ctx context.Context) error { return j.join(ctx, n, it, key, there) }
	select {
	case n.ahead <- struct{}{}: // one at a time: the rest of the streams are left to those that bring parts
		err = together(ctx, append(tasks, join)...)
		<-n.ahead
	default:
		if err = together(ctx, tasks...); err == nil {
			err = join(ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("send %s: %w", it.path, err)
	}
	batch.files, batch.bytes = 1, it.size
	batch.next[it.path] = it.record()
	j.went(1, 0)
	j.placed(batch, 0)
	return nil
}

// samples are the beginning of a file and pieces from all over it. Files of one path, size and time may differ: where times are
// set, as tar and reproducible builds do. Their parts must not be taken for one another's.
func samples(f io.ReaderAt, size int64) ([]byte, error) {
	const pieces, length = 64, 4 << 10
	all := make([]byte, min(sampleSize, size))
	if _, err := f.ReadAt(all, 0); err != nil {
		return nil, err
	}
	for i := range int64(pieces) {
		piece := make([]byte, min(length, size))
		if _, err := f.ReadAt(piece, (size-int64(len(piece)))/pieces*(i+1)); err != nil {
			return nil, err
		}
		all = append(all, piece...)
	}
	return all, nil
}

// arrivals is what of a large file the machine has.
type arrivals struct {
	ready  []chan struct{} // closed when the part is there
	once   []sync.Once
	hashed chan struct{} // closed when the hash of the file is known, or never will be
}

// newArrivals is for a file of so many parts, of which those in todo, in order, are not there.
func newArrivals(count int, todo []int) *arrivals {
	a := &arrivals{ready: make([]chan struct{}, count), once: make([]sync.Once, count), hashed: make(chan struct{})}
	for i := range a.ready {
		a.ready[i] = make(chan struct{})
		if len(todo) > 0 && todo[0] == i {
			todo = todo[1:]
		} else {
			a.here(i)
		}
	}
	return a
}

func (a *arrivals) here(i int) {
	if i >= 0 && i < len(a.ready) {
		a.once[i].Do(func() { close(a.ready[i]) })
	}
}

// join has the machine read the parts, each when it has come, and put the file in its place when they are what was to be
// sent.
func (j *pushing) join(ctx context.Context, n *conn, it *item, key string, there *arrivals) error {
	_, err := n.feed(ctx, []string{
		"join", j.dst, key, "./" + it.path, strconv.FormatInt(it.size, 10), strconv.FormatUint(uint64(it.mode|0o600), 8),
		fmt.Sprintf("%d.%09d", it.mtime.Unix(), it.mtime.Nanosecond()),
	}, nil, func(w io.Writer) error {
		for i, ready := range there.ready {
			select {
			case <-ready:
			case <-ctx.Done():
				return ctx.Err()
			}
			if _, err := fmt.Fprintf(w, "%d %d\n", int64(i)*partSize, partLength(it.size, i)); err != nil {
				return err
			}
		}
		select {
		case <-there.hashed:
		case <-ctx.Done():
			return ctx.Err()
		}
		if it.hash == "" {
			return ctx.Err() // it could not be read, which its reader says
		}
		_, err := fmt.Fprintf(w, "end %s\n", it.hash)
		return err
	})
	return err
}

// partsToSend are those that the machine does not have from an earlier push of the same file.
func (j *pushing) partsToSend(ctx context.Context, n *conn, key string, size int64) ([]int, error) {
	r, err := n.call(ctx, request{script: filesScript, args: []string{"parts", j.dst, key}})
	if err != nil {
		return nil, err
	}
	done := map[string]bool{}
	for _, f := range r.fields {
		if f.key == "done" {
			done[f.value] = true
		}
	}
	var todo []int
	for i := range partCount(size) {
		if !done[strconv.Itoa(i)] {
			todo = append(todo, i)
		}
	}
	return todo, nil
}

func (j *pushing) sendParts(ctx context.Context, n *conn, f *os.File, size int64, key, how string, mine []int, there *arrivals) error {
	came := func(f field) {
		if i, err := strconv.Atoi(f.value); err == nil && f.key == "part" {
			there.here(i)
		}
	}
	r, err := n.feed(ctx, []string{"part", j.dst, key, how}, came, func(w io.Writer) error {
		buffered := bufio.NewWriterSize(w, 256<<10)
		z, err := compress(how, buffered)
		if err != nil {
			return err
		}
		buffer := make([]byte, 256<<10)
		for _, i := range mine {
			at, length := int64(i)*partSize, partLength(size, i)
			if _, err := fmt.Fprintf(z, "%d %d %d\n", i, at, length); err != nil {
				return err
			}
			part := onlyReader{io.NewSectionReader(f, at, length)}
			switch sent, err := io.CopyBuffer(z, part, buffer); {
			case err != nil:
				return err
			case sent < length:
				return errors.New("file got shorter while it was read")
			}
			j.went(0, length)
		}
		if err := z.Close(); err != nil {
			return err
		}
		return buffered.Flush()
	})
	if err == nil && r.get("whole") != "yes" {
		return fmt.Errorf("%w: parts of a file were not taken", ErrMachine)
	}
	return err
}

// hashWhole reads the file once more, while it is sent: it comes from memory.
func (it *item) hashWhole(ctx context.Context, f *os.File) error {
	if it.hash != "" {
		return nil // compared a moment ago; if it has changed since, the machine finds another hash
	}
	sum := sha256.New()
	buffer := make([]byte, 1<<20)
	whole := io.NewSectionReader(f, 0, it.size)
	for {
		count, err := whole.Read(buffer)
		sum.Write(buffer[:count])
		switch {
		case err == io.EOF:
			it.hash = hex.EncodeToString(sum.Sum(nil))
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}
