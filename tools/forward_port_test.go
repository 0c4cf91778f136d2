package tools_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

func TestForwardPort(t *testing.T) {
	f := lease.Forward{LocalAddr: "127.0.0.1:40001", RemotePort: 8888, Open: 1}
	d := &desk{row: ready(), ports: []lease.Forward{f}, jobs: func() ([]remote.Job, error) { return nil, nil }}
	d.open = func(local, port int) (lease.Forward, error) {
		require.Equal(t, 8888, port)
		if local == 5000 {
			return lease.Forward{}, &lease.Error{Code: lease.CodeInvalidInput, Message: "the local port 5000 cannot be used"}
		}
		require.Zero(t, local)
		return f, nil
	}
	got, text := answer(t, d, "forward_port", `{"lease_id":"abcdefghijkl","port":8888}`)
	require.Equal(t, "127.0.0.1:40001", got["local_addr"])
	require.Equal(t, "ready", got["lease_state"])
	require.Contains(t, text, "forwarded: 127.0.0.1:40001")

	got, text = answer(t, d, "get_lease", `{"lease_id":"abcdefghijkl"}`)
	require.Equal(t, []any{"127.0.0.1:40001 -> port 8888, 1 connection open"}, got["forwards"])
	require.Contains(t, text, "forward 127.0.0.1:40001")

	require.Contains(t, failed(t, d, "forward_port", `{"lease_id":"abcdefghijkl","port":8888,"local_port":5000}`), "lease: abcdefghijkl")
	for _, bad := range []string{`{"lease_id":"abcdefghijkl","port":0}`, `{"lease_id":"abcdefghijkl","port":65536}`, `{"lease_id":"abcdefghijkl","port":80,"local_port":80}`} {
		require.Contains(t, failed(t, d, "forward_port", bad), "error invalid_input")
	}

	got, text = answer(t, d, "forward_port", `{"lease_id":"abcdefghijkl","port":8888,"close":true}`)
	require.NotContains(t, got, "local_addr")
	require.Contains(t, text, "1 forward to port 8888 closed")
	_, text = answer(t, d, "forward_port", `{"lease_id":"abcdefghijkl","port":8888,"close":true}`)
	require.Contains(t, text, "nothing was forwarded to port 8888")
}
