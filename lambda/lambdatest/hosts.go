package lambdatest

import (
	"context"
	"crypto/ed25519"
	crand "crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// host is the SSH host behind an instance.
type host interface {
	SetHostKey(ssh.Signer)
	SetRefuse(bool)
	Close() error
}

// hostState is the host of one instance. It is guarded by Server.mu; the host
// itself is started and closed without it.
type hostState struct {
	host    host
	busy    chan struct{} // open while a start or an end is under way
	ended   bool          // never to be started again
	rekeyed bool
	refuses bool
}

// hosts are all of them.
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
	dir, ours, err := s.tempDir()
	if err != nil {
		return fmt.Errorf("simulated cloud: directory for machines: %w", err)
	}
	s.hosts = hosts{on: true, dir: dir, ourDir: ours, wake: make(chan struct{}, 1), done: make(chan struct{})}
	if s.acct.SSHPort == 0 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("simulated cloud: find a port for SSH: %w", err)
		}
		s.acct.SSHPort = l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
	}
	go s.runHosts()
	return nil
}

func (s *Server) stopHosts() error {
	if !s.hosts.on {
		return nil
	}
	<-s.hosts.done
	s.hosts.wg.Wait()
	s.mu.Lock()
	var left []host
	for _, i := range s.acct.Instances {
		if i.host.host != nil {
			left = append(left, i.host.host)
			i.host = hostState{ended: true}
		}
	}
	s.mu.Unlock()
	errs := make([]error, len(left), len(left)+1)
	var wg sync.WaitGroup
	for n, h := range left {
		wg.Go(func() { errs[n] = h.Close() })
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

// settleHosts waits until every host is as it must be at the present time.
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
		if i.host.ended && i.host.host == nil {
			continue
		}
		if i.host.busy == nil && s.ctx.Err() == nil {
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
	case h.host == nil && !runs:
		h.ended = true
	case h.host == nil && reached(i.IPAt, now) && !i.NeverHealthy:
		s.hostTask(i, func() { s.bootHost(i, now) })
	case h.host != nil && !runs:
		old := h.host
		s.hostTask(i, func() {
			err := old.Close()
			s.mu.Lock()
			defer s.mu.Unlock()
			if h.host, h.ended = nil, true; err != nil {
				s.cfg.Logf("instance %s: end its machine: %v", i.ID, err)
			}
		})
	case h.host != nil:
		s.adjustHost(i, now)
	}
}

// adjustHost makes a running machine refuse during a restart and while it is
// unhealthy, and changes its host key when that is due.
func (s *Server) adjustHost(i *instance, now time.Time) {
	h := &i.host
	refuse := i.status(now) == Unhealthy || now.Before(i.BusyUntil)
	rekey := reached(i.HostKeyAt, now) && !h.rekeyed
	if refuse == h.refuses && !rekey {
		return
	}
	changed := refuse != h.refuses
	h.refuses, h.rekeyed = refuse, h.rekeyed || rekey
	target := h.host
	s.hostTask(i, func() {
		if rekey {
			target.SetHostKey(newHostKey())
		}
		if changed {
			target.SetRefuse(refuse)
		}
	})
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

func (s *Server) bootHost(i *instance, now time.Time) {
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	// Half of what is left of the boot passes before cloud-init has run.
	h, err := s.newHost(ctx, i, max(0, i.ReadyAt.Sub(now)/2))
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.cfg.Logf("instance %s: start its machine: %v", i.ID, err)
		i.NeverHealthy, i.host.ended = true, true
		return
	}
	i.host.host = h
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

// loopback is a loopback address of its own for the nth machine. Elsewhere than
// on Linux only 127.0.0.1 can be listened on without setting up others.
func loopback(n uint32) string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1"
	}
	return fmt.Sprintf("127.%d.%d.%d", 1+n/(254*254)%254, 1+n/254%254, 1+n%254)
}
