package lambda_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
)

const (
	page1010 = "error code: 1010"
	page1015 = `<!DOCTYPE html><html><head><title>Access denied</title></head><body><h1><span class="cf-error-type">Error</span>
<span class="cf-error-code">1015</span></h1><h2>You are being rate limited</h2><p>The owner of this website has banned you temporarily</p></body></html>`
	page502 = "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>"
)

// Each row is an answer to a launch: what it proves, and whether to come back.
func TestLaunchRefusals(t *testing.T) {
	const nothing, maybe = lambda.NothingHappened, lambda.MayHaveHappened
	const never, later = lambda.RetryNever, lambda.RetryLater
	for name, test := range map[string]struct {
		status  int
		body    string
		header  []string
		code    lambda.Code
		outcome lambda.Outcome
		retry   lambda.Retry
		is      func(error) bool // what else must hold
		message string
	}{
		"bad key": {401, envelope("global/invalid-api-key", "API key was invalid, expired, or deleted.", "Check your API key or create a new one, then try again."), nil,
			lambda.CodeInvalidAPIKey, nothing, never, lambda.IsBadKey, "API key was invalid"},
		"inactive account": {403, envelope("global/account-inactive", "Your account is inactive.", "x"), nil,
			lambda.CodeAccountInactive, nothing, never, nil, ""},
		"bad address":  {403, envelope("global/invalid-address", "Your billing address is invalid.", "x"), nil, lambda.CodeInvalidAddress, nothing, never, nil, ""},
		"forbidden":    {403, envelope("global/forbidden", "no", ""), nil, lambda.CodeForbidden, nothing, never, nil, ""},
		"bad request":  {400, envelope("global/invalid-parameters", "Invalid request data.", ""), nil, lambda.CodeInvalidParameters, nothing, never, nil, ""},
		"no capacity":  {400, envelope("instance-operations/launch/insufficient-capacity", "Not enough capacity to fulfill launch request.", ""), nil, lambda.CodeInsufficientCapacity, nothing, later, lambda.IsRetryable, ""},
		"quota":        {400, envelope("global/quota-exceeded", "Quota exceeded.", "Contact Support to increase your quota."), nil, lambda.CodeQuotaExceeded, nothing, never, nil, ""},
		"wrong region": {400, envelope("instance-operations/launch/file-system-in-wrong-region", "no", ""), nil, lambda.CodeFileSystemWrongRegion, nothing, never, nil, ""},
		"unknown name, as 400": {400, envelope("global/object-does-not-exist", "SSH key does not exist", "x"), nil, lambda.CodeObjectDoesNotExist, nothing, never,
			func(err error) bool { return !lambda.IsNotFound(err) }, ""},
		"unknown name, as 404": {404, envelope("global/object-does-not-exist", "SSH key does not exist", "x"), nil, lambda.CodeObjectDoesNotExist, nothing, never,
			func(err error) bool { return !lambda.IsNotFound(err) }, ""},
		"provider":     {409, envelope("provider/internal-unavailable", "Provider unavailable", "Try again shortly"), nil, lambda.CodeProviderUnavailable, nothing, later, nil, ""},
		"internal 409": {409, envelope("global/internal-error", "An internal server error occurred.", "x"), nil, lambda.CodeInternalError, nothing, later, nil, ""},
		"new code":     {418, envelope("global/brand-new", "no", ""), nil, "global/brand-new", nothing, never, nil, ""},

		"408 envelope":        {408, envelope("global/timeout", "slow", ""), nil, "global/timeout", maybe, later, nil, ""},
		"429 envelope":        {429, envelope("global/rate-limited", "slow down", ""), nil, "global/rate-limited", maybe, later, lambda.IsRateLimited, ""},
		"429 HTML":            {429, page1015, []string{"Content-Type", "text/html"}, "", maybe, later, lambda.IsRateLimited, "error 1015"},
		"403 1015":            {403, page1015, []string{"Content-Type", "text/html; charset=UTF-8"}, "", maybe, later, lambda.IsRateLimited, "error 1015"},
		"403 1010":            {403, page1010, []string{"Content-Type", "text/plain"}, "", maybe, later, lambda.IsBlocked, "error 1010"},
		"403 page":            {403, "<html>no</html>", []string{"Content-Type", "text/html"}, "", maybe, later, lambda.IsBlocked, "nothing about the key"},
		"401 page":            {401, "<html>no</html>", []string{"Content-Type", "text/html"}, "", maybe, later, func(err error) bool { return !lambda.IsBadKey(err) }, ""},
		"400 other JSON":      {400, `{"detail":"no"}`, nil, "", maybe, later, nil, ""},
		"400 envelope broken": {400, `{"error":{"code":"global/inval`, nil, "", maybe, later, nil, ""},
		"400 no code":         {400, `{"error":{"message":"no"}}`, nil, "", maybe, later, nil, ""},
		"400 error is text":   {400, `{"error":"no"}`, nil, "", maybe, later, nil, ""},
		"500 envelope":        {500, envelope("global/internal-error", "An internal server error occurred.", ""), nil, lambda.CodeInternalError, maybe, later, nil, ""},
		"502 page":            {502, page502, []string{"Content-Type", "text/html"}, "", maybe, later, nil, "text/html page"},
		"503 empty":           {503, "", nil, "", maybe, later, nil, ""},
		"302":                 {302, "", []string{"Location", "https://elsewhere.example/x?y"}, "", maybe, never, nil, "https://elsewhere.example"},
		"304":                 {304, "", nil, "", maybe, never, nil, ""},

		"200 page":        {200, "<html>hello</html>", []string{"Content-Type", "text/html"}, "", maybe, later, nil, "text/html page"},
		"200 empty":       {200, "", nil, "", maybe, later, nil, ""},
		"200 no data":     {200, `{}`, nil, "", maybe, later, nil, "no data"},
		"200 null":        {200, `null`, nil, "", maybe, later, nil, "no data"},
		"200 no ids":      {200, `{"data":{}}`, nil, "", maybe, later, nil, "0 instances"},
		"200 zero ids":    {200, `{"data":{"instance_ids":[]}}`, nil, "", maybe, later, nil, "0 instances"},
		"200 two ids":     {200, `{"data":{"instance_ids":["a1","b2"]}}`, nil, "", maybe, later, nil, `"a1" "b2"`},
		"200 empty id":    {200, `{"data":{"instance_ids":[""]}}`, nil, "", maybe, later, nil, "id is empty"},
		"200 id a number": {200, `{"data":{"instance_ids":[7]}}`, nil, "", maybe, later, nil, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			f := always(test.status, test.body, test.header...)
			// Even where repeats are on, a launch is sent once.
			id, err := newClient(t, f, lambda.WithRetry(lambda.DefaultRetry)).Launch(background(t), goodLaunch())
			require.Empty(t, id)
			var e *lambda.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, lambda.OpLaunch, e.Op)
			require.Equal(t, test.status, e.Status)
			require.Equal(t, test.code, e.Code)
			require.Equal(t, test.outcome, e.Outcome, "outcome: %v", e)
			require.Equal(t, test.retry, e.Retry, "retry: %v", e)
			require.Equal(t, test.outcome == nothing, lambda.IsNothingHappened(err))
			require.Equal(t, test.retry == later, lambda.IsRetryable(err))
			require.Equal(t, test.outcome == maybe, strings.Contains(err.Error(), "it may have happened"))
			require.Contains(t, err.Error(), test.message)
			if test.is != nil {
				require.True(t, test.is(err), "%v", err)
			}
			require.Equal(t, test.code == lambda.CodeInvalidAPIKey, lambda.IsBadKey(err), "only Lambda itself can say that a key is bad")
			require.Len(t, f.requests(), 1, "a launch is sent once")
		})
	}
}

