package lambda_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
)

// slow answers with body after a while.
func slow(d time.Duration, body string) *fake {
	return &fake{answer: func(_ int, r *http.Request, _ string) (*http.Response, error) {
		select {
		case <-time.After(d):
			return reply(200, body), nil
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}}
}

func TestReadsThatWaitForTheirTurnAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := slow(300*time.Millisecond, `{"data":[`+documentInstance+`]}`)
		c := newClient(t, f, lambda.WithLimiter(lambda.NewPacer(round())))
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				all, err := c.Instances(t.Context())
				assert.NoError(t, err)
				assert.Len(t, all, 1)
			})
		}
		wg.Wait()
		// One may go at once; all who come when it is on the wire wait for one more, which is not older than their question.
		require.LessOrEqual(t, len(f.requests()), 2)
	})
}

// A listing that was on the wire before a call began may not have what the caller has just made.
func TestInstancesIsNeverOlderThanTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := slow(time.Second, `{"data":[]}`)
		c := newClient(t, f)
		var wg sync.WaitGroup
		list := func() {
			wg.Go(func() {
				_, err := c.Instances(t.Context())
				assert.NoError(t, err)
			})
			time.Sleep(100 * time.Millisecond)
		}
		list()
		list()
		wg.Wait()
		require.Len(t, f.requests(), 2)
	})
}

// While a failed request waits to be repeated, others may join.
func TestReadsJoinARepeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, failure := range []func() (*http.Response, error){says(502, page502), breaks(io.EOF)} {
			f := script(failure, says(200, `{"data":[]}`))
			c := newClient(t, f, lambda.WithRetry(steady))
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() {
					_, err := c.Instances(t.Context())
					assert.NoError(t, err)
				})
				time.Sleep(50 * time.Millisecond)
			}
			wg.Wait()
			require.Len(t, f.requests(), 2)
		}
	})
}

// Nobody joins a listing whose first page is here: it is older than the call.
func TestNobodyJoinsALaterPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := script(says(200, `{"data":[],"page_token":"2"}`), says(502, ""), says(200, `{"data":[`+leanInstance+`]}`), says(200, `{"data":[]}`))
		c := newClient(t, f, lambda.WithRetry(steady))
		var wg sync.WaitGroup
		for i := range 2 {
			wg.Go(func() {
				all, err := c.Instances(t.Context())
				assert.NoError(t, err)
				assert.Len(t, all, []int{0, 1}[i]) // the second asks anew while the first waits to repeat its second page
			})
			time.Sleep(500 * time.Millisecond)
		}
		wg.Wait()
		require.Len(t, f.requests(), 4)
	})
}

func TestEachCallerMayLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		f := &fake{answer: func(_ int, r *http.Request, _ string) (*http.Response, error) {
			select {
			case <-time.After(10 * time.Second):
				ended <- nil
				return reply(200, documentTypes), nil
			case <-r.Context().Done():
				ended <- r.Context().Err()
				return nil, r.Context().Err()
			}
		}}
		c := newClient(t, f)
		ask := func(ctx context.Context) chan error {
			done := make(chan error, 1)
			go func() {
				_, err := c.InstanceTypes(ctx)
				done <- err
			}()
			synctest.Wait()
			return done
		}
		first, cancelFirst := context.WithCancel(t.Context())
		second, cancelSecond := context.WithCancel(t.Context())
		a, b := ask(first), ask(second)
		cancelFirst() // it began the request, and the other still gets the answer
		err := <-a
		require.ErrorIs(t, err, context.Canceled)
		var e *lambda.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, lambda.OpInstanceTypes, e.Op)
		require.NoError(t, <-b)
		require.NoError(t, <-ended)
		cancelSecond()

		// When all have left, the request is given up.
		c = newClient(t, f)
		third, cancelThird := context.WithCancel(t.Context())
		a = ask(third)
		cancelThird()
		require.ErrorIs(t, <-a, context.Canceled)
		require.ErrorIs(t, <-ended, context.Canceled)
		require.NoError(t, <-ask(t.Context()), "the next one asks anew")
	})
}

func TestTypesAreKeptForSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := always(200, documentTypes)
		c := newClient(t, f)
		ask := func() []lambda.InstanceTypeOffer {
			offers, err := c.InstanceTypes(t.Context())
			require.NoError(t, err)
			return offers
		}
		offers := ask()
		offers[1].Regions[0].Name = "spoilt"
		offers[0].InstanceType.Name = "spoilt"
		ask()[1].Regions[0].Name = "spoilt"
		require.Equal(t, "us-west-1", ask()[1].Regions[0].Name, "each caller has a copy")
		require.Equal(t, "cpu_4x_general", ask()[0].InstanceType.Name)
		time.Sleep(4900 * time.Millisecond)
		ask()
		require.Len(t, f.requests(), 1)
		time.Sleep(100 * time.Millisecond)
		ask()
		require.Len(t, f.requests(), 2)

		f.answer = func(_ int, r *http.Request, _ string) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, "/launch") {
				return reply(400, envelope("instance-operations/launch/insufficient-capacity", "", "")), nil
			}
			return reply(200, documentTypes), nil
		}
		_, err := c.Launch(t.Context(), goodLaunch())
		require.True(t, lambda.IsCode(err, lambda.CodeInsufficientCapacity))
		ask()
		require.Len(t, f.requests(), 4, "what was kept was wrong")
	})
	synctest.Test(t, func(t *testing.T) {
		f := always(200, documentTypes)
		c := newClient(t, f, lambda.WithTypesCache(0))
		for range 3 {
			_, err := c.InstanceTypes(t.Context())
			require.NoError(t, err)
		}
		require.Len(t, f.requests(), 3)
	})
	t.Run("an error is not kept", func(t *testing.T) {
		f := script(says(500, ""), says(200, documentTypes))
		c := newClient(t, f)
		_, err := c.InstanceTypes(t.Context())
		require.Error(t, err)
		_, err = c.InstanceTypes(t.Context())
		require.NoError(t, err)
	})
}

func TestCallersDoNotShareWhatTheyGet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := slow(time.Second, `{"data":[`+strings.Replace(documentInstance, `"is_reserved"`, `"image":{"id":"i"},"first_healthy":"2026-01-01T00:00:00Z","is_reserved"`, 1)+`]}`)
		c := newClient(t, f, lambda.WithLimiter(limiterFunc(func(ctx context.Context, _ lambda.Class) error {
			time.Sleep(time.Second)
			return ctx.Err()
		})))
		var wg sync.WaitGroup
		got := make([][]lambda.Instance, 2)
		for i := range got {
			wg.Go(func() {
				var err error
				got[i], err = c.Instances(t.Context())
				assert.NoError(t, err)
			})
		}
		wg.Wait()
		require.Len(t, f.requests(), 1)
		a, b := &got[0][0], &got[1][0]
		require.Equal(t, a, b)
		a.SSHKeyNames[0], a.Tags[0].Key, a.FileSystemNames[0], a.FirewallRulesets[0].ID = "x", "x", "x", "x"
		a.FileSystemMounts[0].MountPoint, a.Image.ID = "x", "x"
		*a.FirstHealthy = time.Time{}
		require.Equal(t, "My SSH key", b.SSHKeyNames[0])
		require.Equal(t, "key1", b.Tags[0].Key)
		require.Equal(t, "my-filesystem", b.FileSystemNames[0])
		require.Equal(t, "c4d291f47f9d436fa39f58493ce3b50d", b.FirewallRulesets[0].ID)
		require.Equal(t, "/lambda/nfs/my-filesystem", b.FileSystemMounts[0].MountPoint)
		require.Equal(t, "i", b.Image.ID)
		require.False(t, b.FirstHealthy.IsZero())
	})
}

func TestClockSkew(t *testing.T) {
	now := time.Date(2026, 10, 5, 10, 0, 0, 0, time.UTC)
	f := always(200, `{"data":[]}`)
	c := newClient(t, f, lambda.WithNow(func() time.Time { return now }))
	ask := func(header ...string) {
		f.answer = func(int, *http.Request, string) (*http.Response, error) {
			if header == nil {
				return nil, errors.New("no answer")
			}
			now = now.Add(2 * time.Second) // a slow answer: its date is from the middle
			return reply(502, "", header...), nil
		}
		_, err := c.Regions(t.Context())
		require.Error(t, err, "the clock is read from refusals too")
	}
	_, answer := c.ClockSkew()
	require.Zero(t, answer)
	ask("X", "y")
	_, answer = c.ClockSkew()
	require.Zero(t, answer, "an answer without a date")

	ask("Date", "Mon, 05 Oct 2026 10:05:03 GMT") // sent at :02, answered at :04
	d, answer := c.ClockSkew()
	require.NotZero(t, answer)
	require.Equal(t, 5*time.Minute+500*time.Millisecond, d)

	for _, header := range [][]string{nil, {"Date", "yesterday"}, {"Date", "Mon, 05 Oct 2026 09:00:00 GMT", "Age", "3900"}} {
		ask(header...)
		d, _ = c.ClockSkew()
		require.Equal(t, 5*time.Minute+500*time.Millisecond, d, "what tells nothing changes nothing: %v", header)
	}
	ask("Date", "Mon, 05 Oct 2026 09:00:00 GMT")
	d, _ = c.ClockSkew()
	require.Less(t, d, -59*time.Minute)

	ask("Date", now.Format(http.TimeFormat)) // as old as the request is long
	d, _ = c.ClockSkew()
	require.Zero(t, d, "it may be that there is no difference")
}
