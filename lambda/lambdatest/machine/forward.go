package machine

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// forward joins a channel to a port of this host's loopback addresses, and to
// nothing else: the machine is not a way into the network around it.
func (m *Machine) forward(ch ssh.NewChannel) {
	var to struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}
	if ssh.Unmarshal(ch.ExtraData(), &to) != nil || to.Port > 65535 || !isLoopback(to.Host) {
		_ = ch.Reject(ssh.Prohibited, "open failed")
		return
	}
	conn, err := new(net.Dialer).DialContext(m.ctx, "tcp", net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))))
	if err != nil {
		reason := "open failed"
		if errors.Is(err, syscall.ECONNREFUSED) {
			reason = "Connection refused"
		}
		_ = ch.Reject(ssh.ConnectionFailed, reason)
		return
	}
	defer conn.Close()
	c, requests, err := ch.Accept()
	if err != nil {
		return
	}
	var copies, closed sync.WaitGroup
	closed.Go(func() {
		// The requests end with the channel, and then nobody listens to the server.
		ssh.DiscardRequests(requests)
		conn.Close()
	})
	copies.Go(func() {
		_, _ = io.Copy(conn, c)
		if t, ok := conn.(*net.TCPConn); ok {
			_ = t.CloseWrite()
		}
	})
	copies.Go(func() {
		_, _ = io.Copy(c, conn)
		_ = c.CloseWrite()
	})
	copies.Wait()
	c.Close()
	closed.Wait()
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}
