//go:build unix && !linux

package machine

import (
	"os"
	"syscall"
)

func killGroup(p *os.Process) {
	_ = syscall.Kill(-p.Pid, syscall.SIGKILL)
}
