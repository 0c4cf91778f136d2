package tools_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/tools"
)

func TestProgressIsThrottledAndIncreases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var values []float64
		var messages []string
		r := tools.NewReporter(time.Second, func(p float64, m string) {
			values, messages = append(values, p), append(messages, m)
		})
		r.Note("a")
		r.Note("too soon")
		time.Sleep(999 * time.Millisecond)
		r.Note("still too soon")
		time.Sleep(time.Millisecond)
		r.Note("b")
		time.Sleep(3 * time.Second)
		r.Note("c")
		r.Settle()
		time.Sleep(time.Minute)
		r.Note("after the answer")
		require.Equal(t, []string{"a", "b", "c"}, messages)
		require.Equal(t, []float64{0.001, 1, 4}, values)
	})
}

func TestSettleLeavesAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tools.NewReporter(time.Second, func(float64, string) {})
		began := time.Now()
		r.Settle()
		require.Zero(t, time.Since(began), "nothing was said, so there is nothing to wait for")

		r = tools.NewReporter(time.Second, func(float64, string) { time.Sleep(5 * time.Millisecond) })
		r.Note("a")
		said := time.Now()
		r.Settle()
		require.Equal(t, 20*time.Millisecond, time.Since(said))

		r = tools.NewReporter(time.Second, func(float64, string) {})
		r.Note("a")
		time.Sleep(time.Minute)
		began = time.Now()
		r.Settle()
		require.Zero(t, time.Since(began))
	})
}

func TestNotesFromManyGoroutines(t *testing.T) {
	var values []float64
	r := tools.NewReporter(0, func(p float64, _ string) { values = append(values, p) })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				r.Note("x")
			}
		})
	}
	wg.Wait()
	require.Len(t, values, 400)
	for i := 1; i < len(values); i++ {
		require.Greater(t, values[i], values[i-1])
	}
}

func TestNobodyAskedForProgress(t *testing.T) {
	r := tools.Progress(t.Context())
	require.Nil(t, r)
	r.Note("x")
	r.Settle()
}

func TestCallID(t *testing.T) {
	require.Empty(t, tools.CallID(t.Context()))
	require.Equal(t, "toolu_1", tools.CallID(tools.WithCallID(t.Context(), "toolu_1")))
}

func TestWaitEndsBeforeTheCallDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		require.Equal(t, 45*time.Second, tools.Wait(t.Context(), 45), "no deadline")
		require.Zero(t, tools.Wait(t.Context(), -1))

		ctx, cancel := context.WithTimeout(t.Context(), 44*time.Second)
		defer cancel()
		require.Equal(t, 43*time.Second, tools.Wait(ctx, 45))
		require.Equal(t, 10*time.Second, tools.Wait(ctx, 10))
		time.Sleep(43*time.Second + 500*time.Millisecond)
		require.Zero(t, tools.Wait(ctx, 10), "too late to wait")
	})
}
