package remote

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// gitIgnore is read in every directory outside of git's work trees too: what it names, such as a file of keys, is not
// to be sent only because "git init" was never run.
const gitIgnore = ".gitignore"

// walking is a walk through a directory that git knows nothing of.
type walking struct {
	dir    string
	byGit  bool // honour .gitignore
	ignore []levelRules
	list   []string
}

// levelRules are the rules of one directory's ignore file. They see paths below that directory.
type levelRules struct {
	base  string // "" or "dir/"
	rules ignoreRules
}

// walk lists everything but .git and, byGit, what .gitignore names, with the directories that are empty. It follows no
// links.
func walk(dir string, byGit bool) ([]string, error) {
	w := walking{dir: dir, byGit: byGit}
	if err := w.into("."); err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	return w.list, nil
}

func (w *walking) into(dir string) error {
	local := filepath.Join(w.dir, filepath.FromSlash(dir))
	entries, err := os.ReadDir(local)
	if err != nil {
		return err
	}
	if len(entries) == 0 && dir != "." {
		w.list = append(w.list, dir)
		return nil
	}
	outer := len(w.ignore)
	defer func() { w.ignore = w.ignore[:outer] }()
	if w.byGit {
		if err := w.read(dir, local); err != nil {
			return err
		}
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		switch {
		case e.Name() == ".git" || ours(name) || w.ignored(name, e.IsDir()):
		case e.IsDir():
			if err := w.into(name); err != nil {
				return err
			}
		default:
			w.list = append(w.list, name)
		}
	}
	return nil
}

// read takes in a directory's .gitignore. As in git, one that is a link counts for nothing.
func (w *walking) read(dir, local string) error {
	file := filepath.Join(local, gitIgnore)
	info, err := os.Lstat(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil
	}
	if err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	rules, err := parseIgnore(path.Join(dir, gitIgnore), string(text))
	if err != nil {
		return err
	}
	level := levelRules{rules: rules}
	if dir != "." {
		level.base = dir + "/"
	}
	w.ignore = append(w.ignore, level)
	return nil
}

// ignored asks the rules, the deepest directory's first. Directories above name are not ignored, or the walk would not
// have come here.
func (w *walking) ignored(name string, isDir bool) bool {
	for i := len(w.ignore) - 1; i >= 0; i-- {
		if ignored, said := w.ignore[i].rules.verdict(name[len(w.ignore[i].base):], isDir); said {
			return ignored
		}
	}
	return false
}

// leftOut knows what lies in the places that a caller keeps out of a push. They are compared as files and not as
// names: one file can have several names.
type leftOut struct {
	root    *os.Root
	exclude []fs.FileInfo
	known   map[string]bool
}

func statAll(files []string) []fs.FileInfo {
	var infos []fs.FileInfo
	for _, name := range files {
		if info, err := os.Stat(name); err == nil { // what is not there cannot be sent
			infos = append(infos, info)
		}
	}
	return infos
}

// has reports whether name, or a directory above it, is to be left out.
func (l leftOut) has(name string) bool {
	if len(l.exclude) == 0 || name == "." {
		return false
	}
	if out, ok := l.known[name]; ok {
		return out
	}
	out := l.has(path.Dir(name))
	if !out {
		if info, err := l.root.Lstat(name); err == nil {
			for _, e := range l.exclude {
				out = out || os.SameFile(e, info)
			}
		}
	}
	l.known[name] = out
	return out
}
