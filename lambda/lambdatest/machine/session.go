package machine

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/ssh"
)

// maxSessions is how many sessions a connection may have, as sshd's MaxSessions.
const maxSessions = 10

// client is a connection that has logged in.
type client struct {
	machine  *Machine
	conn     *ssh.ServerConn
	sessions atomic.Int32
}

// open answers the client's wish for a channel. It does not wait for the channel.
func (c *client) open(ch ssh.NewChannel) {
	m := c.machine
	switch ch.ChannelType() {
	case "session":
		if c.sessions.Add(1) > maxSessions {
			c.sessions.Add(-1)
			_ = ch.Reject(ssh.ConnectionFailed, "open failed")
			return
		}
		m.wg.Go(func() {
			defer c.sessions.Add(-1)
			c.session(ch)
		})
	case "direct-tcpip":
		m.wg.Go(func() { m.forward(ch) })
	default:
		_ = ch.Reject(ssh.ConnectionFailed, "open failed") // OpenSSH has no other reason for these
	}
}

// session runs at most one command on a channel. It returns when the channel is
// closed and the command has ended, whichever is later.
func (c *client) session(nc ssh.NewChannel) {
	ch, requests, err := nc.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	var env []string
	var cmd *command
	for r := range requests {
		ok := false
		switch r.Type {
		case "env":
			var v struct{ Name, Value string }
			if ssh.Unmarshal(r.Payload, &v) == nil && (v.Name == "LANG" || strings.HasPrefix(v.Name, "LC_")) {
				env, ok = append(env, v.Name+"="+v.Value), true
			}
		case "exec", "shell", "subsystem":
			if cmd == nil {
				cmd = c.run(ch, r, env)
				ok = cmd != nil
			}
		case "signal":
			var v struct{ Name string }
			if cmd != nil && ssh.Unmarshal(r.Payload, &v) == nil {
				ok = cmd.signal(v.Name)
			}
		}
		if r.WantReply {
			_ = r.Reply(ok, nil)
		}
		if cmd != nil {
			cmd.begin()
		}
	}
	if cmd != nil {
		cmd.hangUp()
		<-cmd.done
	}
}

// sftpServers are the places at which systems keep OpenSSH's SFTP server.
var sftpServers = []string{
	"/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server",
	"/usr/libexec/sftp-server", "/usr/lib/sftp-server",
}

// argv is the command of a request; nil if there is none.
func (m *Machine) argv(r *ssh.Request) []string {
	var v struct{ Text string }
	if r.Type != "shell" && ssh.Unmarshal(r.Payload, &v) != nil {
		return nil
	}
	switch {
	case m.shell == "":
		return nil
	case r.Type == "shell":
		// Not a login shell: the host's profile would put its PATH in place of ours.
		return []string{m.shell, "-s"}
	case r.Type == "exec":
		return []string{m.shell, "-c", v.Text}
	case v.Text == "sftp":
		for _, p := range sftpServers {
			if _, err := os.Stat(p); err == nil {
				return []string{p}
			}
		}
	}
	return nil
}

// command is a command of a session. Its pipes are ours to close; the command's
// ends are closed here as soon as it has them.
type command struct {
	machine        *Machine
	channel        ssh.Channel
	cmd            *exec.Cmd
	stdin          *os.File
	stdout, stderr *os.File
	started        sync.Once
	done           chan struct{} // the command has ended and its streams have, too
}

// run starts a request's command; nil if it cannot be.
func (c *client) run(ch ssh.Channel, r *ssh.Request, env []string) *command {
	m := c.machine
	argv := m.argv(r)
	if argv == nil {
		return nil
	}
	remote, local := c.conn.RemoteAddr().String(), c.conn.LocalAddr().String()
	rh, rp := splitPort(remote)
	lh, lp := splitPort(local)
	env = append(env, "SSH_CLIENT="+rh+" "+rp+" "+lp, "SSH_CONNECTION="+rh+" "+rp+" "+lh+" "+lp)

	x := &command{machine: m, channel: ch, done: make(chan struct{})}
	theirs, err := x.pipes()
	if err == nil {
		x.cmd = m.command(argv, env)
		x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = theirs[0], theirs[1], theirs[2]
		err = m.herd.start(x.cmd)
	}
	closeAll(theirs...)
	if err != nil {
		m.logf("%s: run a command: %v", m, err)
		x.hangUp()
		return nil
	}
	return x
}

// pipes makes the command's three streams and returns the command's ends.
func (x *command) pipes() (theirs []*os.File, err error) {
	ends := make([]*os.File, 0, 6)
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(ends...)
			return nil, err
		}
		ends = append(ends, r, w)
	}
	x.stdin, x.stdout, x.stderr = ends[1], ends[2], ends[4]
	return []*os.File{ends[0], ends[3], ends[5]}, nil
}

// begin lets the streams flow, once, after the request has been answered.
func (x *command) begin() {
	x.started.Do(func() {
		m := x.machine
		var outputs sync.WaitGroup
		outputs.Go(func() { _, _ = io.Copy(x.channel, x.stdout); x.stdout.Close() })
		outputs.Go(func() { _, _ = io.Copy(x.channel.Stderr(), x.stderr); x.stderr.Close() })
		m.wg.Go(func() {
			_, _ = io.Copy(x.stdin, x.channel)
			x.stdin.Close()
			// The command may have closed its stdin: what still comes must not stall
			// the channel.
			_, _ = io.Copy(io.Discard, x.channel)
		})
		m.wg.Go(func() {
			outputs.Wait()
			_ = x.channel.CloseWrite()
		})
		m.wg.Go(func() {
			defer close(x.done)
			_ = x.cmd.Wait()
			m.herd.reaped(x.cmd.Process)
			name, payload := exitMessage(x.cmd.ProcessState)
			_, _ = x.channel.SendRequest(name, false, payload)
			// A process in the background may hold the output open, and then the
			// channel stays open, too.
			outputs.Wait()
			x.channel.Close()
		})
	})
}

// hangUp closes our ends of the streams: the command reads the end of its input,
// and is signalled when it writes. It is not ended.
func (x *command) hangUp() { closeAll(x.stdin, x.stdout, x.stderr) }

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}
