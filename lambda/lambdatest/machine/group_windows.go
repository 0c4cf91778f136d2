package machine

import "os"

func killGroup(p *os.Process) {
	_ = p.Kill()
}