func TestTransportFailuresOfALaunch(t *testing.T) {
	t.Run("an unknown transport's error proves nothing", func(t *testing.T) {
		f := script(breaks(io.ErrUnexpectedEOF))
		_, err := newClient(t, f, lambda.WithRetry(lambda.DefaultRetry)).Launch(background(t), goodLaunch())
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.False(t, lambda.IsNothingHappened(err))
		require.Len(t, f.requests(), 1)
	})
	t.Run("the context was done before", func(t *testing.T) {
		f := always(200, `{}`)
		ctx, cancel := context.WithCancel(background(t))
		cancel()
		_, err := newClient(t, f).Launch(ctx, goodLaunch())
		require.ErrorIs(t, err, context.Canceled)
		require.True(t, lambda.IsNothingHappened(err))
		require.Empty(t, f.requests())
	})
	t.Run("the limiter refused", func(t *testing.T) {
		broken := errors.New("ledger is locked")
		f := always(200, `{}`)
		_, err := newClient(t, f, lambda.WithLimiter(limiterFunc(func(context.Context, lambda.Class) error { return broken }))).Launch(background(t), goodLaunch())
		require.ErrorIs(t, err, broken)
		require.True(t, lambda.IsNothingHappened(err))
		require.Empty(t, f.requests())
	})
	t.Run("a bad request is not sent", func(t *testing.T) {
		f := always(200, `{}`)
		r := goodLaunch()
		r.SSHKeyName = ""
		_, err := newClient(t, f).Launch(background(t), r)
		require.True(t, lambda.IsCode(err, lambda.CodeInvalidParameters))
		require.True(t, lambda.IsNothingHappened(err))
		require.Empty(t, f.requests())
	})
}

type limiterFunc func(context.Context, lambda.Class) error

func (f limiterFunc) Wait(ctx context.Context, c lambda.Class) error { return f(ctx, c) }

// socketClient talks over real sockets with the default transport.
func socketClient(t *testing.T, url string, opts ...lambda.Option) *lambda.Client {
	t.Helper()
	key, err := lambda.ParseKey(testKey)
	require.NoError(t, err)
	c, err := lambda.New(key, append([]lambda.Option{lambda.WithBaseURL(url + "/api/v1"), lambda.WithLimiter(lambda.NoLimit),
		lambda.WithRetry(lambda.NoRetry)}, opts...)...)
	require.NoError(t, err)
	return c
}

