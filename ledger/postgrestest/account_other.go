//go:build !unix

package postgrestest

import (
	"fmt"
	"os/exec"
	"runtime"
)

type account struct{}

func whoRuns() (account, error) {
	return account{}, fmt.Errorf("%w that these tests could run on %s", ErrMissing, runtime.GOOS)
}

func (account) own(string) error { return nil }
func (account) run(*exec.Cmd)    {}
