package lambdatest

import (
	"context"
	"crypto/ed25519"
	crand "crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/gpulease/gpulease/lambda/lambdatest/machine"
)

// hostState is the SSH host behind one instance. Server.mu guards it; machines
// are started, changed and closed without the lock, by the task that busy stands
// for.
type hostState struct {
	machine   *machine.Machine
	busy      chan struct{} // open while a task is under way
	ended     bool          // never to be started again
	rekeyed   bool
	refuses   bool
	restarted time.Time // the restart that was done
}

// hosts is what keeps the machines in step with the clock.
type hosts struct {
	on     bool
	dir    string
	ourDir bool
	wake   chan struct{}
	done   chan struct{} // closed when the loop has ended
	wg     sync.WaitGroup
}

func (s *Server) startHosts() error {
	if !s.cfg.SSHHosts {
		return nil
	}
	dir, ours, err := s.hostDir()
	if err != nil {
		return fmt.Errorf("simulated cloud: directory for machines: %w", err)
	}
	if s.acct.SSHPort == 0 {
		if s.acct.SSHPort, err = freePort(); err != nil {
			return fmt.Errorf("simulated cloud: find a port for SSH: %w", err)
		}
	}
	h := &s.hosts
	h.on, h.dir, h.ourDir, h.wake, h.done = true, dir, ours, make(chan struct{}, 1), make(chan struct{})
	now := s.clock.now()
	for _, i := range s.acct.Instances {
		if i.host.ended = !i.running(now); i.host.ended {
			s.sweep(s.ctx, i.ID)
		}
	}
	go s.runHosts()
	return nil
}

