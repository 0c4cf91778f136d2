package remote

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"unicode/utf8"
)

// manifestEntry is one path in the file of [FetchOptions.Manifest].
type manifestEntry struct {
	Path    string `json:"path"`
	RawPath []byte `json:"path_base64,omitempty"` // where the path is not valid UTF-8, and Path only resembles it
	Bytes   *int64 `json:"bytes,omitempty"`
	SHA256  string `json:"sha256,omitempty"`
	Changed bool   `json:"changed,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

func entryOf(name string) manifestEntry {
	if utf8.ValidString(name) {
		return manifestEntry{Path: name}
	}
	return manifestEntry{Path: name, RawPath: []byte(name)}
}

// Complete reports whether everything that was asked for and can come is here.
func (s FetchSummary) Complete() bool { return len(s.Missing) == 0 && len(s.Left) == 0 }

// Manifest is the summary in JSON, for people and programs: what is here with its hash, what was missing on the
// machine, what was left there for want of time, and what was not brought for another reason.
func (s FetchSummary) Manifest() ([]byte, error) {
	m := struct {
		Complete bool            `json:"complete"`
		Bytes    int64           `json:"bytes"`
		Files    []manifestEntry `json:"files"`
		Missing  []manifestEntry `json:"missing"`
		Left     []manifestEntry `json:"left"`
		Skipped  []manifestEntry `json:"skipped"`
	}{s.Complete(), s.Bytes, []manifestEntry{}, []manifestEntry{}, []manifestEntry{}, []manifestEntry{}}
	for _, f := range s.Files {
		e := entryOf(f.Path)
		e.Bytes, e.SHA256, e.Changed = &f.Bytes, f.SHA256, f.Changed
		m.Files = append(m.Files, e)
	}
	for _, name := range s.Missing {
		m.Missing = append(m.Missing, entryOf(name))
	}
	for _, l := range s.Left {
		e := entryOf(l.Path)
		e.Bytes = &l.Bytes
		m.Left = append(m.Left, e)
	}
	for _, sk := range s.Skipped {
		e := entryOf(sk.Path)
		e.Reason = sk.Reason
		m.Skipped = append(m.Skipped, e)
	}
	data, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return append(data, '\n'), nil
}

// writeManifest puts the manifest into dst by rename.
func writeManifest(root *os.Root, name string, s FetchSummary) error {
	data, err := s.Manifest()
	if err != nil {
		return err
	}
	if err := putFile(root, filepath.ToSlash(name), 0o644, bytes.NewReader(data)); err != nil {
		return fmt.Errorf("write manifest %s: %w", name, err)
	}
	return nil
}

// putFile writes a file beside its place and renames it into it.
func putFile(root *os.Root, name string, mode os.FileMode, content io.Reader) (err error) {
	part := path.Join(path.Dir(name), fmt.Sprintf(".gpulease-part-%d-%d", os.Getpid(), partNumber.Add(1)))
	f, err := root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = root.Rename(part, name)
	}
	if err != nil {
		_ = root.Remove(part)
	}
	return err
}
