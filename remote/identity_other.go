//go:build !linux && !darwin

package remote

import "io/fs"

// identify knows none here, so that every file is read.
func identify(fs.FileInfo) (identity, bool) { return identity{}, false }
