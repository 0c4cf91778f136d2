package main

import (
	"os/exec"
	"syscall"
)

// detachedProcess is Windows' DETACHED_PROCESS: no console is shared with the
// agent host.
const detachedProcess = 0x00000008

func detach(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP | detachedProcess}
}
