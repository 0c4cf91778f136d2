//go:build unix

package remote_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/gpulease/gpulease/remote"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	for name, tt := range map[string]struct {
		change func(*remote.Target)
		want   error
	}{
		"OK":         {func(*remote.Target) {}, nil},
		"HostKey":    {func(g *remote.Target) { g.HostKey = newSigner(t).PublicKey() }, remote.ErrHostKey},
		"Auth":       {func(g *remote.Target) { g.Signer = newSigner(t) }, remote.ErrAuth},
		"User":       {func(g *remote.Target) { g.User = "nobody-here" }, remote.ErrAuth},
		"ClosedPort": {func(g *remote.Target) { g.Addr = freeAddr(t) }, remote.ErrUnreachable},
		"NoHostKey":  {func(g *remote.Target) { g.HostKey = nil }, remote.ErrInvalid},
		"NoSigner":   {func(g *remote.Target) { g.Signer = nil }, remote.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPool(t, remote.Config{})
			target := h.Target
			tt.change(&target)
			err := p.Check(testContext(t), target)
			if tt.want == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, tt.want)
			for _, other := range []error{remote.ErrHostKey, remote.ErrAuth, remote.ErrUnreachable, remote.ErrConnLost} {
				if other != tt.want {
					require.NotErrorIs(t, err, other)
				}
			}
		})
	}
}

func TestHostKeyErrorNamesBothKeys(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	target := h.Target
	target.HostKey = newSigner(t).PublicKey()
	err := p.Check(testContext(t), target)
	var mismatch *remote.HostKeyError
	require.ErrorAs(t, err, &mismatch)
	require.Equal(t, ssh.FingerprintSHA256(target.HostKey), mismatch.Want)
	require.Equal(t, ssh.FingerprintSHA256(h.HostKey), mismatch.Got)
	require.ErrorContains(t, err, mismatch.Want)
	require.ErrorContains(t, err, mismatch.Got)
}

func TestHostKeyOfAnotherKind(t *testing.T) {
	t.Parallel()
	h := startHost(t, "HostKeyAlgorithms ecdsa-sha2-nistp256", "HostKey "+ecdsaHostKey(t))
	err := newPool(t, remote.Config{}).Check(testContext(t), h.Target)
	require.ErrorIs(t, err, remote.ErrHostKey)
	require.ErrorContains(t, err, "no ssh-ed25519 key")
}

// An ECDSA key beside the pinned one is what a machine's image has; the pinned kind must be asked for.
func TestPinnedKindIsPreferred(t *testing.T) {
	t.Parallel()
	h := startHost(t, "HostKey "+ecdsaHostKey(t))
	require.NoError(t, newPool(t, remote.Config{}).Check(testContext(t), h.Target))
}

// A changed target under the same key, such as after a rotated host key, must not be served by the old connection.
func TestTargetChanges(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	require.NoError(t, p.Check(testContext(t), h.Target))
	target := h.Target
	target.HostKey = newSigner(t).PublicKey()
	require.ErrorIs(t, p.Check(testContext(t), target), remote.ErrHostKey)
	require.NoError(t, p.Check(testContext(t), h.Target))
}

func TestMutePeer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	target := remote.Target{Key: "mute", Addr: l.Addr().String(), User: "u", Signer: newSigner(t), HostKey: newSigner(t).PublicKey()}

	p := newPool(t, remote.Config{DialTimeout: 300 * time.Millisecond})
	begun := time.Now()
	require.ErrorIs(t, p.Check(testContext(t), target), remote.ErrUnreachable)
	require.Less(t, time.Since(begun), 3*time.Second)

	p = newPool(t, remote.Config{})
	ctx, cancel := context.WithTimeout(testContext(t), 100*time.Millisecond)
	defer cancel()
	begun = time.Now()
	require.ErrorIs(t, p.Check(ctx, target), context.DeadlineExceeded)
	require.Less(t, time.Since(begun), 3*time.Second)
}

func TestOneConnectionForMany(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	proxy := startProxy(t, h.Addr)
	p := newPool(t, remote.Config{})
	target := h.Target
	target.Addr = proxy.addr
	ctx := testContext(t)
	var group sync.WaitGroup
	for i := range 40 {
		group.Go(func() {
			_, stdout, _, err := p.Run(ctx, target, fmt.Sprintf("job-many-%d", i), remote.Command{Shell: fmt.Sprintf("echo %d", i)}, wait, 100, 0)
			assert.NoError(t, err)
			assert.Equal(t, fmt.Sprintf("%d\n", i), string(stdout.Head))
		})
	}
	group.Wait()
	require.Equal(t, 1, proxy.accepted())
	p.Forget(target.Key)
	require.NoError(t, p.Check(ctx, target))
	require.Equal(t, 2, proxy.accepted())
}

