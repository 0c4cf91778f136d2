package remote

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// partSize is the length of a part of a large file. The last one is shorter.
const partSize = 8 << 20

func partCount(size int64) int { return int((size + partSize - 1) / partSize) }

func partLength(size int64, i int) int64 { return min(partSize, size-int64(i)*partSize) }

// receiveLarge brings one file in parts over several channels. It is put in its place when it has the hash that the
// machine says it has, or in any case when anyway is set.
func (j *fetching) receiveLarge(ctx context.Context, n *conn, f *remoteFile, known <-chan struct{}, anyway bool) error {
	part, err := j.openPartial(f)
	if err != nil {
		return fmt.Errorf("write %s: %w", f.name, err)
	}
	hash := ""
	tasks := []func(context.Context) error{func(ctx context.Context) (err error) {
		hash, err = part.hash(ctx)
		return err
	}}
	todo := part.todo()
	for first := range min(bulkStreams, len(todo)) {
		tasks = append(tasks, func(ctx context.Context) error { return j.receiveParts(ctx, n, part, everyFrom(todo, first)) })
	}
	err = together(ctx, tasks...)
	if err != nil && !errors.Is(err, errShrank) {
		part.park()
		return err
	}
	select {
	case <-known:
	case <-ctx.Done():
		part.park()
		return ctx.Err()
	}
	if err != nil || hash != f.hash && !anyway {
		part.drop() // the file has changed while it came
		return nil
	}
	if err := part.place(); err != nil {
		part.drop()
		return fmt.Errorf("write %s: %w", f.name, err)
	}
	j.came(Fetched{Path: f.name, Bytes: f.size, SHA256: hash}, 0)
	return nil
}

// everyFrom deals the list out to bulkStreams hands, and returns one hand.
func everyFrom(list []int, first int) []int {
	var mine []int
	for i := first; i < len(list); i += bulkStreams {
		mine = append(mine, list[i])
	}
	return mine
}

func (j *fetching) receiveParts(ctx context.Context, n *conn, part *partial, mine []int) error {
	var ask bytes.Buffer
	for _, i := range mine {
		fmt.Fprintf(&ask, "%d %d\n", int64(i)*partSize, partLength(part.file.size, i))
	}
	err := n.stream(ctx, j.verb("ranges", j.base, part.file.path, n.pressing()), ask.Bytes(), func(head reply, r *bufio.Reader) error {
		plain, err := decompress(head.get("how"), r)
		if err != nil {
			return err
		}
		defer func() { _ = plain.Close() }()
		buffer := make([]byte, 256<<10)
		for _, i := range mine {
			if err := part.take(i, plain, buffer); err != nil {
				return err
			}
			j.count(0, partLength(part.file.size, i))
		}
		return nil
	})
	if errors.Is(err, io.EOF) {
		return errShrank // the stream ended in order, and too soon
	}
	return err
}

// partial is a large file that is coming. The bytes behind its end say which parts are there. While it is written it
// has a name of its own; when the fetch breaks off it is put where the next one finds it.
type partial struct {
	root   *os.Root
	file   *remoteFile
	f      *os.File
	name   string
	parked string
	ready  []chan struct{} // closed when the part is there
	once   []sync.Once
}

// openPartial takes up what an earlier fetch has left of the same file, or begins.
func (j *fetching) openPartial(f *remoteFile) (*partial, error) {
	dir := path.Dir(f.name)
	if err := j.root.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	id := hashOf(fmt.Sprintf("%s %d %d", f.path, f.size, f.mtime.Unix()))[:16]
	count := partCount(f.size)
	p := &partial{
		root: j.root, file: f, parked: path.Join(dir, ".gpulease-part-"+id),
		ready: make([]chan struct{}, count), once: make([]sync.Once, count),
	}
	for i := range p.ready {
		p.ready[i] = make(chan struct{})
	}
	p.name = fmt.Sprintf("%s-%d-%d", p.parked, os.Getpid(), partNumber.Add(1))
	full := f.size + int64(count)
	if j.root.Rename(p.parked, p.name) == nil || p.inherit(dir) {
		info, err := j.root.Lstat(p.name)
		if err == nil && info.Mode().IsRegular() && info.Size() == full {
			if p.f, err = j.root.OpenFile(p.name, os.O_RDWR, 0); err == nil {
				return p, p.recall()
			}
		}
		_ = j.root.Remove(p.name)
	}
	var err error
	if p.f, err = j.root.OpenFile(p.name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, err
	}
	if err := p.f.Truncate(full); err != nil {
		p.drop()
		return nil, err
	}
	return p, nil
}

