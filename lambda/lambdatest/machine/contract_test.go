package machine_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

// target is an SSH host under test.
type target struct {
	addr   string
	config func() *ssh.ClientConfig
	root   bool // it is OpenSSH, and the login is root's
}

func (x target) dial(t *testing.T) *ssh.Client {
	t.Helper()
	c, err := connect(x.addr, x.config())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// TestContract runs the same tests against a simulated machine and against
// OpenSSH: where a client can tell them apart, the simulation is wrong.
func TestContract(t *testing.T) {
	for name, open := range map[string]func(*testing.T) target{"Machine": simulated, "OpenSSH": openSSH} {
		t.Run(name, func(t *testing.T) {
			x := open(t)
			t.Run("Commands", x.testCommands)
			t.Run("Transfer", x.testTransfer)
			t.Run("Requests", x.testRequests)
			if !x.root { // OpenSSH does not signal the sessions of root
				t.Run("Signal", x.testSignal)
			}
			t.Run("HangUp", x.testHangUp)
			t.Run("BackgroundHoldsTheChannel", x.testBackground)
			t.Run("MaxSessions", x.testMaxSessions)
			t.Run("Forward", x.testForward)
			t.Run("Login", x.testLogin)
		})
	}
}

func simulated(t *testing.T) target {
	h := start(t)
	return target{addr: h.Addr(), config: h.config}
}

func (x target) testCommands(t *testing.T) {
	c := x.dial(t)
	for name, tc := range map[string]struct {
		command, stdin string
		want           result
	}{
		"OK":                {"echo hello", "", result{stdout: "hello\n"}},
		"ExitCode":          {"echo out; echo err >&2; exit 7", "", result{stdout: "out\n", stderr: "err\n", code: 7}},
		"NotFound":          {"no-such-program 2>/dev/null", "", result{code: 127}},
		"Term":              {"kill -TERM $$", "", result{code: 143, signal: "TERM"}},
		"Kill":              {"kill -KILL $$", "", result{code: 137, signal: "KILL"}},
		"NamelessSignal":    {"kill -VTALRM $$", "", result{code: 128, signal: "SIG@openssh.com"}},
		"Stdin":             {"tr a-z A-Z", "shout", result{stdout: "SHOUT"}},
		"StdinEOF":          {"cat; echo end", "x", result{stdout: "xend\n"}},
		"StdinUnread":       {"exit 9", strings.Repeat("x", 4<<20), result{code: 9}},
		"StdinClosed":       {"exec <&-; sleep 0.2; exit 9", strings.Repeat("x", 4<<20), result{code: 9}},
		"Home":              {`[ "$(pwd -P)" = "$(cd && pwd -P)" ]; echo $?`, "", result{stdout: "0\n"}},
		"Binary":            {`printf '\000\377\n'`, "", result{stdout: "\x00\xff\n"}},
		"StdoutClosedEarly": {"exec >&- 2>&-; sleep 0.1; exit 3", "", result{code: 3}},
		"NoTerminal":        {"[ -t 0 ] || [ -t 1 ] || [ -t 2 ] || echo none", "", result{stdout: "none\n"}},
		"OwnSession":        {`[ "$(ps -o sid= -p $$ | tr -d ' ')" = $$ ] && echo leader`, "", result{stdout: "leader\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.want, run(t, c, tc.command, strings.NewReader(tc.stdin)))
		})
	}
	t.Run("Shell", func(t *testing.T) {
		s, err := c.NewSession()
		require.NoError(t, err)
		var out bytes.Buffer
		s.Stdout, s.Stdin = &out, strings.NewReader("x=1\necho $((x + 1))\nexit 6\n")
		require.NoError(t, s.Shell())
		var exit *ssh.ExitError
		require.ErrorAs(t, s.Wait(), &exit)
		require.Equal(t, 6, exit.ExitStatus())
		require.Equal(t, "2\n", out.String())
	})
}

func (x target) testTransfer(t *testing.T) {
	const size = 10 << 20
	data := make([]byte, size)
	_, _ = rand.Read(data)
	c := x.dial(t)
	t.Run("BothWays", func(t *testing.T) {
		got := run(t, c, "cat", bytes.NewReader(data))
		require.Equal(t, sha256.Sum256(data), sha256.Sum256([]byte(got.stdout)))
	})
	t.Run("BothStreams", func(t *testing.T) {
		got := run(t, c, "tee /dev/stderr", bytes.NewReader(data))
		require.Equal(t, sha256.Sum256(data), sha256.Sum256([]byte(got.stdout)))
		require.Equal(t, sha256.Sum256(data), sha256.Sum256([]byte(got.stderr)))
	})
}

// channel opens a session channel without the conveniences of ssh.Session.
func channel(t *testing.T, c *ssh.Client) (ssh.Channel, <-chan *ssh.Request) {
	t.Helper()
	ch, requests, err := c.OpenChannel("session", nil)
	require.NoError(t, err)
	t.Cleanup(func() { ch.Close() })
	return ch, requests
}

// ask sends a request with one string and reports whether it was granted.
func ask(t *testing.T, ch ssh.Channel, name string, values ...string) bool {
	t.Helper()
	var payload []byte
	for _, v := range values {
		payload = append(payload, ssh.Marshal(struct{ V string }{v})...)
	}
	ok, err := ch.SendRequest(name, true, payload)
	require.NoError(t, err)
	return ok
}

func (x target) testRequests(t *testing.T) {
	c := x.dial(t)
	t.Run("Env", func(t *testing.T) {
		ch, requests := channel(t, c)
		go ssh.DiscardRequests(requests)
		require.True(t, ask(t, ch, "env", "LC_GPU", "yes"))
		require.True(t, ask(t, ch, "env", "LANG", "C"))
		require.False(t, ask(t, ch, "env", "LD_PRELOAD", "/evil.so"))
		require.False(t, ask(t, ch, "env", "PATH", "/evil"))
		require.True(t, ask(t, ch, "exec", `echo "$LC_GPU $LANG ${LD_PRELOAD-}"; echo "$PATH" | grep -c evil`))
		out, err := io.ReadAll(ch)
		require.NoError(t, err)
		require.Equal(t, "yes C \n0\n", string(out))
	})
	t.Run("OneCommandAChannel", func(t *testing.T) {
		ch, requests := channel(t, c)
		go ssh.DiscardRequests(requests)
		require.True(t, ask(t, ch, "exec", "sleep 0.2; echo once"))
		require.False(t, ask(t, ch, "exec", "echo twice"))
		out, err := io.ReadAll(ch)
		require.NoError(t, err)
		require.Equal(t, "once\n", string(out))
	})
	t.Run("Subsystem", func(t *testing.T) {
		ch, requests := channel(t, c)
		go ssh.DiscardRequests(requests)
		require.False(t, ask(t, ch, "subsystem", "no-such"))
		require.False(t, ask(t, ch, "no-such-request"))
	})
	t.Run("KeepAlive", func(t *testing.T) {
		for _, name := range []string{"keepalive@openssh.com", "no-such@example.org"} {
			ok, _, err := c.SendRequest(name, true, nil)
			require.NoError(t, err)
			require.False(t, ok)
		}
	})
	t.Run("ChannelType", func(t *testing.T) {
		_, _, err := c.OpenChannel("x11", nil)
		var refused *ssh.OpenChannelError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, ssh.ConnectionFailed, refused.Reason)
	})
}

