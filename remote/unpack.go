package remote

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"sync/atomic"
)

// receive asks for files and writes what comes. Only what is in need is ever written.
func (j *fetching) receive(n *conn, need []remoteFile) error {
	want := map[string]bool{}
	paths := make([]string, len(need))
	for i, f := range need {
		want[f.name] = true
		paths[i] = f.path
	}
	ctx, cancel := context.WithCancel(j.ctx)
	defer cancel()
	read, write := io.Pipe()
	unpacked := make(chan error, 1)
	j.came = 0
	go func() {
		err := j.unpack(read, want)
		if err != nil {
			cancel() // what still comes is of no use
		}
		_ = read.CloseWithError(err)
		unpacked <- err
	}()
	status, err := n.exec(ctx, execution{
		command: filesScript.command([]string{"send", j.base}),
		stdin:   bytes.NewReader(nulList(paths)),
		stdout:  &tolerant{to: write},
		stderr:  io.Discard,
	})
	_ = write.CloseWithError(err) // nil is the end of the stream
	unpackErr := <-unpacked
	switch {
	case j.ctx.Err() != nil:
		return j.ctx.Err()
	case errors.Is(err, ErrConnLost):
		return err
	case unpackErr != nil:
		return unpackErr
	case err != nil:
		return err
	case status == notInstalled:
		return fmt.Errorf("%w: script %s went away", ErrConnLost, filesScript.file)
	}
	return nil
}

// tolerant passes on what it can and takes the rest: a writer that fails would stop the stream and hang its command.
type tolerant struct {
	to     io.Writer
	mu     sync.Mutex
	broken bool
}

func (w *tolerant) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.broken {
		_, err := w.to.Write(p)
		w.broken = err != nil
	}
	return len(p), nil
}

// unpack reads the reply of "files.sh send".
func (j *fetching) unpack(r io.Reader, want map[string]bool) error {
	stream := bufio.NewReaderSize(r, 64<<10)
	if err := skipToReply(stream); err != nil {
		return err
	}
	if magic, _ := stream.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(stream)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrMachine, err)
		}
		stream = bufio.NewReaderSize(z, 64<<10)
	}
	for {
		if _, err := stream.Peek(1); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("%w: %w", ErrMachine, err)
		}
		// A long list makes several archives, one behind the other, and zeros behind each.
		archive := tar.NewReader(stream)
		for {
			h, err := archive.Next()
			if err == io.EOF {
				break
			}
			if errors.Is(err, io.ErrUnexpectedEOF) {
				return fmt.Errorf("%w: stream ended early", ErrConnLost)
			}
			if err != nil {
				return fmt.Errorf("%w: %w", ErrMachine, err)
			}
			if err := j.entry(h, archive, want); err != nil {
				return err
			}
		}
	}
}

// skipToReply reads up to the data of a reply, past whatever a login script has printed.
func skipToReply(stream *bufio.Reader) error {
	head := make([]byte, 0, 256)
	for len(head) < headLimit {
		c, err := stream.ReadByte()
		if err != nil {
			return fmt.Errorf("%w: %s", ErrMachine, printable(head))
		}
		head = append(head, c)
		if c != '\n' || !bytes.HasSuffix(head, []byte("\n\n")) {
			continue
		}
		if r, ok := parseReply(head); ok {
			return r.failure()
		}
	}
	return fmt.Errorf("%w: %s", ErrMachine, printable(head))
}

func (j *fetching) entry(h *tar.Header, content io.Reader, want map[string]bool) error {
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
	if j.came += h.Size; j.came > j.limit {
		return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, j.limit)
	}
	hash, err := j.store(name, h, content)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	j.got[name] = Fetched{Path: name, Bytes: h.Size, SHA256: hash}
	j.files++
	j.bytes += h.Size
	if j.progress != nil {
		j.progress(j.files, j.bytes)
	}
	return nil
}

var partNumber atomic.Int64

// store writes a file beside its place and renames it into it. The owner's permissions are kept, write permission
// for others is not, nor are setuid and the like.
func (j *fetching) store(name string, h *tar.Header, content io.Reader) (hash string, err error) {
	dir := path.Dir(name)
	if err := j.root.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	part := path.Join(dir, fmt.Sprintf(".gpulease-part-%d-%d", os.Getpid(), partNumber.Add(1)))
	f, err := j.root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = j.root.Remove(part)
		}
	}()
	sum := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(f, sum), content, h.Size); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: stream ended early", ErrConnLost) // whatever cut it: asked again, the rest may come
		}
		return "", err
	}
	if err := f.Chmod(fs.FileMode(h.Mode)&0o755 | 0o600); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return "", err
	}
	if err := f.Close(); err != nil {
		return "", err
	}
	if err := j.root.Chtimes(part, h.ModTime, h.ModTime); err != nil {
		return "", err
	}
	if err := j.root.Rename(part, name); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
