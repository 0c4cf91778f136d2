//go:build unix

package remote_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

// echo is a server "on the machine" that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		tasks.Wait()
	})
	return l.Addr().String()
}

// through sends data and returns what comes back until the far end closes.
func through(addr string, data []byte) ([]byte, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		if err == nil {
			err = c.(*net.TCPConn).CloseWrite()
		}
		sent <- err
	}()
	back, err := io.ReadAll(c)
	if sendErr := <-sent; err == nil {
		err = sendErr
	}
	return back, err
}

func TestForward(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, target remote.Target, _ string, weather *proxy) {
		p, ctx := newPool(t, remote.Config{}), testContext(t)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello ", r.URL.Path) }))
		defer server.Close()
		web, err := p.Forward(ctx, target, 0, strings.TrimPrefix(server.URL, "http://"))
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(web.LocalAddr(), "127.0.0.1:"))
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		r, err := client.Get("http://" + web.LocalAddr() + "/x")
		require.NoError(t, err)
		body, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		require.NoError(t, r.Body.Close())
		require.Equal(t, "hello /x", string(body))
		require.NoError(t, web.Close())
		if r, err := client.Get("http://" + web.LocalAddr() + "/y"); err == nil { // the port may be another test's by now
			body, _ := io.ReadAll(r.Body)
			require.NoError(t, r.Body.Close())
			require.NotEqual(t, "hello /y", string(body), "closed is closed")
		}

		f, err := p.Forward(ctx, target, 0, echo(t))
		require.NoError(t, err)
		require.False(t, f.InUse(0))
		data := noise(3_000_000)
		var group sync.WaitGroup
		for range 12 {
			group.Go(func() {
				back, err := through(f.LocalAddr(), data)
				assert.NoError(t, err)
				assert.True(t, bytes.Equal(data, back))
			})
		}
		group.Wait()
		require.Eventually(t, func() bool { return f.Stats().Open == 0 }, 5*time.Second, time.Millisecond)
		s := f.Stats()
		require.Equal(t, int64(12), s.Total)
		require.Equal(t, int64(36_000_000), s.Sent)
		require.Equal(t, int64(36_000_000), s.Received)
		require.Less(t, time.Since(s.Last), time.Minute)
		require.True(t, f.InUse(time.Minute))
		require.Equal(t, 1, weather.accepted(), "all over the kept connection")
		require.Equal(t, []*remote.Forward{f}, p.Forwards(target.Key))

		// The connection breaks: what goes through it is closed, what comes after dials again.
		c, err := net.Dial("tcp", f.LocalAddr())
		require.NoError(t, err)
		defer func() { _ = c.Close() }()
		_, err = c.Write([]byte("x"))
		require.NoError(t, err)
		_, err = io.ReadFull(c, make([]byte, 1))
		require.NoError(t, err)
		require.True(t, f.InUse(0))
		weather.cut()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, err = c.Read(make([]byte, 1))
		require.Error(t, err)
		require.Eventually(t, func() bool { return f.Stats().Open == 0 }, 5*time.Second, time.Millisecond)
		back, err := through(f.LocalAddr(), []byte("again"))
		require.NoError(t, err)
		require.Equal(t, "again", string(back))

		p.Forget(target.Key)
		require.Empty(t, p.Forwards(target.Key))
		require.Eventually(t, func() bool {
			c, err := net.Dial("tcp", f.LocalAddr())
			if err == nil {
				_ = c.Close()
			}
			return err != nil
		}, 5*time.Second, time.Millisecond, "gone with the lease")
		require.NoError(t, f.Close())
	})
}

func TestForwardToNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, target remote.Target, _ string, weather *proxy) {
		p, ctx := newPool(t, remote.Config{ReconnectFor: 300 * time.Millisecond}), testContext(t)
		f, err := p.Forward(ctx, target, 0, freeAddr(t))
		require.NoError(t, err, "a server may be started there later")
		back, _ := through(f.LocalAddr(), []byte("x"))
		require.Empty(t, back)
		require.Equal(t, int64(1), f.Stats().Refused)
		require.Zero(t, f.Stats().Total)
		require.Equal(t, 1, weather.accepted(), "a refusal breaks no connection")
		_, err = p.Forward(ctx, target, portOf(t, f.LocalAddr()), "8888")
		require.ErrorContains(t, err, "in use")
		for _, bad := range []string{"", "0", "70000", "x", "example.com:80", "169.254.169.254:80", "10.0.0.1:22", "0.0.0.0:80", "localhost:"} {
			_, err := p.Forward(ctx, target, 0, bad)
			require.ErrorIs(t, err, remote.ErrInvalid, "%q", bad)
		}
		weather.stop()
		back, _ = through(f.LocalAddr(), []byte("x"))
		require.Empty(t, back, "closed when the machine stays away")
		_, err = p.Forward(ctx, target, 0, "8888")
		require.ErrorIs(t, err, remote.ErrUnreachable)
	})
}

func TestForwardIsBounded(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	f, err := p.Forward(testContext(t), h.Target, 0, echo(t))
	require.NoError(t, err)
	var held []net.Conn
	for range 64 {
		c, err := net.Dial("tcp", f.LocalAddr())
		require.NoError(t, err)
		held = append(held, c)
	}
	require.Eventually(t, func() bool { return f.Stats().Open == 64 }, 10*time.Second, time.Millisecond)
	back, _ := through(f.LocalAddr(), []byte("x"))
	require.Empty(t, back)
	require.Equal(t, int64(1), f.Stats().Refused)
	_ = held[0].Close()
	require.Eventually(t, func() bool {
		back, err := through(f.LocalAddr(), []byte("x"))
		return err == nil && string(back) == "x"
	}, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, p.Close(), "with connections open")
	for _, c := range held {
		_ = c.Close()
	}
}

func portOf(t *testing.T, addr string) int {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	require.NoError(t, err)
	return a.Port
}