func (x target) testSignal(t *testing.T) {
	for name, tc := range map[string]struct {
		command string
		signal  ssh.Signal
		want    string
	}{
		"Ends":    {"echo ready; exec sleep 60", ssh.SIGTERM, "TERM"},
		"Trapped": {"trap 'exit 5' USR1; echo ready; while :; do sleep 0.05; done", ssh.SIGUSR1, ""},
		"Group":   {"echo ready; sleep 60; sleep 60", ssh.SIGTERM, "TERM"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := x.dial(t).NewSession()
			require.NoError(t, err)
			out, err := s.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, s.Start(tc.command))
			_, err = io.ReadFull(out, make([]byte, len("ready\n")))
			require.NoError(t, err)
			require.NoError(t, s.Signal(tc.signal))
			var exit *ssh.ExitError
			require.ErrorAs(t, s.Wait(), &exit)
			require.Equal(t, tc.want, exit.Signal())
			if tc.want == "" {
				require.Equal(t, 5, exit.ExitStatus())
			}
		})
	}
}

func (x target) testHangUp(t *testing.T) {
	for name, tc := range map[string]string{
		"RunsOn":       "echo ready; sleep 0.2; echo done >%s",
		"StdinEnds":    "echo ready; cat >/dev/null; echo done >%s",
		"OutputBreaks": "echo ready; yes; echo done >%s",
	} {
		for _, what := range []string{"Session", "Connection"} {
			t.Run(name+"/"+what, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "done")
				c := x.dial(t)
				ch, requests := channel(t, c)
				go ssh.DiscardRequests(requests)
				require.True(t, ask(t, ch, "exec", fmt.Sprintf(tc, file)))
				_, err := io.ReadFull(ch, make([]byte, len("ready\n")))
				require.NoError(t, err)
				require.NoFileExists(t, file)
				if what == "Session" {
					require.NoError(t, ch.Close())
				} else {
					require.NoError(t, c.Close())
				}
				eventually(t, "the command comes to its end", func() bool {
					_, err := os.Stat(file)
					return err == nil
				})
			})
		}
	}
}

