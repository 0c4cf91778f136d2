//go:build unix

package client

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnotherUsersFileIsLeftAlone(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make one")
	}
	path := file(t, "{}")
	require.NoError(t, os.Chown(path, 12345, 12345))
	_, err := host(t, "cursor").Install(path, wanted, false)
	require.ErrorContains(t, err, "belongs to another user")
}