// inherit takes up what a process that was killed has left. It reports whether there was something.
func (p *partial) inherit(dir string) bool {
	open, err := p.root.Open(dir)
	if err != nil {
		return false
	}
	names, err := open.Readdirnames(-1)
	if err = errors.Join(err, open.Close()); err != nil {
		return false
	}
	found := false
	for _, name := range names {
		rest, left := strings.CutPrefix(name, path.Base(p.parked)+"-")
		number, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(number)
		switch {
		case !left || err != nil || running(pid):
		case found:
			_ = p.root.Remove(path.Join(dir, name))
		default:
			found = p.root.Rename(path.Join(dir, name), p.name) == nil
		}
	}
	return found
}

// running reports whether there is such a process on this computer, as far as that can be known.
func running(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	defer func() { _ = p.Release() }()
	return !errors.Is(p.Signal(syscall.Signal(0)), os.ErrProcessDone)
}

// recall reads which parts are there.
func (p *partial) recall() error {
	marks := make([]byte, len(p.ready))
	if _, err := p.f.ReadAt(marks, p.file.size); err != nil {
		p.drop()
		return err
	}
	for i, mark := range marks {
		if mark == 1 {
			p.once[i].Do(func() { close(p.ready[i]) })
		}
	}
	return nil
}

func (p *partial) todo() []int {
	var list []int
	for i, ready := range p.ready {
		select {
		case <-ready:
		default:
			list = append(list, i)
		}
	}
	return list
}

// take writes a part from r. io.EOF says that r had less, and ended in order.
func (p *partial) take(i int, r io.Reader, buffer []byte) error {
	at := int64(i) * partSize
	for left := partLength(p.file.size, i); left > 0; {
		n, err := io.ReadFull(r, buffer[:min(left, int64(len(buffer)))])
		if err == io.ErrUnexpectedEOF {
			return io.EOF
		}
		if err != nil {
			return err
		}
		if _, err := p.f.WriteAt(buffer[:n], at); err != nil {
			return fmt.Errorf("write %s: %w", p.file.name, err)
		}
		at += int64(n)
		left -= int64(n)
	}
	if _, err := p.f.WriteAt([]byte{1}, p.file.size+int64(i)); err != nil {
		return fmt.Errorf("write %s: %w", p.file.name, err)
	}
	p.once[i].Do(func() { close(p.ready[i]) })
	return nil
}

// hash reads the parts in order, each as soon as it is there.
func (p *partial) hash(ctx context.Context) (string, error) {
	sum := sha256.New()
	buffer := make([]byte, 256<<10)
	for i, ready := range p.ready {
		select {
		case <-ready:
		case <-ctx.Done():
			return "", ctx.Err()
		}
		part := io.NewSectionReader(p.f, int64(i)*partSize, partLength(p.file.size, i))
		if _, err := io.CopyBuffer(sum, part, buffer); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// park leaves the file for the next fetch.
func (p *partial) park() {
	_ = p.f.Close()
	if p.root.Rename(p.name, p.parked) != nil {
		_ = p.root.Remove(p.name)
	}
}

func (p *partial) drop() {
	_ = p.f.Close()
	_ = p.root.Remove(p.name)
}

// place ends the file where its bytes end, and puts it in its place.
func (p *partial) place() error {
	if err := p.f.Truncate(p.file.size); err != nil {
		return err
	}
	if err := chmod(p.f, p.file.mode); err != nil {
		return err
	}
	if err := p.f.Close(); err != nil {
		return err
	}
	if err := p.root.Chtimes(p.name, p.file.mtime, p.file.mtime); err != nil {
		return err
	}
	return p.root.Rename(p.name, p.file.name)
}
