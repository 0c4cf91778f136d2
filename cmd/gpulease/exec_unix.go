//go:build unix

package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// execProgram replaces this process by a program that finds the key in its
// standard input. It returns only if that fails.
func execProgram(path string, args []string, key string) error {
	if key != "" {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = w.WriteString(key) // a pipe holds more than a key without anybody reading
		if closeErr := w.Close(); err == nil {
			err = closeErr
		}
		if err == nil {
			err = unix.Dup2(int(r.Fd()), 0)
		}
		if err != nil {
			return fmt.Errorf("hand over the key: %w", err)
		}
	}
	return &os.PathError{Op: "exec", Path: path, Err: unix.Exec(path, args, os.Environ())}
}
