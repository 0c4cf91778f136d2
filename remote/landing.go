package remote

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// openTarget opens the directory that files land in, and makes it if need be.
func openTarget(dst string, unlinked bool) (*os.Root, error) {
	if unlinked {
		if err := noLinks(dst); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dst)
	if err != nil || !unlinked {
		return root, err
	}
	// A link may have come in between. What is open stays what it is, so it is looked at now.
	err = noLinks(dst)
	if err == nil {
		err = isAt(root, dst)
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return root, nil
}

// noLinks fails where a link leads to dir, or to as much of it as is there.
func noLinks(dir string) error {
	at := filepath.Clean(dir)
	for {
		_, err := os.Lstat(at)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			return err
		}
		at = filepath.Dir(at)
	}
	real, err := filepath.EvalSymlinks(at)
	if err != nil {
		return err
	}
	if real != at {
		return invalid("a link leads from %s to %s, and nothing is written there", at, real)
	}
	return nil
}

// isAt fails where another directory is at dir than the one that is open.
func isAt(root *os.Root, dir string) error {
	open, err := root.Stat(".")
	if err != nil {
		return err
	}
	there, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !os.SameFile(open, there) {
		return invalid("%s was replaced while it was opened", dir)
	}
	return nil
}