func TestConnectionCutInTheMiddle(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	proxy := startProxy(t, h.Addr)
	p := newPool(t, remote.Config{})
	target := h.Target
	target.Addr = proxy.addr
	ctx := testContext(t)
	_, err := p.Start(ctx, target, "job-cut", remote.Command{Shell: "until [ -e go ]; do sleep 0.02; done; echo finished"})
	require.NoError(t, err)
	type answer struct {
		job remote.Job
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		job, err := p.Job(ctx, target, "job-cut", wait)
		answers <- answer{job, err}
	}()
	for range 2 {
		require.Eventually(t, func() bool { return proxy.open() == 1 }, 5*time.Second, time.Millisecond)
		proxy.cut()
	}
	require.NoError(t, os.WriteFile(filepath.Join(h.home, "go"), nil, 0o600))
	a := <-answers
	require.NoError(t, a.err)
	require.Equal(t, remote.Exited, a.job.State)
	require.GreaterOrEqual(t, proxy.accepted(), 3)
	stdout, _, err := p.Output(ctx, target, "job-cut", 100, 0)
	require.NoError(t, err)
	require.Equal(t, "finished\n", string(stdout.Head))
}

func TestMachineGone(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	proxy := startProxy(t, h.Addr)
	p := newPool(t, remote.Config{ReconnectFor: 500 * time.Millisecond})
	target := h.Target
	target.Addr = proxy.addr
	ctx := testContext(t)
	require.NoError(t, p.Check(ctx, target))
	proxy.stop()
	begun := time.Now()
	_, err := p.Jobs(ctx, target)
	require.Error(t, err)
	require.True(t, strings.Contains(err.Error(), target.Addr))
	require.ErrorIs(t, err, remote.ErrUnreachable)
	require.Less(t, time.Since(begun), 10*time.Second)
}

// A connection that goes dark without a reset is found by the keepalive, and the call goes on over a new one.
func TestDarkConnection(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	proxy := startProxy(t, h.Addr)
	p := newPool(t, remote.Config{Keepalive: 200 * time.Millisecond, KeepaliveTimeout: time.Second})
	target := h.Target
	target.Addr = proxy.addr
	ctx := testContext(t)
	require.NoError(t, p.Check(ctx, target))
	proxy.freeze()
	jobs, err := p.Jobs(ctx, target)
	require.NoError(t, err)
	require.Empty(t, jobs)
	require.Equal(t, 2, proxy.accepted())
}

func TestContextEndsACall(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	_, err := p.Start(ctx, h.Target, "job-ctx", remote.Command{Shell: "sleep 60"})
	require.NoError(t, err)
	for range 12 {
		short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
		begun := time.Now()
		_, err := p.Job(short, h.Target, "job-ctx", time.Minute)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, time.Since(begun), 5*time.Second)
		cancel()
	}
	// Given-up waits must not hold the server's sessions: it allows ten.
	begun := time.Now()
	_, err = p.Job(ctx, h.Target, "job-ctx", 0)
	require.NoError(t, err)
	require.Less(t, time.Since(begun), 5*time.Second)
}

func TestClosedPool(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	require.NoError(t, p.Check(testContext(t), h.Target))
	require.NoError(t, p.Close())
	require.ErrorIs(t, p.Check(testContext(t), h.Target), remote.ErrClosed)
}

// A login script that prints something must not disturb any answer.
func TestNoisyLogin(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	require.NoError(t, os.WriteFile(filepath.Join(h.home, ".bashrc"), []byte("echo welcome; echo warning >&2\n"), 0o600))
	_, stdout, stderr, err := newPool(t, remote.Config{}).Run(testContext(t), h.Target, "job-noise", remote.Command{Shell: "echo x"}, wait, 100, 0)
	require.NoError(t, err)
	require.Equal(t, "x\n", string(stdout.Head))
	require.Empty(t, stderr.Head)
}

func TestHomeNotWritable(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	require.NoError(t, os.WriteFile(filepath.Join(h.home, ".gpulease"), nil, 0o600))
	_, err := newPool(t, remote.Config{}).Start(testContext(t), h.Target, "job-store", remote.Command{Shell: "true"})
	require.ErrorIs(t, err, remote.ErrStorage)
}
