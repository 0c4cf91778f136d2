package machine_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/gpulease/gpulease/lambda/lambdatest/machine"
)

func TestRefuse(t *testing.T) {
	h := start(t)
	c := h.dial(t)
	require.Zero(t, run(t, c, "(sleep 0.3; echo done >marker) >/dev/null 2>&1 &", nil).code)
	h.SetRefuse(true)
	h.SetRefuse(true)
	require.Error(t, c.Wait(), "open connections are cut")
	_, err := net.Dial("tcp", h.Addr())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	h.SetRefuse(false)
	eventually(t, "it is back at its address", func() bool {
		c, err := connect(h.Addr(), h.config())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	require.Equal(t, "done\n", h.runAnew(t, "while [ ! -e marker ]; do sleep 0.02; done; cat marker").stdout, "commands ran on")
}

// TestRefusePortTaken: somebody sits at the port when the machine comes back.
func TestRefusePortTaken(t *testing.T) {
	tried := make(chan struct{}, 1)
	h := start(t, func(c *machine.Config) {
		c.Logf = func(format string, args ...any) {
			if strings.Contains(format, "listen again") {
				select {
				case tried <- struct{}{}:
				default:
				}
			}
		}
	})
	h.SetRefuse(true)
	squatter, err := net.Listen("tcp", h.Addr())
	require.NoError(t, err)
	h.SetRefuse(false)
	<-tried
	require.NoError(t, squatter.Close())
	eventually(t, "it is back at its address", func() bool {
		c, err := connect(h.Addr(), h.config())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func TestMute(t *testing.T) {
	h := start(t)
	c := h.dial(t)
	h.SetMute(true)

	// A new connection is accepted, and then there is silence.
	conn, err := net.Dial("tcp", h.Addr())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	_, err = conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)

	// An open one hangs.
	answered := make(chan error, 1)
	go func() {
		_, _, err := c.SendRequest("keepalive@openssh.com", true, nil)
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("answered in the dark: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	h.SetMute(false)
	require.NoError(t, <-answered, "nothing was lost")
	require.Equal(t, "hi\n", run(t, c, "echo hi", nil).stdout)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	_, err = conn.Read(make([]byte, 1))
	require.NoError(t, err, "and the mute one speaks")
}

func TestCloseInTheDark(t *testing.T) {
	h := start(t)
	c := h.dial(t)
	h.SetMute(true)
	require.NoError(t, h.Close())
	require.Error(t, c.Wait())
}

func TestSetHostKey(t *testing.T) {
	h := start(t)
	before := h.config()
	c := h.dial(t)
	h.SetHostKey(newKey(t).signer)
	_, err := connect(h.Addr(), before)
	require.ErrorContains(t, err, "host key mismatch")
	require.Equal(t, "on\n", run(t, c, "echo on", nil).stdout, "connections of before stay")
	require.Zero(t, h.runAnew(t, "true").code)
}

// TestTwoMachines: each has its address, and both have the same port.
func TestTwoMachines(t *testing.T) {
	if machine.Loopback(1) == machine.Loopback(2) {
		t.Skip("this system has one loopback address")
	}
	port := freePort(t)
	var hosts []*host
	for n := range 2 {
		hosts = append(hosts, start(t, func(c *machine.Config) {
			c.Addr = fmt.Sprintf("%s:%d", machine.Loopback(uint32(7000+n)), port)
			c.Hostname = fmt.Sprintf("box-%d", n)
		}))
	}
	require.NotEqual(t, hosts[0].Home(), hosts[1].Home())
	for n, h := range hosts {
		require.Equal(t, fmt.Sprintf("box-%d\n", n), h.run(t, "hostname").stdout)
		c := h.config()
		c.HostKeyCallback = ssh.InsecureIgnoreHostKey()
		_, err := connect(hosts[1-n].Addr(), c)
		require.ErrorContains(t, err, "unable to authenticate", "one's key does not open the other")
	}
}

func TestForwardStaysOnLoopback(t *testing.T) {
	h := start(t)
	c := h.dial(t)
	for _, to := range []string{"192.0.2.1:80", "example.org:80", "0.0.0.0:80", "[::]:80"} {
		_, err := c.Dial("tcp", to)
		var refused *ssh.OpenChannelError
		require.ErrorAs(t, err, &refused, to)
		require.Equal(t, ssh.Prohibited, refused.Reason, to)
	}
}

func TestManyConnections(t *testing.T) {
	h := start(t)
	var wg sync.WaitGroup
	for n := range 60 {
		wg.Go(func() {
			c, err := connect(h.Addr(), h.config())
			if !assert.NoError(t, err) {
				return
			}
			defer c.Close()
			s, err := c.NewSession()
			if !assert.NoError(t, err) {
				return
			}
			out, err := s.Output(fmt.Sprintf("echo %d", n))
			assert.NoError(t, err)
			assert.Equal(t, fmt.Sprintf("%d\n", n), string(out))
		})
	}
	wg.Wait()
}

func TestLoopback(t *testing.T) {
	if machine.Loopback(1) == machine.Loopback(2) {
		t.Skip("this system has one loopback address")
	}
	seen := map[string]bool{}
	for _, base := range []uint32{0, 1 << 20, 1<<32 - 20_000} {
		clear(seen)
		for n := range uint32(20_000) {
			a := machine.Loopback(base + n)
			ip := net.ParseIP(a).To4()
			if seen[a] || ip == nil || !ip.IsLoopback() || ip[1] == 0 || ip[3] == 0 || ip[3] == 255 {
				t.Fatalf("the address of %d is %s", base+n, a)
			}
			seen[a] = true
		}
	}
}
