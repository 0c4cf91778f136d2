package lambdatest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/gpulease/gpulease/lambda/lambdatest/machine"
)

// newMachine starts the machine behind an instance. Half of what is left of the
// boot passes before cloud-init has run: until then the machine shows a host key
// of its own. A machine lives by the real clock, so with a virtual one cloud-init
// has run from the start.
func (s *Server) newMachine(ctx context.Context, i *instance, now time.Time) (*machine.Machine, error) {
	var keys []ssh.PublicKey
	for _, text := range i.AuthorizedKeys {
		k := parsePublicKey(text)
		if k == nil {
			return nil, fmt.Errorf("SSH key %s cannot be read", i.KeyNames[0])
		}
		keys = append(keys, k)
	}
	delay := max(0, i.ReadyAt.Sub(now)/2)
	if s.cfg.Virtual {
		delay = 0
	}
	hostname := i.Hostname
	if hostname == "" {
		hostname = guestName(i.IP)
	}
	return machine.Start(ctx, machine.Config{
		ID: i.ID, Addr: net.JoinHostPort(i.IP, strconv.Itoa(s.acct.SSHPort)), Dir: s.machineDir(i.ID),
		AuthorizedKeys: keys, UserData: i.UserData, CloudInitDelay: delay, Hostname: hostname,
		GPU:   machine.GPU{Count: i.Type.Specs.GPUs, Name: i.Type.GPUName, MemoryMiB: i.Type.GPUMemoryMiB, Fault: i.GPUFault, Emulate: !s.cfg.HostGPU},
		Admit: func(from net.Addr) bool { return s.admits(i.ID, from) },
		Logf:  func(format string, args ...any) { s.cfg.Logf("instance %s: %s", i.ID, fmt.Sprintf(format, args...)) },
	})
}

func (s *Server) machineDir(id string) string { return filepath.Join(s.hosts.dir, id) }

// Machine is the SSH host behind an instance, for a test to look at or to break;
// nil if it has none now.
func (s *Server) Machine(id string) *machine.Machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.instance(id); i != nil {
		return i.host.machine
	}
	return nil
}

// sweep removes what a simulator that was killed has left of an instance that
// has ended since.
func (s *Server) sweep(ctx context.Context, id string) {
	if _, err := os.Lstat(s.machineDir(id)); err != nil {
		return
	}
	if err := machine.Sweep(ctx, id); err != nil {
		s.cfg.Logf("instance %s: end what is left of it: %v", id, err)
	}
	if err := os.RemoveAll(s.machineDir(id)); err != nil {
		s.cfg.Logf("instance %s: remove what is left of it: %v", id, err)
	}
}
