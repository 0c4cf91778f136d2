package tools

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

// confine gives the real path of a local directory that an agent has named, if
// it lies within one of the roots. Symbolic links are followed first: a link
// within a root must not lead out of it.
func confine(dir string, roots []string) (string, error) {
	if len(roots) == 0 {
		return "", pathDenied(dir, "this server gives no access to local files", nil)
	}
	path := dir
	if !filepath.IsAbs(path) {
		path = filepath.Join(roots[0], path)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		// Whether something outside exists is nobody's business.
		if within(filepath.Clean(path), roots) {
			return "", &lease.Error{Code: lease.CodeInvalidInput, Message: fmt.Sprintf("there is no local directory %q", dir), Why: "looked for at " + filepath.Clean(path), Next: "give a directory that exists, absolute or from " + roots[0], Err: err}
		}
		return "", pathDenied(dir, "", roots)
	}
	if !within(real, roots) {
		return "", pathDenied(dir, "", roots)
	}
	info, err := os.Stat(real)
	if err != nil || !info.IsDir() {
		return "", &lease.Error{Code: lease.CodeInvalidInput, Message: fmt.Sprintf("%q is no directory", dir), Next: "give a directory", Err: err}
	}
	return real, nil
}

// confineNew gives the real path of a local directory that an agent wants to have
// written to. It need not be there yet. What is there of it must not be a link out
// of the roots, and neither denied directories nor kept files may lie in it: a
// machine that is not trusted would choose what gpulease is to believe.
func confineNew(dir string, roots, denied, kept []string) (string, error) {
	if len(roots) == 0 {
		return "", pathDenied(dir, "this server gives no access to local files", nil)
	}
	if strings.ContainsFunc(dir, unicode.IsControl) {
		return "", &lease.Error{Code: lease.CodeInvalidInput, Message: fmt.Sprintf("local_dir %s has a control character", quote(dir)), Next: "give another directory"}
	}
	path := filepath.Clean(dir)
	if !filepath.IsAbs(path) {
		path = filepath.Join(roots[0], path)
	}
	real, err := resolvedNew(path)
	if err != nil || !within(real, roots) {
		return "", pathDenied(dir, "", roots)
	}
	if info, err := os.Stat(real); err == nil && !info.IsDir() {
		return "", &lease.Error{Code: lease.CodeInvalidInput, Message: fmt.Sprintf("%q is no directory", dir), Next: "give a directory"}
	}
	if inside(real, denied) {
		return "", pathDenied(dir, "it lies within gpulease's own state or settings", nil)
	}
	for _, root := range roots {
		if below, err := filepath.Rel(root, real); err == nil && filepath.IsLocal(below) {
			if part, yes := remote.RunsHere(filepath.ToSlash(below)); yes {
				return "", pathDenied(dir, fmt.Sprintf("programs of this computer run or obey what is in %q, so nothing from a machine is written there", part), nil)
			}
		}
	}
	for _, own := range slices.Concat(denied, kept) {
		if inside(own, []string{real}) || inside(resolved(own), []string{real}) {
			return "", &lease.Error{
				Code: lease.CodePathDenied, Message: fmt.Sprintf("%q holds gpulease's own state or settings, which must not be overwritten", dir),
				Next: "give a directory below it of its own, or leave local_dir out",
			}
		}
	}
	return real, nil
}

// resolvedNew follows the links in as much of a path as is there.
func resolvedNew(path string) (string, error) {
	rest := ""
	for {
		_, err := os.Lstat(path)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
			return "", err
		}
		path, rest = filepath.Dir(path), filepath.Join(filepath.Base(path), rest)
	}
	real, err := filepath.EvalSymlinks(path)
	return filepath.Join(real, rest), err
}

func within(path string, roots []string) bool {
	for _, root := range roots {
		for _, r := range []string{root, resolved(root)} {
			if rel, err := filepath.Rel(r, path); err == nil && filepath.IsLocal(rel) {
				return true
			}
		}
	}
	return false
}

func resolved(root string) string {
	if real, err := filepath.EvalSymlinks(root); err == nil {
		return real
	}
	return root
}

func pathDenied(dir, why string, roots []string) error {
	e := &lease.Error{Code: lease.CodePathDenied, Message: fmt.Sprintf("%q is outside of what this server may touch", dir), Why: why}
	if e.Why == "" {
		e.Why = "it may read and write below " + strings.Join(roots, ", ")
		e.Next = "give a directory below that; a person can open another one with gpulease serve --root DIR"
	}
	return e
}

// inside reports whether an existing path is one of the directories or lies in
// one. It compares files, since on some systems one file has many names.
func inside(path string, dirs []string) bool {
	for _, dir := range dirs {
		want, err := os.Stat(dir)
		if err != nil {
			continue
		}
		for at := path; ; at = filepath.Dir(at) {
			if info, err := os.Stat(at); err == nil && os.SameFile(want, info) {
				return true
			}
			if at == filepath.Dir(at) {
				break
			}
		}
	}
	return false
}
