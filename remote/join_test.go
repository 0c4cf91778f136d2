//go:build unix

package remote_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

// A large file is read on the machine while it comes, by the best that the machine has.
func TestLargeFileIsCheckedWhateverTheMachineHas(t *testing.T) {
	t.Parallel()
	const fails = "#!/bin/sh\nexit 1\n"
	for name, without := range map[string][]string{
		"python": nil, "openssl": {"python3"}, "coreutils": {"python3", "openssl"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := startHost(t)
			for _, tool := range without {
				h.shim(t, tool, fails)
			}
			// What a project brings is not what the machine's Python imports.
			for _, module := range []string{"hashlib", "sys", "encodings"} {
				write(t, filepath.Join(h.home, "dst", module+".py"), "raise SystemExit(1)")
			}
			p, ctx, src := newPool(t, remote.Config{}), patient(t), t.TempDir()
			want := string(noise(20_000_001))
			write(t, filepath.Join(src, "large"), want)
			_, err := p.Push(ctx, h.Target, src, "dst", remote.PushOptions{})
			require.NoError(t, err)
			got, err := os.ReadFile(filepath.Join(h.home, "dst/large"))
			require.NoError(t, err)
			require.True(t, string(got) == want)

			// A machine that stores something else than what came does not get away with it.
			h.shim(t, "dd", `#!/bin/sh
case "$*" in *of=*/data*) /bin/dd "$@" && printf spoilt | /bin/dd of="${1#of=}" conv=notrunc bs=1 seek=5 2>/dev/null ;; *) exec /bin/dd "$@" ;; esac
`)
			write(t, filepath.Join(src, "large"), want[1:])
			_, err = p.Push(ctx, h.Target, src, "dst", remote.PushOptions{})
			require.ErrorIs(t, err, remote.ErrMachine)
			got, err = os.ReadFile(filepath.Join(h.home, "dst/large"))
			require.NoError(t, err)
			require.True(t, string(got) == want, "what was there stays")
		})
	}
}

// More pushes at once than a connection has streams: none of them waits for what another one holds.
func TestLargePushesAtOnce(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p, src := newPool(t, remote.Config{}), t.TempDir()
	write(t, filepath.Join(src, "large"), string(noise(17<<20)))
	ctx, cancel := context.WithCancel(patient(t))
	defer cancel()
	const pushes = 8
	errs := make(chan error, pushes)
	for i := range pushes {
		go func() {
			_, err := p.Push(ctx, h.Target, src, fmt.Sprintf("dst%d", i), remote.PushOptions{})
			errs <- err
		}()
	}
	for range pushes {
		require.NoError(t, <-errs)
	}
}
