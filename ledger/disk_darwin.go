package ledger

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// CheckDisk fails with [ErrNetworkDisk] where dir, which has to exist, is on a file system that is known to be on a network.
func CheckDisk(dir string) error {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return fmt.Errorf("find the file system of %s: %w", dir, err)
	}
	if s.Flags&unix.MNT_LOCAL == 0 {
		return ErrNetworkDisk
	}
	return nil
}
