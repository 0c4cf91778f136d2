package remote

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// manifest is what pushes have put into a directory of the machine and have not deleted since. It is kept on the
// machine, so that any process that pushes there knows what is ours.
type manifest map[string]record

type record struct {
	kind byte
	mode fs.FileMode
	hash string // sha256 in hex, of the content or of the link's target; empty for a directory
}

const mostManifest = 256 << 20 // bytes, unpacked

// encode writes "kind mode hash path" for each path, each ended by NUL, sorted and compressed. It is quick before it is
// small: half of it is hashes, and a push of a few files takes not much longer than this.
func (m manifest) encode() ([]byte, error) {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	var text []byte
	for _, name := range slices.Sorted(maps.Keys(m)) {
		r := m[name]
		text = append(text, r.kind, ' ')
		text = strconv.AppendUint(text, uint64(r.mode), 8)
		text = append(append(append(text, ' '), r.hash...), ' ')
		text = append(append(text, name...), 0)
		if len(text) >= 64<<10 {
			_, _ = z.Write(text) // into memory, so that only Close has to be asked
			text = text[:0]
		}
	}
	_, _ = z.Write(text)
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return out.Bytes(), nil
}

// decodeManifest reads what encode wrote; nothing at all is an empty manifest.
func decodeManifest(data []byte) (manifest, error) {
	m := manifest{}
	if len(data) == 0 {
		return m, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: manifest of the last push: %w", ErrMachine, err)
	}
	text, err := io.ReadAll(io.LimitReader(z, mostManifest))
	if err != nil {
		return nil, fmt.Errorf("%w: manifest of the last push: %w", ErrMachine, err)
	}
	for entry := range strings.SplitSeq(string(text), "\x00") {
		if entry == "" {
			continue
		}
		parts := strings.SplitN(entry, " ", 4)
		if len(parts) != 4 || len(parts[0]) != 1 || !validName(parts[3]) {
			return nil, fmt.Errorf("%w: manifest of the last push: %q", ErrMachine, entry)
		}
		mode, err := strconv.ParseUint(parts[1], 8, 32)
		if err != nil {
			return nil, fmt.Errorf("%w: manifest of the last push: %q", ErrMachine, entry)
		}
		m[parts[3]] = record{kind: parts[0][0], mode: fs.FileMode(mode), hash: parts[2]}
	}
	return m, nil
}

// validName reports whether name is a path below a root and in its shortest form. Its bytes need not be UTF-8.
func validName(name string) bool {
	return name != "." && name != ".." && !strings.HasPrefix(name, "../") && !path.IsAbs(name) && path.Clean(name) == name
}

// below reports whether a push has put something under the directory.
func (m manifest) below(dir string) bool {
	for name := range m {
		if strings.HasPrefix(name, dir+"/") {
			return true
		}
	}
	return false
}

// removal is how files.sh is told to remove name if it is still what was put there.
func (r record) removal(name string) string {
	if r.kind == kindFile {
		return r.hash + " ./" + name
	}
	return string(r.kind) + " ./" + name
}

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
