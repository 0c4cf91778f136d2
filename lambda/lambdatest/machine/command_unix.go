//go:build unix

package machine

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// signals are those that SSH has names for.
var signals = map[string]syscall.Signal{
	"ABRT": syscall.SIGABRT, "ALRM": syscall.SIGALRM, "FPE": syscall.SIGFPE, "HUP": syscall.SIGHUP,
	"ILL": syscall.SIGILL, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL, "PIPE": syscall.SIGPIPE,
	"QUIT": syscall.SIGQUIT, "SEGV": syscall.SIGSEGV, "TERM": syscall.SIGTERM,
	"USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
}

// hostEnv is what programs cannot do without on this system.
func hostEnv() []string { return nil }

// detach puts the command in a session of its own.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

// signal sends a signal to the command's group.
func (x *command) signal(name string) bool {
	sig, ok := signals[name]
	if !ok {
		return false
	}
	select {
	case <-x.done:
		return false
	default:
		return syscall.Kill(-x.cmd.Process.Pid, sig) == nil
	}
}

// exitSignal is SSH's name of the signal that ended a process; "" if none did.
func exitSignal(s *os.ProcessState) string {
	status, ok := s.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return ""
	}
	for name, sig := range signals {
		if sig == status.Signal() {
			return name
		}
	}
	return "SIG@openssh.com" // as OpenSSH says for a signal that SSH has no name for
}

func groupAlive(pgid int) bool {
	err := syscall.Kill(-pgid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}
