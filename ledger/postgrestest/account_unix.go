//go:build unix

package postgrestest

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// account is who runs the server, which refuses to be run by root; without a credential that is ourselves.
type account struct{ who *syscall.Credential }

func whoRuns() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return account{}, fmt.Errorf("user %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return account{}, fmt.Errorf("user %s: %w", name, err)
		}
		return account{&syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
	}
	return account{}, fmt.Errorf("%w for anybody but root", ErrMissing)
}

// own gives a file to the account.
func (a account) own(path string) error {
	if a.who == nil {
		return nil
	}
	return os.Chown(path, int(a.who.Uid), int(a.who.Gid))
}

// run makes a program run as the account, and out of reach of a terminal's interrupts.
func (a account) run(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.who, Setpgid: true}
}
