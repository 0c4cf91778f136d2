package lambda_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
)

// steady has no jitter, so that times can be told.
var steady = lambda.RetryPolicy{Initial: time.Second, Max: 4 * time.Second, Multiplier: 2, Elapsed: 30 * time.Second}

func TestRetries(t *testing.T) {
	good := says(200, `{"data":[]}`)
	for name, test := range map[string]struct {
		answers []func() (*http.Response, error)
		took    time.Duration
		sent    int
		ok      bool
		status  int
	}{
		"at once":               {[]func() (*http.Response, error){good}, 0, 1, true, 0},
		"a connection error":    {[]func() (*http.Response, error){breaks(io.EOF), good}, time.Second, 2, true, 0},
		"502 twice":             {[]func() (*http.Response, error){says(502, page502), says(502, page502), good}, 3 * time.Second, 3, true, 0},
		"429 with seconds":      {[]func() (*http.Response, error){says(429, "", "Retry-After", "7"), good}, 7 * time.Second, 2, true, 0},
		"429 with a short wait": {[]func() (*http.Response, error){says(429, "", "Retry-After", "0"), good}, time.Second, 2, true, 0},
		"503 with a date": {[]func() (*http.Response, error){says(503, "", "Date", "Mon, 05 Oct 2026 10:00:00 GMT", "Retry-After", "Mon, 05 Oct 2026 10:00:09 GMT"), good},
			9 * time.Second, 2, true, 0},
		"Retry-After beyond the policy": {[]func() (*http.Response, error){says(429, "", "Retry-After", "31")}, 0, 1, false, 429},
		"Retry-After of years":          {[]func() (*http.Response, error){says(429, "", "Retry-After", "999999999999999999")}, 0, 1, false, 429},
		"the page of 1015":              {[]func() (*http.Response, error){says(403, page1015), good}, time.Second, 2, true, 0},
		"a provider's error":            {[]func() (*http.Response, error){says(409, envelope("provider/internal-unavailable", "", "")), good}, time.Second, 2, true, 0},
		"an answer cut short":           {[]func() (*http.Response, error){says(200, `{"data":[`), good}, time.Second, 2, true, 0},
		"bad key":                       {[]func() (*http.Response, error){says(401, envelope("global/invalid-api-key", "", ""))}, 0, 1, false, 401},
		"the page of 1010":              {[]func() (*http.Response, error){says(403, page1010)}, 0, 1, false, 403},
		"a redirect":                    {[]func() (*http.Response, error){says(301, "", "Location", "https://x/")}, 0, 1, false, 301},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := script(test.answers...)
				start := time.Now()
				_, err := newClient(t, f, lambda.WithRetry(steady)).SSHKeys(background(t))
				require.Equal(t, test.took, time.Since(start))
				require.Len(t, f.requests(), test.sent)
				if test.ok {
					require.NoError(t, err)
					return
				}
				var e *lambda.Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, test.status, e.Status)
			})
		})
	}
}

func TestRetriesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := always(500, "")
		start := time.Now()
		_, err := newClient(t, f, lambda.WithRetry(lambda.DefaultRetry)).SSHKeys(background(t))
		require.ErrorContains(t, err, "500")
		require.LessOrEqual(t, time.Since(start), lambda.DefaultRetry.Elapsed)
		require.Greater(t, len(f.requests()), 4)
		require.Less(t, len(f.requests()), 15)
	})
	synctest.Test(t, func(t *testing.T) { // the context ends first
		f := always(500, "")
		ctx, cancel := context.WithTimeout(background(t), 2500*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err := newClient(t, f, lambda.WithRetry(steady)).Terminate(ctx, "a1")
		require.Equal(t, 2500*time.Millisecond, time.Since(start))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "500", "what the service said is not lost")
		require.False(t, lambda.IsNothingHappened(err))
		require.Len(t, f.requests(), 2)
	})
	synctest.Test(t, func(t *testing.T) { // the context ends while a repeat is on the wire
		f := &fake{answer: func(n int, r *http.Request, _ string) (*http.Response, error) {
			if n == 1 {
				return reply(400, envelope("provider/x", "y", "")), nil
			}
			<-r.Context().Done()
			return nil, r.Context().Err()
		}}
		ctx, cancel := context.WithTimeout(background(t), 3*time.Second)
		defer cancel()
		_, err := newClient(t, f, lambda.WithRetry(steady)).Terminate(ctx, "a1")
		require.ErrorContains(t, err, "provider/x")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.False(t, lambda.IsNothingHappened(err), "the second attempt may have worked: %v", err)
	})
}

func TestEachAttemptHasATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: func(n int, r *http.Request, _ string) (*http.Response, error) {
			if n == 1 {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return reply(200, `{"data":{"terminated_instances":[]}}`), nil
		}}
		start := time.Now()
		_, err := newClient(t, f, lambda.WithRetry(steady), lambda.WithTimeout(5*time.Second)).Terminate(background(t), "a1")
		require.NoError(t, err, "a terminate that hangs is asked again")
		require.Equal(t, 6*time.Second, time.Since(start))
	})
}

// What was refused at the second attempt may still have been done by the first.
func TestAnEarlierAttemptMayHaveHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := says(404, envelope("global/object-does-not-exist", "Specified instance does not exist.", ""))
		_, err := newClient(t, script(gone), lambda.WithRetry(steady)).Terminate(background(t), "a1")
		require.True(t, lambda.IsNotFound(err))
		require.True(t, lambda.IsNothingHappened(err))

		_, err = newClient(t, script(breaks(io.EOF), gone), lambda.WithRetry(steady)).Terminate(background(t), "a1")
		require.True(t, lambda.IsNotFound(err))
		require.False(t, lambda.IsNothingHappened(err), "%v", err)
	})
}

// Only these calls may be sent twice.
func TestWhatIsRepeated(t *testing.T) {
	safe := map[lambda.Op]bool{lambda.OpTerminate: true, lambda.OpDeleteSSHKey: true, lambda.OpDeleteFilesystem: true,
		lambda.OpDeleteFirewallRuleset: true}
	for _, op := range operations() {
		t.Run(string(op.op), func(t *testing.T) {
			for name, answer := range map[string]func() (*http.Response, error){
				"502": says(502, page502), "429": says(429, page1015), "408": says(408, ""), "broken": says(200, "{"), "reset": breaks(errors.New("connection reset")),
				"provider": says(409, envelope("provider/internal-unavailable", "", "")),
			} {
				synctest.Test(t, func(t *testing.T) {
					f := script(answer, answer, answer, says(200, op.answer))
					err := op.call(background(t), newClient(t, f, lambda.WithRetry(steady)))
					if op.method == http.MethodGet || safe[op.op] {
						require.NoError(t, err, name)
						require.Len(t, f.requests(), 4, name)
						return
					}
					var e *lambda.Error
					require.ErrorAs(t, err, &e, name)
					require.Equal(t, op.op, e.Op)
					require.Len(t, f.requests(), 1, name)
					require.Equal(t, name == "provider", e.Outcome == lambda.NothingHappened, "%s: %v", name, e)
				})
			}
		})
	}
}
