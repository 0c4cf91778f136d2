package machine

import (
	"os"
	"os/exec"
)

// hostEnv is what programs cannot do without on this system.
func hostEnv() []string {
	return []string{"SystemRoot=" + os.Getenv("SystemRoot"), "PATHEXT=" + os.Getenv("PATHEXT")}
}

func detach(*exec.Cmd) {}

// signal can only kill: Windows has no signals.
func (x *command) signal(name string) bool {
	return name == "KILL" && x.cmd.Process.Kill() == nil
}

func exitSignal(*os.ProcessState) string { return "" }

// groupAlive is false: a command is forgotten when it has ended.
func groupAlive(int) bool { return false }
