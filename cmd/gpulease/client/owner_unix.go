//go:build unix

package client

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// owned refuses another user's file: a new one in its place would be ours, and
// that user's host might not read it any more.
func owned(info fs.FileInfo) error {
	if s, ok := info.Sys().(*syscall.Stat_t); ok && int(s.Uid) != os.Geteuid() {
		return errors.New("it belongs to another user; run this as that user")
	}
	return nil
}
