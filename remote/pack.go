package remote

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A file up to this size is read whole before its header is written, so that one that grows or shrinks is sent as it
// was at one moment. Of a larger one that grows, the size at the beginning is sent.
const readWhole = 8 << 20

// packing is one attempt to send a plan: a tar for "files.sh apply".
type packing struct {
	plan     *plan
	root     *os.Root
	progress func(files int, bytes int64)

	next    manifest // with the hashes of what was really read
	files   int
	bytes   int64
	skipped []Skipped
}

// write writes the archive to w. Hashes are taken from what goes out, not from an earlier reading.
func (k *packing) write(w io.Writer) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(z)
	k.next = maps.Clone(k.plan.next)
	for _, it := range k.plan.send {
		err := k.add(archive, it)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotFile) || errors.Is(err, fs.ErrPermission) {
			k.skipped = append(k.skipped, Skipped{it.path, reasonOf(err)})
			continue
		}
		if err != nil {
			return fmt.Errorf("send %s: %w", it.path, err)
		}
		k.files++
		k.bytes += it.size
		if k.progress != nil {
			k.progress(k.files, k.bytes)
		}
	}
	if err := k.addPlan(archive); err != nil {
		return fmt.Errorf("send manifest: %w", err)
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return z.Close()
}

func (k *packing) add(archive *tar.Writer, it *item) error {
	// GNU's format: busybox's tar does not know long names in PAX.
	h := &tar.Header{Name: "t/" + it.path, Mode: int64(it.mode | 0o600), ModTime: it.mtime, Format: tar.FormatGNU}
	switch it.kind {
	case kindDir:
		h.Typeflag, h.Name, h.Mode = tar.TypeDir, h.Name+"/", int64(it.mode|0o700)
		k.next[it.path] = it.record()
		return archive.WriteHeader(h)
	case kindLink:
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, it.target, 0o777
		k.next[it.path] = it.record()
		return archive.WriteHeader(h)
	}
	f, err := k.open(it)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var source io.Reader = f
	size := info.Size()
	if size <= readWhole {
		data, err := io.ReadAll(io.LimitReader(f, 2*readWhole))
		if err != nil {
			return err
		}
		source, size = bytes.NewReader(data), int64(len(data))
	}
	h.Typeflag, h.Size = tar.TypeReg, size
	if err := archive.WriteHeader(h); err != nil {
		return err
	}
	hash := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(archive, hash), source, size); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("file got shorter while it was read")
		}
		return err
	}
	it.size, it.hash = size, hex.EncodeToString(hash.Sum(nil))
	k.next[it.path] = it.record()
	return nil
}

var errNotFile = errors.New("no longer a regular file")

// open opens what was listed. Something else may have come to its place since: a link, which could lead to any file
// below the root, or a pipe, whose opening would block.
func (k *packing) open(it *item) (*os.File, error) {
	listed, err := k.root.Lstat(it.path)
	if err != nil {
		return nil, err
	}
	if !listed.Mode().IsRegular() {
		return nil, errNotFile
	}
	f, err := k.root.Open(filepath.FromSlash(it.path))
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !os.SameFile(info, listed) {
		_ = f.Close()
		return nil, errNotFile
	}
	return f, nil
}

// addPlan writes what files.sh reads itself, and at the very end the mark that all has come.
func (k *packing) addPlan(archive *tar.Writer) error {
	both := maps.Clone(*k.plan.known)
	maps.Copy(both, k.next)
	now, err := both.encode()
	if err != nil {
		return err
	}
	next, err := k.next.encode()
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{
		{"before", nulList(k.plan.before)},
		{"after", nulList(k.plan.after)},
		{"both", now},
		{"new", next},
		{"end", nil},
	} {
		h := &tar.Header{Name: f.name, Mode: 0o600, Size: int64(len(f.data)), ModTime: time.Unix(0, 0), Format: tar.FormatGNU}
		if err := archive.WriteHeader(h); err != nil {
			return err
		}
		if _, err := archive.Write(f.data); err != nil {
			return err
		}
	}
	return nil
}

func nulList(list []string) []byte {
	if len(list) == 0 {
		return nil
	}
	return []byte(strings.Join(list, "\x00") + "\x00")
}