// hostDir makes the directory of the machines. With a state file it has a fixed
// place, so that a simulator that was killed finds them again.
func (s *Server) hostDir() (dir string, ours bool, err error) {
	switch {
	case s.cfg.Dir != "":
		return s.cfg.Dir, false, os.MkdirAll(s.cfg.Dir, 0o700)
	case s.cfg.StateFile != "":
		dir = s.cfg.StateFile + ".machines"
		return dir, true, os.MkdirAll(dir, 0o700)
	default:
		dir, err = os.MkdirTemp("", "gpulease-sim-")
		return dir, true, err
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (s *Server) stopHosts() error {
	if !s.hosts.on {
		return nil
	}
	<-s.hosts.done
	s.hosts.wg.Wait()
	s.mu.Lock()
	var left []*machine.Machine
	for _, i := range s.acct.Instances {
		if i.host.machine != nil {
			left = append(left, i.host.machine)
			i.host = hostState{ended: true}
		}
	}
	s.mu.Unlock()
	errs := make([]error, len(left), len(left)+1)
	var wg sync.WaitGroup
	for n, m := range left {
		wg.Go(func() { errs[n] = m.Close() })
	}
	wg.Wait()
	if s.hosts.ourDir {
		errs = append(errs, os.RemoveAll(s.hosts.dir))
	}
	return errors.Join(errs...)
}

func (s *Server) wakeHosts() {
	if s.hosts.on {
		select {
		case s.hosts.wake <- struct{}{}:
		default:
		}
	}
}

// runHosts does what is due and waits for the next time that something is.
func (s *Server) runHosts() {
	defer close(s.hosts.done)
	for s.ctx.Err() == nil {
		changed := s.clock.change()
		_, next := s.dueHosts()
		var timer *time.Timer
		var fire <-chan time.Time
		if !s.clock.virtual && !next.IsZero() {
			timer = time.NewTimer(max(next.Sub(s.clock.now()), time.Millisecond))
			fire = timer.C
		}
		select {
		case <-s.ctx.Done():
		case <-s.hosts.wake:
		case <-changed:
		case <-fire:
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// settleHosts waits until every machine is as it must be at the present time.
func (s *Server) settleHosts() {
	for s.hosts.on && s.ctx.Err() == nil {
		busy, _ := s.dueHosts()
		if len(busy) == 0 {
			return
		}
		for _, c := range busy {
			<-c
		}
	}
}

// dueHosts begins every start, end and change that is due. It returns what is
// under way and the next time to look.
func (s *Server) dueHosts() (busy []chan struct{}, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.now()
	for _, i := range s.acct.Instances {
		if i.host.ended && i.host.machine == nil {
			continue
		}
		if i.host.busy == nil && !s.closed {
			s.dueHost(i, now)
		}
		if i.host.busy != nil {
			busy = append(busy, i.host.busy)
		}
		for _, t := range []time.Time{i.IPAt, i.DiesAt, i.BusyUntil, i.HostKeyAt} {
			if t.After(now) && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
	}
	return busy, next
}

func (s *Server) dueHost(i *instance, now time.Time) {
	h := &i.host
	runs := i.running(now)
	switch {
	case h.machine == nil && !runs:
		h.ended = true
	case h.machine == nil && reached(i.IPAt, now) && !i.NeverHealthy:
		snapshot := *i // read without mu
		s.hostTask(i, func() { s.boot(i, &snapshot, now) })
	case h.machine != nil && !runs:
		m := h.machine
		s.hostTask(i, func() {
			err := m.Close()
			s.mu.Lock()
			defer s.mu.Unlock()
			if h.machine, h.ended = nil, true; err != nil {
				s.cfg.Logf("instance %s: end its machine: %v", i.ID, err)
			}
		})
	case h.machine != nil:
		s.adjust(i, now)
	}
}

// adjust makes a running machine unreachable during a restart and while it is
// unhealthy, and changes its host key when that is due.
func (s *Server) adjust(i *instance, now time.Time) {
	h := &i.host
	refuse := i.status(now) == Unhealthy || now.Before(i.BusyUntil)
	rekey := reached(i.HostKeyAt, now) && !h.rekeyed
	restart := reached(i.RestartedAt, now) && !h.restarted.Equal(i.RestartedAt)
	if refuse == h.refuses && !rekey && !restart {
		return
	}
	h.refuses, h.rekeyed, h.restarted = refuse, h.rekeyed || rekey, i.RestartedAt
	m := h.machine
	s.hostTask(i, func() {
		if rekey {
			m.SetHostKey(newHostKey())
		}
		if restart {
			m.SetRefuse(true) // also for one so short that it is over
			if err := m.EndProcesses(s.ctx); err != nil {
				s.cfg.Logf("instance %s: restart: %v", i.ID, err)
			}
		}
		m.SetRefuse(refuse)
		if !refuse {
			awaitPort(s.ctx, m.Addr())
		}
	})
}

// awaitPort waits until a machine that was unreachable listens again, but not long.
func awaitPort(ctx context.Context, addr string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := new(net.Dialer).DialContext(ctx, "tcp", addr); err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// hostTask runs f without mu and marks the instance as busy. The caller holds mu.
func (s *Server) hostTask(i *instance, f func()) {
	busy := make(chan struct{})
	i.host.busy = busy
	s.hosts.wg.Go(func() {
		f()
		s.mu.Lock()
		i.host.busy = nil
		s.mu.Unlock()
		close(busy)
		s.wakeHosts()
	})
}

func (s *Server) boot(i, snapshot *instance, now time.Time) {
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	m, err := s.newMachine(ctx, snapshot, now)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.cfg.Logf("instance %s: start its machine: %v", i.ID, err)
		i.NeverHealthy, i.host.ended = true, true
		return
	}
	i.host.machine, i.host.restarted = m, snapshot.RestartedAt
}

func newHostKey() ssh.Signer {
	_, private, err := ed25519.GenerateKey(crand.Reader)
	if err != nil { // the source of randomness does not fail
		panic(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		panic(err)
	}
	return signer
}

// ChangeHostKey gives an instance's machine another host key now.
func (s *Server) ChangeHostKey(id string) error {
	s.mu.Lock()
	i := s.instance(id)
	ok := i != nil && i.host.machine != nil
	if ok {
		i.HostKeyAt, i.host.rekeyed = s.clock.now(), false
	}
	s.mu.Unlock()
	if !ok {
		return fmt.Errorf("change host key of %s: it has no machine", id)
	}
	s.settleHosts()
	return nil
}
