package remote_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

// requireSilent is for the error of a call that has given up.
func requireSilent(t *testing.T, err error) {
	t.Helper()
	require.Error(t, err)
	require.True(t, errors.Is(err, remote.ErrUnreachable) || errors.Is(err, remote.ErrConnLost), "%v", err)
	require.ErrorContains(t, err, "the machine was last heard ")
}

// The machine was there and is gone: it refuses all, or neither the kept connection nor a new one is ever
// answered. Who waits for an answer has it long before a transfer would give up.
func TestImpatientCallToAMachineThatIsGone(t *testing.T) {
	t.Parallel()
	for name, vanish := range map[string]func(*proxy){"refuses": (*proxy).stop, "is silent": (*proxy).darken} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := startHost(t)
			proxy := startProxy(t, h.Addr)
			p := newPool(t, remote.Config{ReconnectFor: time.Hour, Keepalive: time.Hour, DialTimeout: time.Hour})
			target := h.Target
			target.Addr = proxy.addr
			require.NoError(t, p.Check(testContext(t), target))
			vanish(proxy)
			_, err := p.Jobs(remote.Impatient(testContext(t), 2*time.Second), target)
			requireSilent(t, err)
		})
		t.Run(name+", to a transfer", func(t *testing.T) {
			t.Parallel()
			h := startHost(t)
			proxy := startProxy(t, h.Addr)
			p := newPool(t, remote.Config{ReconnectFor: time.Hour, Keepalive: time.Hour, DialTimeout: time.Hour})
			target := h.Target
			target.Addr = proxy.addr
			src, _ := manyMegabytes(t, 60)
			_, err := p.Push(testContext(t), target, src, "dst", remote.PushOptions{})
			require.NoError(t, err)
			vanish(proxy)
			_, err = p.Push(remote.Impatient(testContext(t), 2*time.Second), target, src, "other", remote.PushOptions{})
			requireSilent(t, err)
		})
	}
}

// Only the kept connection is dark. The call goes on over a new one.
func TestImpatientCallOverADarkConnection(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	proxy := startProxy(t, h.Addr)
	p := newPool(t, remote.Config{Keepalive: time.Hour})
	target := h.Target
	target.Addr = proxy.addr
	require.NoError(t, p.Check(testContext(t), target))
	proxy.freeze()
	_, err := p.Jobs(remote.Impatient(testContext(t), 12*time.Second), target)
	require.NoError(t, err)
	require.Equal(t, 2, proxy.accepted())
}

// A call that has been answered outlives an outage that is longer than its patience.
func TestImpatientCallThatWasAnsweredGoesOn(t *testing.T) {
	t.Parallel()
	const patience = 6 * time.Second
	onBoth(t, func(t *testing.T, target remote.Target, home string, weather *proxy) {
		p, dst, want := newPool(t, remote.Config{}), t.TempDir(), string(noise(8_000_000))
		write(t, filepath.Join(home, "out/large"), want)
		require.NoError(t, p.Check(testContext(t), target))
		weather.rate.Store(10_000_000)
		began := make(chan struct{})
		var once sync.Once
		var group sync.WaitGroup
		group.Go(func() {
			_, err := p.Fetch(remote.Impatient(patient(t), patience), target, []string{"out"}, dst, remote.FetchOptions{
				Progress: func(int, int64) { once.Do(func() { close(began) }) },
			})
			assert.NoError(t, err)
		})
		<-began
		weather.stop()
		time.Sleep(patience + time.Second) // the outage, not a wait for something
		weather.rate.Store(0)
		weather.start()
		group.Wait()
		require.True(t, contents(t, dst)["out/large"] == want)
	})
}

// A call that has all the time that it asked for says when it ends whether the machine was still heard.
func TestCallThatEndsSaysHowLongTheMachineWasSilent(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	proxy := startProxy(t, h.Addr)
	var ahead atomic.Int64
	p := newPool(t, remote.Config{Keepalive: time.Hour, DialTimeout: time.Hour, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	target := h.Target
	target.Addr = proxy.addr
	require.NoError(t, p.Check(testContext(t), target))
	call := func() error {
		ctx, cancel := context.WithTimeout(testContext(t), 300*time.Millisecond)
		defer cancel()
		_, err := p.Jobs(ctx, target)
		return err
	}
	proxy.freeze()
	err := call()
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotContains(t, err.Error(), "last heard")
	ahead.Store(int64(29 * time.Minute))
	err = call()
	require.ErrorIs(t, err, context.DeadlineExceeded)
	var silent *remote.SilentError
	require.ErrorAs(t, err, &silent)
	require.InDelta(t, 29*time.Minute, silent.For, float64(time.Minute))
}
