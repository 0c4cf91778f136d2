//go:build unix

package lease_test

import (
	"bufio"
	"crypto/rand"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	sshhost "github.com/gpulease/gpulease/lambda/lambdatest/machine"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

// withFarEnd gives the kit's machine a real SSH side, to which ports are forwarded.
func withFarEnd(t *testing.T) func(*kit) {
	t.Helper()
	host, err := remote.GenerateKey(rand.Reader)
	require.NoError(t, err)
	client, err := remote.GenerateKey(rand.Reader)
	require.NoError(t, err)
	signer, err := client.Signer()
	require.NoError(t, err)
	m, err := sshhost.Start(t.Context(), sshhost.Config{
		ID: "far", Dir: filepath.Join(t.TempDir(), "machine"), AuthorizedKeys: []ssh.PublicKey{client.Public},
		UserData: "#cloud-config\nssh_deletekeys: true\nssh_genkeytypes: []\nssh_keys:\n  ed25519_private: |\n    " +
			strings.ReplaceAll(strings.TrimSuffix(string(host.PrivatePEM), "\n"), "\n", "\n    ") + "\n  ed25519_public: " + host.AuthorizedKey + "\n",
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return func(k *kit) {
		pool := remote.NewPool(remote.Config{Now: k.sim.Now})
		t.Cleanup(func() { require.NoError(t, pool.Close()) })
		target := remote.Target{Addr: m.Addr(), User: "ubuntu", Signer: signer, HostKey: host.Public}
		k.machine.does(func(fake *machine) { fake.pool, fake.far = pool, target })
	}
}

func TestForwardInUseKeepsALeaseFromBeingIdle(t *testing.T) {
	t.Parallel()
	k, l := idleKit(t, withFarEnd(t))
	there := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(there.Close)
	port := there.Listener.Addr().(*net.TCPAddr).Port
	f, _, err := k.m.Forward(t.Context(), l.ID, 0, port)
	require.NoError(t, err)
	require.Equal(t, port, f.RemotePort)
	c, err := net.Dial("tcp", f.LocalAddr)
	require.NoError(t, err)
	_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: there\r\n\r\n")
	require.NoError(t, err)
	answer, err := bufio.NewReader(c).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, answer, "404")
	require.Equal(t, 1, k.m.Forwards(l.ID)[0].Open)

	k.alive(l.ID, 40*time.Minute) // a connection is open, though nothing passes
	require.NoError(t, c.Close())
	got := k.untilIdle(l.ID)
	require.Equal(t, lease.Idle, got.Reason, "an open forward that nobody uses keeps nothing alive")
	k.settled(k.untilState(l.ID, lease.Ended))
	require.Empty(t, k.m.Forwards(l.ID))
	requireClosed(t, f.LocalAddr)
}

func requireClosed(t *testing.T, addr string) {
	t.Helper()
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	}, 10*time.Second, 5*time.Millisecond, "the local port is still open")
}

func TestForwardsOfALease(t *testing.T) {
	t.Parallel()
	k, l := idleKit(t, withFarEnd(t))
	ctx := t.Context()
	f, _, err := k.m.Forward(ctx, l.ID, 0, 8888)
	require.NoError(t, err, "nothing has to listen there yet")
	same, _, err := k.m.Forward(ctx, l.ID, 0, 8888)
	require.NoError(t, err)
	require.Equal(t, f.LocalAddr, same.LocalAddr, "asked for again, it is given again")
	_, text, err := net.SplitHostPort(f.LocalAddr)
	require.NoError(t, err)
	taken, err := strconv.Atoi(text)
	require.NoError(t, err)
	_, _, err = k.m.Forward(ctx, l.ID, taken, 9999)
	require.Equal(t, lease.CodeInvalidInput, lease.CodeOf(err))
	require.ErrorContains(t, err, text)
	for port := range 15 {
		_, _, err := k.m.Forward(ctx, l.ID, 0, 9000+port)
		require.NoError(t, err)
	}
	_, _, err = k.m.Forward(ctx, l.ID, 0, 9100)
	require.Equal(t, lease.CodeInvalidInput, lease.CodeOf(err))
	require.ErrorContains(t, err, "16 ports")

	closed, _, err := k.m.CloseForward(ctx, l.ID, 8888)
	require.NoError(t, err)
	require.Len(t, closed, 1)
	requireClosed(t, f.LocalAddr)
	require.Len(t, k.m.Forwards(l.ID), 15)

	// Another process decides the end: the forwards of this one go all the same.
	other := k.m.Forwards(l.ID)[0].LocalAddr
	require.Eventually(t, func() bool {
		row := k.get(l.ID)
		row.State, row.Reason, row.StopAt = lease.Stopping, lease.Stopped, k.sim.Now()
		_, err := k.db.Update(ctx, row, "stopped elsewhere")
		return err == nil // else the manager has just written the row
	}, 5*time.Second, time.Millisecond)
	requireClosed(t, other)
	_, _, err = k.m.Forward(ctx, l.ID, 0, 8888)
	require.Equal(t, lease.CodeLeaseEnded, lease.CodeOf(err))
	k.untilState(l.ID, lease.Ended)
}
