package client

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"unicode/utf8"
)

// maxFile bounds what is read of a host's file.
const maxFile = 64 << 20

// format is how a file is written.
type format interface {
	decode(text []byte) (map[string]any, error)
	set(text []byte, path []string, value any) ([]byte, error)
	remove(text []byte, path []string) ([]byte, error)
}

// Edit is a change of one file that is worked out and not yet made.
type Edit struct {
	Path   string // as the host names it
	Before []byte // nil if there was no file
	After  []byte

	real string // where the text is: what a link leads to
	mode fs.FileMode
}

// Changes reports whether there is anything to do.
func (e Edit) Changes() bool { return !bytes.Equal(e.Before, e.After) }

// bom is what some editors put before a text.
var bom = []byte("\xef\xbb\xbf")

// Install works out how the entry gets into the file. An entry that is there and
// is not as we wrote it fails with ErrEdited, unless force is given.
func (h Host) Install(path string, want Entry, force bool) (Edit, error) {
	if err := want.check(h); err != nil {
		return Edit{}, err
	}
	want = want.marked()
	return h.edit(path, want, func(f format, text []byte, there any) ([]byte, error) {
		have := read(there)
		switch {
		case there == nil:
			return h.add(f, text, want)
		case have.equal(want):
			return text, nil
		case have.ours():
			return h.update(f, text, have, want)
		case !force:
			return nil, fmt.Errorf("the entry %q that is there %w; --force replaces it", Name, ErrEdited)
		}
		text, err := f.remove(text, h.path())
		if err != nil {
			return nil, err
		}
		return h.add(f, text, want)
	})
}

// Uninstall works out how our entry gets out of the file.
func (h Host) Uninstall(path string, force bool) (Edit, error) {
	return h.edit(path, Entry{}, func(f format, text []byte, there any) ([]byte, error) {
		if there == nil {
			return text, nil
		}
		if !read(there).ours() && !force {
			return nil, fmt.Errorf("the entry %q that is there %w; --force removes it", Name, ErrEdited)
		}
		return f.remove(text, h.path())
	})
}

func (h Host) path(more ...string) []string { return append([]string{h.key, Name}, more...) }

// add writes the whole entry where none is.
func (h Host) add(f format, text []byte, e Entry) ([]byte, error) {
	if h.toml {
		t := f.(tomlText)
		text = t.addTable(text, h.path(), map[string]any{"command": e.Command, "args": e.Args}, []string{"command", "args"})
		env := map[string]any{}
		for name, value := range e.Env {
			env[name] = value
		}
		return t.addTable(text, h.path("env"), env, sorted(env)), nil
	}
	kind := ""
	if h.kind {
		kind = "stdio"
	}
	return f.set(text, h.path(), struct {
		Type    string            `json:"type,omitempty"`
		Command string            `json:"command"`
		Args    []string          `json:"args"`
		Env     map[string]string `json:"env"`
	}{kind, e.Command, e.Args, e.Env})
}

// update changes what differs in an entry of ours, and leaves what the host or a
// person has added to it: a timeout, a tool that is allowed.
func (h Host) update(f format, text []byte, have, want Entry) (_ []byte, err error) {
	set := func(differs bool, value any, path ...string) {
		if err == nil && differs {
			text, err = f.set(text, h.path(path...), value)
		}
	}
	set(have.Command != want.Command, want.Command, "command")
	set(!reflect.DeepEqual(have.Args, want.Args), want.Args, "args")
	for _, name := range sorted(want.Env) {
		had, there := have.Env[name]
		set(!there || had != want.Env[name], want.Env[name], "env", name)
	}
	for _, name := range sorted(have.Env) {
		if _, wanted := want.Env[name]; err == nil && !wanted {
			text, err = f.remove(text, h.path("env", name))
		}
	}
	return text, err
}

// edit reads the file, changes its text, and makes sure that nothing but our entry
// reads otherwise than before, and that the entry reads as it should.
func (h Host) edit(path string, want Entry, change func(format, []byte, any) ([]byte, error)) (Edit, error) {
	e, err := open(path)
	if err != nil {
		return e, err
	}
	var f format = jsonText{}
	if h.toml {
		f = tomlText{}
	}
	text, marked := bytes.CutPrefix(e.Before, bom)
	if !utf8.Valid(text) {
		return e, fmt.Errorf("%s is not UTF-8, so nothing was written", path)
	}
	before, err := f.decode(text)
	if err != nil {
		return e, fmt.Errorf("%s cannot be read, so nothing was written: %w", path, err)
	}
	servers, there := before[h.key]
	held, ok := servers.(map[string]any)
	if there && !ok {
		return e, fmt.Errorf("%s: %q holds no servers but something else, so nothing was written", path, h.key)
	}
	after, err := change(f, text, held[Name])
	if err != nil {
		return e, fmt.Errorf("%s: %w", path, err)
	}
	if err := h.verify(f, before, after, want); err != nil {
		return e, fmt.Errorf("%s is written in a way that cannot be edited safely, so nothing was written (%w); edit it by hand", path, err)
	}
	if bytes.Equal(after, text) {
		e.After = e.Before
		return e, nil
	}
	if marked {
		after = append(bytes.Clone(bom), after...)
	}
	e.After = after
	return e, nil
}

// verify compares what is read before and after; an entry without a command stands
// for none.
func (h Host) verify(f format, before map[string]any, text []byte, want Entry) error {
	after, err := f.decode(text)
	if err != nil {
		return err
	}
	servers, _ := after[h.key].(map[string]any)
	entry, there := servers[Name]
	if there != (want.Command != "") || there && !read(entry).equal(want) {
		return errors.New("the entry would not read as it should")
	}
	for _, all := range []map[string]any{before, after} {
		if s, ok := all[h.key].(map[string]any); ok {
			if delete(s, Name); len(s) == 0 {
				delete(all, h.key)
			}
		}
	}
	if !reflect.DeepEqual(before, after) {
		return errors.New("something else would change with it")
	}
	return nil
}

// open reads a file, or finds that there is none in a directory that is there.
func open(path string) (Edit, error) {
	e := Edit{Path: path, real: path, mode: 0o600}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			return e, fmt.Errorf("%w: is it installed, and was it started once? If it keeps its servers elsewhere, name the file with --config", err)
		}
		return e, nil
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return e, err
	}
	e.real = real
	info, err := os.Stat(real)
	if err != nil {
		return e, err
	}
	e.mode = info.Mode().Perm()
	switch {
	case !info.Mode().IsRegular():
		return e, fmt.Errorf("%s is not a file", path)
	case e.mode&0o200 == 0:
		return e, fmt.Errorf("%s is read-only, so nothing was written: something else may make it", path)
	case info.Size() > maxFile:
		return e, fmt.Errorf("%s has more than %d MiB", path, maxFile>>20)
	}
	if err := owned(info); err != nil {
		return e, fmt.Errorf("%s: %w", path, err)
	}
	e.Before, err = os.ReadFile(real)
	if e.Before == nil {
		e.Before = []byte{}
	}
	return e, err
}
