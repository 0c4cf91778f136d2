//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// detach puts the command into a session of its own: what kills the process
// group of the agent host does not reach it.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
