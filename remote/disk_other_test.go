//go:build unix && !linux

package remote_test

import "testing"

func smallDisk(t *testing.T, dir string) {
	t.Helper()
	t.Skipf("no way to make a small disk at %s here", dir)
}
