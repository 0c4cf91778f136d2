package remote

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"time"
)

// receive asks for files and writes what comes. Only what is in need is ever written.
func (j *fetching) receive(ctx context.Context, n *conn, need []*remoteFile, room *allowance) error {
	want := map[string]bool{}
	for _, f := range need {
		want[f.name] = true
	}
	unpack := func(head reply, r *bufio.Reader) error { return j.unpack(head.get("how"), r, want, room) }
	paths := nulList(pathsOf(need))
	if g := j.giver(); g != nil {
		return g.give(ctx, paths, unpack)
	}
	return n.stream(ctx, j.verb("send", j.base, n.pressing()), paths, unpack)
}

// unpack reads the data of "files.sh send".
func (j *fetching) unpack(how string, r *bufio.Reader, want map[string]bool, room *allowance) error {
	plain, err := decompress(how, r)
	if err != nil {
		return err
	}
	defer func() { _ = plain.Close() }()
	stream := bufio.NewReaderSize(plain, 64<<10)
	in := &folder{root: j.root}
	defer in.close()
	for {
		if _, err := stream.Peek(1); err == io.EOF {
			return nil
		} else if err != nil {
			return streamError(err)
		}
		// A long list makes several archives, one behind the other, and zeros behind each.
		archive := tar.NewReader(stream)
		for {
			h, err := archive.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return streamError(err)
			}
			if err := j.entry(in, h, archive, want, room); err != nil {
				return err
			}
		}
	}
}

// streamError tells a stream that was cut from one that makes no sense.
func streamError(err error) error {
	switch err = early(err); {
	case errors.Is(err, ErrConnLost), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return fmt.Errorf("%w: %w", ErrMachine, err)
}

func (j *fetching) entry(in *folder, h *tar.Header, content io.Reader, want map[string]bool, room *allowance) error {
	name := landing(h.Name)
	if !want[name] {
		return nil
	}
	switch h.Typeflag {
	case tar.TypeReg:
	case tar.TypeLink:
		// Another name of a file that came before.
		source, err := j.root.Open(landing(h.Linkname))
		if err != nil {
			return fmt.Errorf("%s, a hard link to %s: %w", name, landing(h.Linkname), err)
		}
		defer func() { _ = source.Close() }()
		info, err := source.Stat()
		if err != nil {
			return err
		}
		h.Size, content = info.Size(), source
	default:
		return nil
	}
	if err := room.take(h.Size); err != nil {
		return err
	}
	hash, err := j.store(in, name, h, content)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	j.came(Fetched{Path: name, Bytes: h.Size, SHA256: hash}, h.Size)
	return nil
}

// partNumber makes the names of unfinished files differ within a process.
var partNumber atomic.Int64

// store writes a file. The owner's permissions are kept, write permission for others is not, nor are setuid and the
// like.
func (j *fetching) store(in *folder, name string, h *tar.Header, content io.Reader) (hash string, err error) {
	dir, base, err := in.made(name)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	err = beside(dir, base, h.ModTime, func(f *os.File) error {
		if _, err := io.CopyN(io.MultiWriter(f, sum), content, h.Size); err != nil {
			return early(err)
		}
		return chmod(f, fs.FileMode(h.Mode))
	})
	return hex.EncodeToString(sum.Sum(nil)), err
}

// chmod gives a file what of a mode is taken over from the machine, where the system knows modes.
func chmod(f *os.File, mode fs.FileMode) error {
	if err := f.Chmod(mode&0o755 | 0o600); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// beside writes a file beside its place and renames it into it. A time that is not zero becomes its time.
func beside(dir *os.Root, base string, mtime time.Time, fill func(*os.File) error) error {
	part := fmt.Sprintf(".gpulease-part-%d-%d", os.Getpid(), partNumber.Add(1))
	f, err := dir.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = fill(f)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil && !mtime.IsZero() {
		err = dir.Chtimes(part, mtime, mtime)
	}
	if err == nil {
		err = dir.Rename(part, base)
	}
	if err != nil {
		_ = dir.Remove(part)
	}
	return err
}
