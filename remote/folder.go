package remote

import (
	"os"
	"path"
)

// folder opens the files of a tree one after the other. It keeps the directory of the last one open, since going down
// from the root takes a system call for each step. It is for one goroutine; close it.
type folder struct {
	root *os.Root
	dir  string
	sub  *os.Root
}

// at returns the directory of name, and the rest of name in it.
func (f *folder) at(name string) (*os.Root, string, error) {
	dir, base := path.Split(name)
	if dir == "" {
		return f.root, base, nil
	}
	if f.sub != nil && f.dir == dir {
		return f.sub, base, nil
	}
	f.close()
	sub, err := f.root.OpenRoot(dir)
	if err != nil {
		return nil, "", err
	}
	f.dir, f.sub = dir, sub
	return sub, base, nil
}

// made is at for a directory that may have to be made.
func (f *folder) made(name string) (*os.Root, string, error) {
	root, base, err := f.at(name)
	if err == nil || !os.IsNotExist(err) {
		return root, base, err
	}
	if err := f.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return nil, "", err
	}
	return f.at(name)
}

func (f *folder) close() {
	if f.sub != nil {
		_ = f.sub.Close()
		f.sub = nil
	}
}

func (f *folder) lstat(name string) (os.FileInfo, error) {
	dir, base, err := f.at(name)
	if err != nil {
		return nil, err
	}
	return dir.Lstat(base)
}
