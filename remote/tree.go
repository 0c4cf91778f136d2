package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Kinds of what a push sends.
const (
	kindFile = 'f'
	kindLink = 'l'
	kindDir  = 'd' // an empty one
)

// item is one file, symbolic link or empty directory of a local tree.
type item struct {
	path   string // below the root, with slashes
	kind   byte
	mode   fs.FileMode // permissions only
	size   int64
	mtime  time.Time
	info   fs.FileInfo // when it was listed
	target string      // of a link
	hash   string      // sha256 of the content or of the target, once known
}

// Skipped is a path that a transfer left out, and why.
type Skipped struct {
	Path   string
	Reason string
}

// tree lists what of a local directory is to be sent, sorted by path, without the files and directories in exclude.
func tree(ctx context.Context, dir string, root *os.Root, exclude []string) ([]item, []Skipped, error) {
	names, err := names(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	text, err := root.ReadFile(ignoreFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("read %s: %w", ignoreFile, err)
	}
	rules, err := parseIgnore(ignoreFile, string(text))
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(names)
	names = slices.Compact(names)
	left := leftOut{root: root, exclude: statAll(exclude), known: map[string]bool{}}
	var items []item
	var skipped []Skipped
	in := &folder{root: root}
	defer in.close()
	for _, name := range names {
		info, err := in.lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // in git's index, and deleted
		case err != nil:
			skipped = append(skipped, Skipped{name, reasonOf(err)})
			continue
		}
		if rules.excluded(name, info.IsDir()) || left.has(name) {
			continue
		}
		it := item{path: name, mode: info.Mode().Perm(), mtime: info.ModTime(), info: info}
		switch {
		case info.Mode().IsRegular():
			it.kind, it.size = kindFile, info.Size()
		case info.IsDir():
			it.kind = kindDir
		case info.Mode()&fs.ModeSymlink != 0:
			it.kind = kindLink
			if it.target, err = root.Readlink(name); err != nil {
				skipped = append(skipped, Skipped{name, reasonOf(err)})
				continue
			}
			it.target = filepath.ToSlash(it.target)
			if !staysInside(name, it.target) {
				skipped = append(skipped, Skipped{name, "symbolic link out of the directory, to " + it.target})
				continue
			}
		default:
			skipped = append(skipped, Skipped{name, "not a file: " + info.Mode().Type().String()})
			continue
		}
		items = append(items, it)
	}
	return items, skipped, nil
}

// reasonOf is the last part of a path error: the path itself is told beside it.
func reasonOf(err error) string {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err.Error()
	}
	return err.Error()
}

// staysInside reports whether a link at name leads, as it is written, to somewhere below the root.
func staysInside(name, target string) bool {
	if target == "" || path.IsAbs(target) || filepath.IsAbs(target) {
		return false
	}
	return filepath.IsLocal(path.Join(path.Dir(name), target))
}

// names lists the paths below dir: by git itself where dir is in a work tree and not itself ignored there, else by the
// .gitignore files below dir.
func names(ctx context.Context, dir string) ([]string, error) {
	if !inWorkTree(dir) {
		return walk(dir, true)
	}
	list, err := gitNames(ctx, dir, "", 0)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		// Nothing at all is what git says of a directory that the repository around it ignores: then the caller, who
		// names it, means what is in it.
		if _, err := git(ctx, dir, "check-ignore", "-q", "."); err == nil {
			return walk(dir, false)
		}
	}
	return list, nil
}

// inWorkTree looks for .git as git does. It is looked for here so that a git that is missing or fails is an error:
// sending what .gitignore names, such as a file of keys, would be the worse answer.
func inWorkTree(dir string) bool {
	for {
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			return true
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return false
		}
		dir = parent
	}
}

// gitNames lists the tracked files and those that are not ignored, in dir and in the repositories inside it.
func gitNames(ctx context.Context, dir, below string, depth int) ([]string, error) {
	out, err := git(ctx, filepath.Join(dir, filepath.FromSlash(below)), "ls-files", "-co", "--exclude-standard", "-z", "--", ".")
	if err != nil {
		return nil, err
	}
	var list []string
	for name := range strings.SplitSeq(string(out), "\x00") {
		if name == "" {
			continue
		}
		full := path.Join(below, name)
		local := filepath.Join(dir, filepath.FromSlash(full))
		info, err := os.Lstat(local)
		if err == nil && info.IsDir() {
			// A submodule or a repository of its own. Without a .git it is a submodule that was not checked out.
			if _, err := os.Lstat(filepath.Join(local, ".git")); err != nil || depth == 8 {
				continue
			}
			inner, err := gitNames(ctx, dir, full, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, inner...)
			continue
		}
		if !ours(full) {
			list = append(list, full)
		}
	}
	return list, nil
}

// git runs git in dir. What the environment says about another repository must not count, and a repository's own
// settings must not run programs.
func git(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", dir, "-c", "core.fsmonitor=false"}, args...)...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GIT_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "GIT_OPTIONAL_LOCKS=0", "LC_ALL=C")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git %s in %s, to leave out what it ignores: %w: %s", args[0], dir, err, printable(errs.Bytes()))
	}
	return out, nil
}

// ours reports whether a path is one that a push makes on the machine, or a fetch here.
func ours(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	return strings.HasPrefix(first, ".gpulease-stage.") || strings.HasPrefix(path.Base(name), ".gpulease-part-")
}
