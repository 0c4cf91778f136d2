package remote

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"
)

// identity is what a system tells of a file that changes when its content does. Content can be changed and the time of
// modification set back, but nothing sets back the change time.
type identity struct {
	device, inode     uint64
	size              int64
	modified, changed int64 // unix nanoseconds
}

// sameIdentity reports whether nothing tells a file now from the same before.
func sameIdentity(now, before fs.FileInfo) bool {
	if now == nil || before == nil {
		return false
	}
	is, known := identify(now)
	was, knew := identify(before)
	return known && knew && is == was
}

// hashes remembers the hashes of local files. Safe for concurrent use.
type hashes struct {
	now   func() time.Time
	mu    sync.Mutex
	known map[identity]string
}

// mostHashes is how many files are remembered: some 30 MB.
const mostHashes = 200_000

func (h *hashes) get(info fs.FileInfo) string {
	id, ok := identify(info)
	if !ok {
		return ""
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.known[id]
}

// put takes down what was read from a file of which info was taken before. A file that has only just been changed may
// change again without its times telling.
func (h *hashes) put(info fs.FileInfo, hash string) {
	id, ok := identify(info)
	if !ok || h.now().UnixNano()-id.changed < int64(settled*time.Second) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.known == nil || len(h.known) >= mostHashes {
		h.known = map[identity]string{}
	}
	h.known[id] = hash
}

var errNotFile = errors.New("no longer a regular file")

// of is the hash of a regular file.
func (h *hashes) of(in *folder, name string) (string, error) {
	dir, base, err := in.at(name)
	if err != nil {
		return "", err
	}
	info, err := dir.Lstat(base)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errNotFile
	}
	if hash := h.get(info); hash != "" {
		return hash, nil
	}
	f, err := openListed(dir, base, info)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	hash := hex.EncodeToString(sum.Sum(nil))
	h.put(info, hash)
	return hash, nil
}

// openListed opens what was listed. Something else may have come to its place since: a link, which could lead to any
// file below the root, or a pipe, whose opening would block.
func openListed(dir *os.Root, base string, listed fs.FileInfo) (*os.File, error) {
	f, err := dir.Open(base)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !os.SameFile(info, listed) {
		_ = f.Close()
		return nil, errNotFile
	}
	return f, nil
}