// testBackground: the exit status comes at once, the end of the channel only when
// nobody holds the output open any more.
func (x target) testBackground(t *testing.T) {
	file := filepath.Join(t.TempDir(), "go")
	c := x.dial(t)
	ch, requests := channel(t, c)
	require.True(t, ask(t, ch, "exec", fmt.Sprintf("(while [ ! -e %s ]; do sleep 0.02; done; echo late) & exit 4", file)))
	r := <-requests
	require.Equal(t, "exit-status", r.Type)
	require.Equal(t, []byte{0, 0, 0, 4}, r.Payload)
	select {
	case r, ok := <-requests:
		if ok { // OpenSSH says so when the command has closed its stdin
			require.Equal(t, "eow@openssh.com", r.Type)
		} else {
			t.Fatal("the channel was closed under the background process")
		}
	case <-time.After(100 * time.Millisecond):
	}
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	go ssh.DiscardRequests(requests)
	out, err := io.ReadAll(ch)
	require.NoError(t, err)
	require.Equal(t, "late\n", string(out))

	began := time.Now()
	require.Equal(t, result{stdout: "out\n"}, run(t, c, "sleep 30 >/dev/null 2>&1 & echo $! >"+file+"; echo out", nil))
	require.Less(t, time.Since(began), 10*time.Second)
	require.Zero(t, run(t, c, "kill $(cat "+file+")", nil).code)
}

func (x target) testMaxSessions(t *testing.T) {
	c := x.dial(t)
	var open []ssh.Channel
	for range 10 {
		ch, requests := channel(t, c)
		go ssh.DiscardRequests(requests)
		require.True(t, ask(t, ch, "exec", "cat"))
		open = append(open, ch)
	}
	_, _, err := c.OpenChannel("session", nil)
	var refused *ssh.OpenChannelError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, ssh.ConnectionFailed, refused.Reason)
	require.Equal(t, "open failed", refused.Message)

	require.NoError(t, open[0].Close())
	eventually(t, "the place is free again", func() bool {
		ch, requests, err := c.OpenChannel("session", nil)
		if err != nil {
			return false
		}
		go ssh.DiscardRequests(requests)
		return ch.Close() == nil
	})
	require.Zero(t, run(t, x.dial(t), "true", nil).code, "another connection has its own ten")
}

func (x target) testForward(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() { // answers when the client has said all, so that half-closing shows
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			text, _ := io.ReadAll(c)
			_, _ = c.Write(bytes.ToUpper(text))
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	c := x.dial(t)
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)

	for _, name := range []string{"127.0.0.1", "localhost"} {
		conn, err := c.Dial("tcp", net.JoinHostPort(name, port))
		require.NoError(t, err)
		_, err = io.WriteString(conn, "hello")
		require.NoError(t, err)
		require.NoError(t, conn.(interface{ CloseWrite() error }).CloseWrite())
		got, err := io.ReadAll(conn)
		require.NoError(t, err)
		require.Equal(t, "HELLO", string(got))
		conn.Close()
	}
	_, err = c.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	var refused *ssh.OpenChannelError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, ssh.ConnectionFailed, refused.Reason)
	require.Equal(t, "Connection refused", refused.Message)
}

func (x target) testLogin(t *testing.T) {
	other := newKey(t)
	for name, change := range map[string]func(*ssh.ClientConfig){
		"WrongKey":  func(c *ssh.ClientConfig) { c.Auth = []ssh.AuthMethod{ssh.PublicKeys(other.signer)} },
		"WrongUser": func(c *ssh.ClientConfig) { c.User = "nosuchuser" },
		"Password":  func(c *ssh.ClientConfig) { c.Auth = []ssh.AuthMethod{ssh.Password("ubuntu")} },
		"NoKey":     func(c *ssh.ClientConfig) { c.Auth = nil },
	} {
		t.Run(name, func(t *testing.T) {
			c := x.config()
			change(c)
			_, err := connect(x.addr, c)
			require.ErrorContains(t, err, "unable to authenticate")
		})
	}
	t.Run("WrongHostKey", func(t *testing.T) {
		c := x.config()
		c.HostKeyCallback = ssh.FixedHostKey(other.signer.PublicKey())
		_, err := connect(x.addr, c)
		require.ErrorContains(t, err, "host key mismatch")
	})
	t.Run("Mute", func(t *testing.T) {
		// A client that never says a word does not keep others out.
		conn, err := net.Dial("tcp", x.addr)
		require.NoError(t, err)
		defer conn.Close()
		require.Zero(t, run(t, x.dial(t), "true", nil).code)
	})
}