func TestFailuresOnTheWire(t *testing.T) {
	hijack := func(then func(net.Conn)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				then(conn)
				_ = conn.Close()
			}
		}
	}
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"cut after the work is done": {hijack(func(c net.Conn) {}), "no answer"},
		"cut within the head":        {hijack(func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 O") }), "no answer"},
		"cut within the body": {hijack(func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"data\":{\"instance_ids\":[\"a\"]}}")
		}), "broke off"},
		"cut within a refusal": {hijack(func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 500\r\n\r\n{\"error\":{\"code\":\"global/invalid-parameters\"")
		}), "400"},
		"not HTTP": {hijack(func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-x\r\n\r\n") }), "no answer"},
		"no end": {func(w http.ResponseWriter, r *http.Request) {
			chunk := []byte(strings.Repeat(" ", 1<<20))
			for r.Context().Err() == nil {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, "longer than"},
		"hangs": {func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // or the server does not see the client leave
			<-r.Context().Done()
		}, "no answer"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(test.handler)
			defer srv.Close()
			timeout := 20 * time.Second
			if name == "hangs" {
				timeout = 50 * time.Millisecond
			}
			_, err := socketClient(t, srv.URL, lambda.WithTimeout(timeout)).Launch(background(t), goodLaunch())
			require.ErrorContains(t, err, test.want)
			require.False(t, lambda.IsNothingHappened(err), "the service may have done it: %v", err)
			require.True(t, lambda.IsRetryable(err))
			if name == "hangs" {
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}
		})
	}
}

func TestNoConnectionProvesThatNothingHappened(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	url := "http://" + l.Addr().String()
	require.NoError(t, l.Close())
	_, err = socketClient(t, url).Launch(background(t), goodLaunch())
	require.ErrorContains(t, err, "no connection")
	require.True(t, lambda.IsNothingHappened(err), "%v", err)

	t.Run("a TLS handshake that fails", func(t *testing.T) {
		srv := httptest.NewUnstartedServer(http.NotFoundHandler())
		srv.Config.ErrorLog = log.New(io.Discard, "", 0)
		srv.StartTLS() // its certificate is not trusted
		defer srv.Close()
		_, err := socketClient(t, srv.URL).Launch(background(t), goodLaunch())
		require.True(t, lambda.IsNothingHappened(err), "%v", err)
	})
	t.Run("a name that does not exist", func(t *testing.T) {
		_, err := socketClient(t, "https://lambda.invalid", lambda.WithTimeout(10*time.Second)).Launch(background(t), goodLaunch())
		require.True(t, lambda.IsNothingHappened(err), "%v", err)
	})
}

func TestIsNotFound(t *testing.T) {
	for _, test := range []struct {
		op     lambda.Op
		status int
		code   lambda.Code
		want   bool
	}{
		{lambda.OpInstance, 404, lambda.CodeObjectDoesNotExist, true},
		{lambda.OpTerminate, 404, lambda.CodeObjectDoesNotExist, true},
		{lambda.OpInstance, 404, lambda.CodeNotFound, false}, // a wrong base URL gives this for every instance
		{lambda.OpTerminate, 404, lambda.CodeNotFound, false},
		{lambda.OpInstance, 404, "", false},
		{lambda.OpInstance, 400, lambda.CodeObjectDoesNotExist, false},
		{lambda.OpDeleteSSHKey, 404, lambda.CodeNotFound, true},
		{lambda.OpDeleteSSHKey, 404, lambda.CodeObjectDoesNotExist, true},
		{lambda.OpLaunch, 404, lambda.CodeObjectDoesNotExist, false},
	} {
		err := fmt.Errorf("wrapped: %w", &lambda.Error{Op: test.op, Status: test.status, Code: test.code})
		require.Equal(t, test.want, lambda.IsNotFound(err), "%+v", test)
	}
	require.False(t, lambda.IsNotFound(nil))
	require.False(t, lambda.IsNotFound(errors.New("x")))
	require.False(t, lambda.IsNothingHappened(errors.New("x")))
	require.False(t, lambda.IsCode(&lambda.Error{}, ""), "no code is not a code")
}

func TestErrorText(t *testing.T) {
	f := always(400, envelope("global/quota-exceeded", "Quota\x1b[31m exceeded.", "Ask\nSupport."), "X-Request-Id", "r-1")
	_, err := newClient(t, f).Launch(background(t), goodLaunch())
	require.EqualError(t, err, "launch: 400 global/quota-exceeded: Quota [31m exceeded. (request r-1)")
	var e *lambda.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "Ask Support.", e.Suggestion)

	f = always(400, envelope("global/x", strings.Repeat("long ", 5000), ""))
	_, err = newClient(t, f).Launch(background(t), goodLaunch())
	require.Less(t, len(err.Error()), 1200)
}
