package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
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

// writeManifest puts the manifest into the target directory.
func writeManifest(root *os.Root, name string, s FetchSummary) error {
	data, err := s.Manifest()
	if err != nil {
		return err
	}
	in := &folder{root: root}
	defer in.close()
	dir, base, err := in.made(filepath.ToSlash(filepath.Clean(name)))
	if err == nil {
		err = beside(dir, base, time.Time{}, func(f *os.File) error {
			_, err := f.Write(data)
			return errors.Join(err, f.Chmod(0o644))
		})
	}
	if err != nil {
		return fmt.Errorf("write manifest %s: %w", name, err)
	}
	return nil
}
