package machine

import (
	"net"
	"os"
	"os/exec"
	"slices"

	"golang.org/x/crypto/ssh"
)

// command is a process of the machine that is not yet started.
func (m *Machine) command(argv, env []string) *exec.Cmd {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = m.Home()
	// The last of a name counts: nobody takes the mark off.
	cmd.Env = slices.Concat(m.env, env, []string{Mark + "=" + m.id})
	detach(cmd)
	return cmd
}

// exitMessage is the request that tells a client how its command ended.
func exitMessage(s *os.ProcessState) (name string, payload []byte) {
	if sig := exitSignal(s); sig != "" {
		return "exit-signal", ssh.Marshal(struct {
			Name       string
			CoreDumped bool
			Message    string
			Language   string
		}{Name: sig})
	}
	return "exit-status", ssh.Marshal(struct{ Status uint32 }{uint32(s.ExitCode())})
}

func splitPort(addr string) (host, port string) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr, "0"
	}
	return host, port
}
