//go:build unix

package token

import (
	"fmt"
	"os"
)

// onlyOurs refuses a file that others may write: they could add a token of theirs.
func onlyOurs(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("others may write the tokens (mode %04o): run chmod 600 '%s'", mode, f.Name())
	}
	return nil
}
