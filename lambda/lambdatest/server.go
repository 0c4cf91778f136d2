package lambdatest

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

// Server is one simulated account at Lambda. It is an http.Handler by itself;
// Listen puts it on a socket. All methods may be called at any time from any
// goroutine.
type Server struct {
	cfg     Config
	clock   *clock
	handler http.Handler
	admin   http.Handler
	limit   limiter

	ctx    context.Context // ends with Close: releases requests that hang
	cancel context.CancelFunc
	http   *http.Server
	// stateLock keeps the state file to this simulator.
	stateLock *flock.Flock
	served    chan struct{} // closed when the accept loop has ended
	hosts     hosts

	mu       sync.Mutex
	rng      *rand.Rand
	url      string
	closed   bool
	acct     account
	console  bool // what happens now comes from no API key
	faults   []*activeFault
	steps    []pendingStep
	requests []Request
	findings []Finding
	faultSeq int
}

// account is all that survives a restart.
type account struct {
	APIKey      string
	SSHPort     int
	NextAddress uint32
	Offset      time.Duration // of a clock that was advanced
	Catalog     *Catalog
	Instances   []*instance // oldest first
	Keys        []*Key
	Filesystems []*filesystem
	GlobalRules []rule
	Rulesets    []*ruleset
	Events      []auditEvent
}

// New makes a simulated cloud that listens nowhere: use it as an http.Handler,
// through [Server.Transport], or call Listen. It must be closed.
func New(cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Catalog.check(); err != nil {
		return nil, fmt.Errorf("simulated cloud: catalogue: %w", err)
	}
	seed := [32]byte{}
	if cfg.Seed == 0 {
		_, _ = crand.Read(seed[:]) // never fails
	} else {
		binary.LittleEndian.PutUint64(seed[:], cfg.Seed)
	}
	s := &Server{cfg: cfg, clock: newClock(cfg.Now, cfg.Virtual), rng: rand.New(rand.NewChaCha8(seed))}
	s.acct = account{APIKey: cfg.APIKey, SSHPort: cfg.SSHPort, Catalog: cfg.Catalog.clone(), GlobalRules: openRules(),
		NextAddress: s.rng.Uint32N(1 << 22)}
	if err := s.load(); err != nil {
		return nil, errors.Join(err, s.unlock())
	}
	if s.acct.APIKey == "" {
		s.acct.APIKey = randomKey()
	}
	if cfg.Scenario != nil {
		if err := s.apply(cfg.Scenario); err != nil {
			return nil, errors.Join(err, s.unlock())
		}
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.handler, s.admin = http.HandlerFunc(s.serve), s.adminHandler()
	if cfg.Wrap != nil {
		s.handler = cfg.Wrap(s.handler)
	}
	if err := s.startHosts(); err != nil {
		s.cancel()
		return nil, errors.Join(err, s.unlock())
	}
	return s, nil
}

// T is the part of testing.TB that Start needs.
type T interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Start makes a simulated cloud, listens on a free loopback port and closes it
// at the end of the test.
func Start(t T, cfg Config) *Server {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatalf("start simulated cloud: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.Listen("127.0.0.1:0"); err != nil {
		t.Fatalf("start simulated cloud: %v", err)
	}
	return s
}

// Listen serves the API on a TCP address such as "127.0.0.1:0".
func (s *Server) Listen(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("simulated cloud: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.http != nil {
		_ = l.Close()
		return errors.New("simulated cloud: listen: it is closed or listens already")
	}
	s.url = "http://" + l.Addr().String() + basePath
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	s.served = make(chan struct{})
	go func(srv *http.Server, done chan struct{}) {
		defer close(done)
		_ = srv.Serve(l)
	}(s.http, s.served)
	return nil
}

// URL is the base of the API, "http://127.0.0.1:PORT/api/v1". Before Listen it is
// one that leads nowhere but through Transport.
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.url == "" {
		return "http://lambda.invalid" + basePath
	}
	return s.url
}

// APIKey is the account's key.
func (s *Server) APIKey() string { return s.acct.APIKey }

// SSHPort is the port of all SSH hosts; 0 without any.
func (s *Server) SSHPort() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acct.SSHPort
}

// Now is the simulator's time.
func (s *Server) Now() time.Time { return s.clock.now() }

// Advance moves the clock on by d. When it returns, the machines that must run
// at the new time have been started and those that must not have been ended.
func (s *Server) Advance(d time.Duration) {
	s.clock.advance(d)
	s.mu.Lock()
	s.acct.Offset += d
	s.tick(s.clock.now())
	s.save()
	s.mu.Unlock()
	s.settleHosts()
}

// Close ends the server, the requests under way and every machine, and removes
// the machines' files. The state file stays. A second call does nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.save()
	srv, served := s.http, s.served
	s.mu.Unlock()
	s.cancel()
	var errs []error
	if srv != nil {
		errs = append(errs, srv.Close())
		<-served
	}
	errs = append(errs, s.stopHosts(), s.unlock())
	return errors.Join(errs...)
}

// tick does what the time has brought and nobody asked about. The caller holds mu.
func (s *Server) tick(now time.Time) {
	for _, i := range s.acct.Instances {
		if i.HoldsSlot && !i.running(now) && i.status(now) != Terminating {
			i.HoldsSlot = false
			if t := s.acct.Catalog.typ(i.Type.Name); t != nil && t.Capacity[i.Region.Name] != Unlimited {
				t.Capacity[i.Region.Name]++
			}
		}
		if i.UserData != "" && i.gone(now) {
			i.UserData = ""
		}
	}
	s.runSteps(now)
}

// newID is 32 lowercase hex digits. The caller holds mu.
func (s *Server) newID() string {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], s.rng.Uint64())
	binary.LittleEndian.PutUint64(b[8:], s.rng.Uint64())
	return hex.EncodeToString(b[:])
}

func randomKey() string {
	var b [32]byte
	_, _ = crand.Read(b[:]) // never fails
	const alnum = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	tail := make([]byte, 32)
	for i := range tail {
		tail[i] = alnum[int(b[i])%len(alnum)]
	}
	_, _ = crand.Read(b[:16])
	return "secret_sim_" + hex.EncodeToString(b[:16]) + "." + string(tail)
}
