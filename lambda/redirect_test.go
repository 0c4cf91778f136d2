package lambda_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
)

// The key goes to the host of the base URL and to no other, not even to another port or scheme of it.
func TestRedirectsAreNotFollowed(t *testing.T) {
	var elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		elsewhere.Add(1)
		_, _ = w.Write([]byte(`{"data":[]}`))
	}))
	defer other.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		var here atomic.Int64
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			here.Add(1)
			to := other.URL + "/api/v1/instances?page_token=x"
			if r.URL.Path == "/api/v1/regions" {
				to = "/api/v1/instances" // even on the same host
			}
			http.Redirect(w, r, to, status)
		}))
		// A client of the caller's, whose own policy is to follow.
		followed := false
		own := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { followed = true; return nil }}
		c := socketClient(t, srv.URL, lambda.WithHTTPClient(own), lambda.WithRetry(lambda.DefaultRetry))
		_, err := c.Instances(background(t))
		require.ErrorContains(t, err, "redirect")
		require.ErrorContains(t, err, other.URL, "it says where to")
		require.NotContains(t, err.Error(), "page_token")
		_, err = c.Launch(background(t), goodLaunch())
		require.ErrorContains(t, err, "redirect")
		_, err = c.Regions(background(t))
		require.ErrorContains(t, err, "redirect")
		require.EqualValues(t, 3, here.Load(), "%d", status)
		require.False(t, followed)
		require.NotNil(t, own.CheckRedirect, "the caller's client is as it was")
		srv.Close()
	}
	require.Zero(t, elsewhere.Load())
}
