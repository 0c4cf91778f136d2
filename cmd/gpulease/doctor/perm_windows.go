package doctor

import "io/fs"

// isLoose is never true: a mode says nothing about Windows' access lists, and the
// user's own directories are private there by default.
func isLoose(fs.FileInfo) bool { return false }

func usable(string, fs.FileInfo) string { return "" }
