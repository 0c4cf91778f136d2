//go:build unix

package doctor

import (
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// isLoose says whether others than the owner may do anything with a file.
func isLoose(info fs.FileInfo) bool { return info.Mode().Perm()&0o077 != 0 }

// usable says what is wrong with a directory that we have to write in, or "".
func usable(dir string, info fs.FileInfo) string {
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() && os.Geteuid() != 0 {
		return "belongs to another user"
	}
	if unix.Access(dir, unix.W_OK|unix.X_OK) != nil {
		return "cannot be written"
	}
	return ""
}
