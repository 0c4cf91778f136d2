package remote

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAListedSizeThatCannotBeIsRefused(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{-1, 1<<42 + 1, 1 << 62, 1<<63 - 1} {
		l := listing{run: map[string]bool{}}
		err := l.addFiles([]string{"./x"}, []string{strconv.FormatInt(size, 10), "0", "600"}, nil)
		require.ErrorIs(t, err, ErrMachine, size)
	}
	l := listing{run: map[string]bool{}}
	require.NoError(t, l.addFiles([]string{"./x"}, []string{strconv.Itoa(1 << 42), "0", "600"}, nil))
	require.Len(t, l.files, 1)
}
