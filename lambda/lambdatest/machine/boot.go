package machine

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// The states of cloud-init, as its own status command calls them.
const (
	CloudInitRunning = "running"
	CloudInitDone    = "done"
	CloudInitError   = "error"
)

// CloudInit is the status of cloud-init: CloudInitRunning, CloudInitDone, or
// CloudInitError if user_data could not be read or its last command failed.
func (m *Machine) CloudInit() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// CloudInitDone reports whether cloud-init has ended, well or not.
func (m *Machine) CloudInitDone() bool { return m.CloudInit() != CloudInitRunning }

func (m *Machine) setCloudInit(status, detail string) error {
	// First the file, which commands read, since the caller may run one next.
	detail = strings.Join(strings.Fields(detail), " ")
	if err := m.writeRun("cloud-init", status+"\n"+detail+"\n"); err != nil {
		return err
	}
	m.mu.Lock()
	m.status = status
	m.mu.Unlock()
	m.logf("%s: cloud-init: %s", m, status)
	return nil
}

// bootFrom gives the machine its host key and lets cloud-init run.
func (m *Machine) bootFrom(c Config, taken bool) error {
	if taken && m.resume() {
		return nil
	}
	if err := m.replaceKey(); err != nil {
		return err
	}
	if err := m.setCloudInit(CloudInitRunning, "applying user_data"); err != nil {
		return err
	}
	plan, err := parseUserData(c.UserData, m.user)
	if c.CloudInitDelay > 0 {
		m.wg.Go(func() {
			t := time.NewTimer(c.CloudInitDelay)
			defer t.Stop()
			select {
			case <-t.C:
				m.configure(plan, err)
			case <-m.ctx.Done():
			}
		})
		return nil
	}
	if err == nil && plan.script != "" {
		if err := m.apply(plan); err != nil {
			return err
		}
		m.wg.Go(func() { m.final(plan) })
		return nil
	}
	m.configure(plan, err)
	return nil
}

// resume takes up the host key and the state of a machine that had booted.
func (m *Machine) resume() bool {
	state, err := os.ReadFile(m.runFile("cloud-init"))
	if err != nil {
		return false
	}
	status, _, _ := strings.Cut(string(state), "\n")
	if status != CloudInitDone && status != CloudInitError {
		return false
	}
	text, err := os.ReadFile(m.runFile(keyFile))
	if err != nil {
		return false
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return false
	}
	m.hostKey, m.keyText, m.status = key, text, status
	m.logf("%s is taken up again", m)
	return true
}

// replaceKey makes a new host key.
func (m *Machine) replaceKey() error {
	key, private, err := newHostKey()
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return err
	}
	return m.installKey(key, pem.EncodeToMemory(block))
}

func (m *Machine) installKey(key ssh.Signer, text []byte) error {
	if err := m.writeRun(keyFile, string(text)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hostKey, m.keyText = key, text
	return nil
}

// keyFile is where the host key is kept, by sshd's own name for it. Programs of the
// machine may replace it, as root can on a real one.
const keyFile = "ssh_host_ed25519_key"

// shownKey is the host key for a new connection: the one in the file if that has
// changed, else the one that it has been. m.mu is held.
func (m *Machine) shownKey() ssh.Signer {
	text, err := os.ReadFile(m.runFile(keyFile))
	if err != nil || bytes.Equal(text, m.keyText) {
		return m.hostKey
	}
	if key, err := ssh.ParsePrivateKey(text); err == nil {
		m.hostKey, m.keyText = key, text
	}
	return m.hostKey
}

// cloudInit applies a plan, or says that there is none to apply.
func (m *Machine) configure(p *bootPlan, err error) {
	if err == nil {
		if err = m.apply(p); err == nil {
			m.final(p)
			return
		}
	}
	m.logf("%s: cloud-init: %v", m, err)
	if err := m.setCloudInit(CloudInitError, err.Error()); err != nil {
		m.logf("%s: cloud-init: write the state: %v", m, err)
	}
}

// apply does what cloud-init does before the first command.
func (m *Machine) apply(p *bootPlan) error {
	for _, what := range p.ignored {
		m.logf("%s: cloud-init: not simulated: %s", m, what)
	}
	for _, f := range p.files {
		if err := m.plant(f); err != nil {
			return fmt.Errorf("write_files: %w", err)
		}
	}
	if err := m.authorize(p.authorized); err != nil {
		return err
	}
	switch {
	case p.hostKey != nil:
		return m.installKey(p.hostKey, p.hostKeyPEM)
	case p.dropKeys && p.newKey:
		return m.replaceKey()
	case p.dropKeys:
		m.SetHostKey(nil)
		return os.Remove(m.runFile(keyFile))
	}
	return nil
}

// plant writes a file: what is under the user's home there, the rest under root.
func (m *Machine) plant(f plannedFile) error {
	to := filepath.Join(m.dir, "root", filepath.FromSlash(f.path))
	if rest, ok := strings.CutPrefix(f.path, path.Join("/home", m.user)+"/"); ok {
		to = filepath.Join(m.Home(), filepath.FromSlash(rest))
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	how := os.O_TRUNC
	if f.append {
		how = os.O_APPEND
	}
	return writeProgram(to, how, f.content, f.mode)
}

// final runs the script of user_data and with it ends the boot.
func (m *Machine) final(p *bootPlan) {
	status, detail := CloudInitDone, "simulated: user_data has been applied"
	if p.script != "" {
		if err := m.runScript(p.script); err != nil {
			status, detail = CloudInitError, "simulated: the script of user_data: "+err.Error()
		}
	}
	if m.ctx.Err() != nil {
		return // ended with the machine
	}
	if err := m.setCloudInit(status, detail); err != nil {
		m.logf("%s: cloud-init: write the state: %v", m, err)
	}
}

// runScript runs a script in the home. Its output goes where cloud-init puts it.
func (m *Machine) runScript(text string) error {
	dir := filepath.Join(m.dir, "root", "var", "log")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(dir, "cloud-init-output.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	defer log.Close()
	script := m.runFile("user-script")
	if err := writeProgram(script, os.O_TRUNC, []byte(text), 0o700); err != nil {
		return err
	}
	cmd := m.command([]string{script}, nil)
	cmd.Stdout, cmd.Stderr = log, log
	if err := m.herd.start(cmd); err != nil {
		return err
	}
	err = cmd.Wait()
	m.herd.reaped(cmd.Process)
	return err
}
