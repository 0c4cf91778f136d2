//go:build unix

package remote_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

// betray makes the machine answer to a verb of files.sh what the shell text writes.
func betray(t *testing.T, h *host, verb, text string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(h.home, ".gpulease/lib/files-*.sh"))
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.NoError(t, os.Rename(found[0], found[0]+".true"))
	write(t, found[0], fmt.Sprintf("v=$1\n[ $v != held ] || v=$3\nif [ \"$v\" = %s ]; then\n%s\nelse\nexec sh '%s.true' \"$@\"\nfi\n", verb, text, found[0]))
}

// A machine that answers with a line without an end is not listened to until that fills the memory here.
func TestFetchFromAMachineThatAnswersWithoutEnd(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	write(t, filepath.Join(h.home, "out/file"), "text")
	_, err := p.Fetch(patient(t), h.Target, []string{"out"}, t.TempDir(), remote.FetchOptions{})
	require.NoError(t, err)
	betray(t, h, "sums", `printf '\036gpulease\n\n'; yes | tr -d '\n' | head -c 300000000 && : >"$HOME/all"`)
	_, err = p.Fetch(patient(t), h.Target, []string{"out"}, t.TempDir(), remote.FetchOptions{})
	require.ErrorIs(t, err, remote.ErrMachine)
	require.NoFileExists(t, filepath.Join(h.home, "all"), "all of it was taken")
}
