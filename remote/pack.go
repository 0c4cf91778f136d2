package remote

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"strings"
	"time"
)

// A file up to this size is read whole before its header is written, so that one that grows or shrinks is sent as it
// was at one moment. Of a larger one that grows, the size at the beginning is sent.
const readWhole = 8 << 20

// packing is one archive for "files.sh apply".
type packing struct {
	push    *pushing
	plan    *plan
	items   []*item
	how     string   // to compress it
	members []member // what files.sh reads itself
	both    bool     // it carries the manifest of what is known to be there and of what may be soon
	last    bool     // it carries the manifest of all that there is then
	earlier []*packing

	in      folder
	next    manifest // with the hashes of what was really read
	files   int
	bytes   int64
	skipped []Skipped
}

// member is a file of an archive that is not one of the items.
type member struct {
	name string
	data []byte
}

// write writes the archive to w. Hashes are taken from what goes out, not from an earlier reading.
func (k *packing) write(w io.Writer) error {
	buffered := bufio.NewWriterSize(w, 256<<10)
	defer k.in.close()
	z, err := compress(k.how, buffered)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(z)
	k.next = manifest{}
	for _, it := range k.items {
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
		k.push.went(1, it.size)
	}
	if err := k.addMembers(archive); err != nil {
		return fmt.Errorf("send manifest: %w", err)
	}
	if err := archive.Close(); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return buffered.Flush()
}

// worthwhile says how to compress the archive, by the first MiB of its files.
func (k *packing) worthwhile() string {
	if k.how != withGzip {
		return k.how
	}
	var sample []byte
	for _, it := range k.items {
		if len(sample) >= sampleSize || it.kind != kindFile {
			break
		}
		f, err := k.open(it)
		if err != nil {
			continue // the adding of it will meet the same, and say so
		}
		data, _ := io.ReadAll(io.LimitReader(f, int64(sampleSize-len(sample))))
		_ = f.Close()
		sample = append(sample, data...)
	}
	if len(sample) < sampleSize/16 {
		return k.how
	}
	return worthwhile(k.how, sample)
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
	if size == info.Size() {
		k.push.local.put(info, it.hash)
	}
	k.next[it.path] = it.record()
	return nil
}

// open opens what was listed, if it is still a file.
func (k *packing) open(it *item) (*os.File, error) {
	dir, base, err := k.in.at(it.path)
	if err != nil {
		return nil, err
	}
	listed, err := dir.Lstat(base)
	if err != nil {
		return nil, err
	}
	if !listed.Mode().IsRegular() {
		return nil, errNotFile
	}
	return openListed(dir, base, listed)
}

// addMembers writes what files.sh reads itself, and at the very end the mark that all has come.
func (k *packing) addMembers(archive *tar.Writer) error {
	members := k.members
	if k.both {
		// A hash in a manifest is that of what is there, and of this it is not known yet.
		all := maps.Clone(*k.plan.known)
		maps.Copy(all, k.plan.next)
		for _, it := range k.plan.send {
			all[it.path] = record{kind: it.kind, mode: it.mode}
		}
		data, err := all.encode()
		if err != nil {
			return err
		}
		members = append(members, member{"both", data})
	}
	if k.last {
		all := maps.Clone(k.plan.next)
		for _, batch := range append(k.earlier, k) {
			maps.Copy(all, batch.next)
		}
		data, err := all.encode()
		if err != nil {
			return err
		}
		members = append(members, member{"new", data})
	}
	for _, m := range append(members, member{"end", nil}) {
		h := &tar.Header{Name: m.name, Mode: 0o600, Size: int64(len(m.data)), ModTime: time.Unix(0, 0), Format: tar.FormatGNU}
		if err := archive.WriteHeader(h); err != nil {
			return err
		}
		if _, err := archive.Write(m.data); err != nil {
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
