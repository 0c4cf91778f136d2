package ledger

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// networkDisks are the types of file systems on which SQLite's shared memory and locks do not reach other machines.
var networkDisks = []int64{unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.AFS_SUPER_MAGIC}

// CheckDisk fails with [ErrNetworkDisk] where dir, which has to exist, is on a file system that is known to be on a network.
func CheckDisk(dir string) error {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return fmt.Errorf("find the file system of %s: %w", dir, err)
	}
	if slices.Contains(networkDisks, int64(uint32(s.Type))) {
		return ErrNetworkDisk
	}
	return nil
}
