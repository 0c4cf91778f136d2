package main

import "errors"

// execProgram is not there on Windows, where a running program's file cannot be
// replaced either.
func execProgram(string, []string, string) error { return errors.ErrUnsupported }
