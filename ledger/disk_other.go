//go:build !linux && !darwin

package ledger

// CheckDisk always succeeds here: it cannot tell local disks from others.
func CheckDisk(string) error { return nil }
