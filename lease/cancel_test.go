package lease_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

// Whoever gives up waiting for a launch gets its lease at once, and the launch goes on:
// the same call again finds it.
func TestACallerThatGivesUpDropsNoLaunch(t *testing.T) {
	marked, wake := make(chan struct{}), make(chan struct{})
	k := newKit(t, lambdatest.Config{}, func(k *kit) {
		k.crash = func(point string) {
			if point == "launch-marked" {
				close(marked)
				<-wake
			}
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	type answer struct {
		l   lease.Lease
		err error
	}
	answered := make(chan answer, 1)
	request := lease.LaunchRequest{Type: testType, IdempotencyKey: "call toolu_1"}
	go func() {
		l, err := k.m.Launch(ctx, request)
		answered <- answer{l, err}
	}()
	<-marked
	cancel()
	got := <-answered // while the launch call has not even been sent
	require.NoError(t, got.err)
	require.NotEmpty(t, got.l.ID)
	require.Empty(t, k.sim.Running())
	close(wake)

	again := k.launch(request)
	require.Equal(t, got.l.ID, again.ID)
	k.untilState(got.l.ID, lease.Ready)
	require.Len(t, k.sim.Running(), 1)
}
