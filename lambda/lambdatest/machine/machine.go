package machine

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Config says what the machine is. ID is required.
type Config struct {
	// ID is the instance's id. Every process of the machine carries it in its
	// environment as GPULEASE_SIM_INSTANCE, by which it is found and ended.
	ID string
	// Addr is host:port to listen on; "" means a free port of 127.0.0.1. See Loopback.
	Addr string
	// Dir is the directory to create and, at Close, to remove; "" means a new
	// temporary one. It may exist if it is empty, or if a machine of the same ID
	// that was never closed left it: then that machine is taken up again, with its
	// files and its host key, and without a second run of cloud-init.
	Dir string
	// User is the only login name let in; "" means "ubuntu".
	User string
	// AuthorizedKeys are written to the user's .ssh/authorized_keys, which is what
	// decides at each login.
	AuthorizedKeys []ssh.PublicKey
	// UserData is cloud-init's user_data in plain text: a "#cloud-config" document,
	// a "#!" script, or nothing. Of a document, ssh_keys (ed25519), ssh_deletekeys,
	// ssh_genkeytypes, ssh_authorized_keys, users (the machine's own), write_files
	// and runcmd count. One that has a mistake in these is not applied at all.
	UserData string
	// CloudInitDelay is how long the machine shows a host key of its own before
	// user_data is applied. With 0 it is applied before Start returns, except for
	// commands, which run after.
	CloudInitDelay time.Duration
	// GPU is what nvidia-smi shows.
	GPU GPU
	// Hostname is what hostname prints; "" means ID.
	Hostname string
	// Env is further environment of every command, as NAME=value. A PATH in it
	// replaces the host's, after the machine's own programs.
	Env []string
	// Admit says who may connect, as a firewall before the machine does; nil lets
	// everybody. It must not call the machine.
	Admit func(from net.Addr) bool
	// Logf gets a line for each event; nil means nowhere. Commands, keys and
	// user_data are never in it.
	Logf func(format string, args ...any)
}

// String leaves user_data out, since there are private keys in it.
func (c Config) String() string { return "machine " + c.ID }

// GoString is String.
func (c Config) GoString() string { return c.String() }

// Machine is a running machine. Its methods may be called concurrently.
type Machine struct {
	id, user, hostname string
	dir                string
	addr               string
	env                []string
	shell              string
	logf               func(string, ...any)
	admit              func(net.Addr) bool

	ctx    context.Context // ends at Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	gate   *gate
	herd   *herd

	mu       sync.Mutex
	hostKey  ssh.Signer // nil if user_data took the last one away
	keyText  []byte     // what the file of the host key held when it was last read
	listener net.Listener
	refusing bool
	closed   bool
	conns    map[*gatedConn]struct{}
	status   string // of cloud-init

	gpuMu sync.Mutex
	gpu   GPU

	keep      bool // the directory outlives Close
	closeOnce sync.Once
	closeErr  error
}

// String is the machine's ID and address.
func (m *Machine) String() string { return "machine " + m.id + " at " + m.addr }

// GoString is String.
func (m *Machine) GoString() string { return m.String() }

// Start makes the machine's directory, listens and begins to boot. ctx bounds the
// start only; the machine runs until Close.
func Start(ctx context.Context, c Config) (*Machine, error) {
	if c.ID == "" {
		return nil, errors.New("start a machine: no ID")
	}
	m := &Machine{
		id: c.ID, user: c.User, hostname: c.Hostname, logf: c.Logf, admit: c.Admit,
		gate: newGate(), herd: newHerd(c.ID), conns: map[*gatedConn]struct{}{}, gpu: c.GPU,
	}
	if m.user == "" {
		m.user = "ubuntu"
	}
	if m.hostname == "" {
		m.hostname = m.id
	}
	if m.admit == nil {
		m.admit = func(net.Addr) bool { return true }
	}
	if m.logf == nil {
		m.logf = func(string, ...any) {}
	}
	if err := m.start(ctx, c); err != nil {
		return nil, fmt.Errorf("start machine %s: %w", c.ID, err)
	}
	return m, nil
}

func (m *Machine) start(ctx context.Context, c Config) (err error) {
	if c.GPU.Fault, err = knownFault(c.GPU.Fault); err != nil {
		return err
	}
	taken, err := m.makeDir(c.Dir)
	if err != nil {
		return err
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			m.keep = taken // its files may be all that is left of it
			m.Close()
		}
	}()
	if taken {
		// A machine that was never closed may have left processes.
		if err := Sweep(ctx, m.id); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	m.shell, m.env = environment(m, c.Env)
	if err := m.authorize(c.AuthorizedKeys); err != nil {
		return err
	}
	if err := m.writeShims(); err != nil {
		return err
	}
	addr := c.Addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	// Who connects before the machine has booted this far waits in the backlog.
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	m.addr = l.Addr().String()
	if err := m.bootFrom(c, taken); err != nil {
		l.Close()
		return err
	}
	m.mu.Lock()
	m.serve(l)
	m.mu.Unlock()
	m.logf("%s listens", m)
	return nil
}

// Addr is the host:port on which the machine listens.
func (m *Machine) Addr() string { return m.addr }

// Home is the user's home directory.
func (m *Machine) Home() string { return filepath.Join(m.dir, "home") }

// HostKey is the host key that a new connection is shown now. It is nil if
// user_data deleted the machine's key and allowed no new one.
func (m *Machine) HostKey() ssh.PublicKey {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := m.shownKey()
	if key == nil {
		return nil
	}
	return key.PublicKey()
}

// SetHostKey changes the host key for new connections, as if somebody else had
// come to sit at the address. s must be an ed25519 key.
func (m *Machine) SetHostKey(s ssh.Signer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hostKey = s
}

// Processes are the ids of the machine's living processes. Where there is no
// /proc, these are the groups of commands that may have some.
func (m *Machine) Processes() []int {
	pids, _ := m.herd.find()
	return pids
}

// EndProcesses kills every process of the machine, as a power cut does, and
// returns when none is left. Connections and files stay.
func (m *Machine) EndProcesses(ctx context.Context) error {
	if err := m.herd.end(ctx); err != nil {
		return fmt.Errorf("end the processes of %s: %w", m, err)
	}
	return nil
}

// closeTimeout bounds the killing at Close. Only a process that hangs in the
// kernel needs more than milliseconds.
const closeTimeout = 20 * time.Second

// Close cuts every connection, ends every process of the machine, removes its
// directory and waits for all that it started. Further calls return the same.
// An error says what is left.
func (m *Machine) Close() error {
	m.closeOnce.Do(func() { m.closeErr = m.close() })
	return m.closeErr
}

func (m *Machine) close() error {
	m.mu.Lock()
	m.closed = true
	if m.listener != nil {
		m.listener.Close()
	}
	m.cut()
	m.mu.Unlock()
	m.cancel()
	m.herd.shut()

	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := m.EndProcesses(ctx)
	if err != nil {
		// Waiting for a process that cannot be killed would never end.
		return err
	}
	m.wg.Wait()
	if m.keep {
		return nil
	}
	if err := removeAll(m.dir); err != nil {
		return fmt.Errorf("remove the directory of %s: %w", m, err)
	}
	m.logf("%s is gone", m)
	return nil
}

// cut closes every open connection. m.mu is held.
func (m *Machine) cut() {
	for c := range m.conns {
		c.Close()
	}
}

// removeAll also removes directories that were made read-only, as Go's module
// cache is.
func removeAll(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

func newHostKey() (ssh.Signer, ed25519.PrivateKey, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a host key: %w", err)
	}
	s, err := ssh.NewSignerFromKey(private)
	return s, private, err
}
