//go:build unix

package policy

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// checkWriters refuses a file that others than this user and root may change: who can write the policy can spend the money.
func checkWriters(path string, info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("others may write the policy (mode %04o): run chmod go-w %s", mode, quote(path))
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int64(st.Uid) != int64(os.Geteuid()) {
		return fmt.Errorf("the policy belongs to another user (uid %d): run sudo chown %d %s", st.Uid, os.Geteuid(), quote(path))
	}
	dir := filepath.Dir(path)
	parent, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if mode := parent.Mode(); mode.Perm()&0o002 != 0 && mode&fs.ModeSticky == 0 {
		return fmt.Errorf("anybody may replace the policy, for its directory has mode %04o: run chmod o-w %s", mode.Perm(), quote(dir))
	}
	return nil
}
