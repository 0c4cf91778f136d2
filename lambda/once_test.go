package lambda_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
)

// A transport may send a body again by itself when it can get it again. It cannot for calls that are sent once.
func TestNoTransportCanRepeatALaunch(t *testing.T) {
	for _, op := range operations() {
		var again bool
		f := &fake{answer: func(_ int, r *http.Request, _ string) (*http.Response, error) {
			again = r.GetBody != nil
			return reply(200, op.answer), nil
		}}
		require.NoError(t, op.call(background(t), newClient(t, f)))
		require.Equal(t, op.op == lambda.OpTerminate, again, "%s", op.op)
	}
}

// A connection that was kept may have died unseen. A launch does not try it.
func TestALaunchTakesANewConnection(t *testing.T) {
	var connections atomic.Int64
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, _ = w.Write([]byte(`{"data":{"instance_ids":["a1"]}}`))
			return
		}
		_, _ = w.Write([]byte(`{"data":[]}`))
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	c := socketClient(t, srv.URL)
	for range 3 {
		_, err := c.Regions(background(t))
		require.NoError(t, err)
	}
	require.EqualValues(t, 1, connections.Load(), "reads share a connection")
	_, err := c.Launch(background(t), goodLaunch())
	require.NoError(t, err)
	require.EqualValues(t, 2, connections.Load())
}
