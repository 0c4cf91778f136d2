package client

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Write makes the change, and says where a copy of what was there is now; "" if
// there was nothing. The copy can be read by its owner only, since hosts' files
// often hold secrets. A link stays a link; the file keeps its mode.
func (e Edit) Write() (backup string, err error) {
	now, err := os.ReadFile(e.real)
	if errors.Is(err, fs.ErrNotExist) && e.Before == nil {
		return "", replace(e.real, e.After, e.mode)
	}
	if err != nil {
		return "", err
	}
	if e.Before == nil || !bytes.Equal(now, e.Before) {
		return "", fmt.Errorf("%s has just been changed by somebody else, so nothing was written; close the program and try again", e.Path)
	}
	if len(now) > 0 {
		if backup, err = keep(e.Path, now); err != nil {
			return "", fmt.Errorf("keep a copy of %s: %w", e.Path, err)
		}
	}
	return backup, replace(e.real, e.After, e.mode)
}

// keep writes a copy under the first free name.
func keep(path string, text []byte) (string, error) {
	for n := range 1000 {
		to := path + ".gpulease.bak"
		if n > 0 {
			to = fmt.Sprintf("%s.gpulease.bak%d", path, n)
		}
		f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		_, err = f.Write(text)
		return to, errors.Join(err, f.Sync(), f.Close())
	}
	return "", errors.New("there are a thousand of them")
}

// replace puts a whole text in a file's place at once.
func replace(path string, text []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}
