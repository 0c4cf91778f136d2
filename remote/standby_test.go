//go:build unix

package remote_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

// manyMegabytes is a tree that goes in several archives.
func manyMegabytes(t *testing.T, files int) (dir string, want map[string]string) {
	t.Helper()
	dir, want = t.TempDir(), map[string]string{}
	for i := range files {
		name := fmt.Sprintf("d%d/f%d", i%7, i)
		want[name] = string(noise(100_000 + i))
		write(t, filepath.Join(dir, name), want[name])
	}
	return dir, want
}

// watchTar has the machine write down what runs tar, and hold each archive that comes as long as there is a file of the name of
// the directory that it is for, with ".hold"; or with ".later" when it is not one of the first eight.
func (h *host) watchTar(t *testing.T) (log string) {
	t.Helper()
	tar, err := exec.LookPath("tar")
	require.NoError(t, err)
	log = filepath.Join(h.home, "tars")
	h.shim(t, "tar", fmt.Sprintf(`#!/bin/sh
case $1 in
-x*)
	tr '\0' ' ' </proc/$PPID/cmdline | sed 's/$/\n/' >>'%s'
	hold=$PWD.hold
	[ "$(grep -c "\./${PWD##*/} " '%s')" -le 8 ] || hold=$PWD.later
	while [ -e "$hold" ]; do sleep 0.02; done
esac
exec '%s' "$@"
`, log, log, tar))
	return log
}

// unpacked is how many archives came, to be unpacked by a script that takes several or by one that applies one.
func unpacked(t *testing.T, log, dst string) (took, applied int) {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		require.ErrorIs(t, err, os.ErrNotExist)
	}
	return strings.Count(string(text), ".sh take ./"+dst+" "), strings.Count(string(text), ".sh apply ./"+dst+" ")
}

// filesScript changes the script for files that the machine has: what is put is put in front of it.
func (h *host) filesScript(t *testing.T) (put func(text string)) {
	t.Helper()
	scripts, err := filepath.Glob(filepath.Join(h.home, ".gpulease/lib/files-*.sh"))
	require.NoError(t, err)
	require.Len(t, scripts, 1)
	script, err := os.ReadFile(scripts[0])
	require.NoError(t, err)
	return func(text string) { require.NoError(t, os.WriteFile(scripts[0], []byte(text+string(script)), 0o600)) }
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	require.Eventually(t, is, 30*time.Second, 5*time.Millisecond, what)
}

// A server that has just been used has not closed all sessions yet, and then there may be none to stand by in: so several tries.
func TestPushSendsArchivesToWhatStandsBy(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p, ctx := newPool(t, remote.Config{}), patient(t)
	log := h.watchTar(t)
	src, want := manyMegabytes(t, 180)
	stoodBy, edited := false, false
	for i := 0; !stoodBy || !edited; i++ {
		require.Less(t, i, 20)
		dst := fmt.Sprintf("dst-%d-", i)
		_, err := p.Push(ctx, h.Target, src, dst, remote.PushOptions{})
		require.NoError(t, err)
		require.Equal(t, want, contents(t, filepath.Join(h.home, dst)))
		took, applied := unpacked(t, log, dst)
		require.GreaterOrEqual(t, took+applied, 8, "archives")
		stoodBy = stoodBy || applied == 0

		name := fmt.Sprintf("d%d/f%d", i%7, i)
		want[name] = fmt.Sprint("edit ", i)
		write(t, filepath.Join(src, name), want[name])
		gone := fmt.Sprintf("d%d/f%d", (i+50)%7, i+50)
		delete(want, gone)
		require.NoError(t, os.Remove(filepath.Join(src, gone)))
		sum, err := p.Push(ctx, h.Target, src, dst, remote.PushOptions{Delete: true})
		require.NoError(t, err)
		require.Equal(t, 1, sum.Sent)
		require.Equal(t, 1, sum.Deleted)
		require.Equal(t, want, contents(t, filepath.Join(h.home, dst)))
		again, _ := unpacked(t, log, dst)
		edited = edited || again == took+1
	}
	stages, err := filepath.Glob(filepath.Join(h.home, "*/.gpulease-stage.*"))
	require.NoError(t, err)
	require.Empty(t, stages)
}

// What stands by holds sessions, and the server allows few: everything comes to its end all the same.
func TestTransfersAtOnceWithFewSessions(t *testing.T) {
	t.Parallel()
	for _, sessions := range []int{1, 2, 4, 10} {
		t.Run(strconv.Itoa(sessions), func(t *testing.T) {
			t.Parallel()
			h := startHost(t, fmt.Sprintf("MaxSessions %d", sessions))
			p, ctx := newPool(t, remote.Config{}), patient(t)
			src, want := manyMegabytes(t, 50)
			_, err := p.Push(ctx, h.Target, src, "from", remote.PushOptions{})
			require.NoError(t, err)
			var group sync.WaitGroup
			here := t.TempDir()
			for i := range 3 {
				group.Go(func() {
					_, err := p.Push(ctx, h.Target, src, fmt.Sprint("to", i), remote.PushOptions{})
					assert.NoError(t, err)
				})
				group.Go(func() {
					sum, err := p.Fetch(ctx, h.Target, []string{"from"}, filepath.Join(here, strconv.Itoa(i)), remote.FetchOptions{})
					assert.NoError(t, err)
					assert.True(t, sum.Complete())
				})
			}
			group.Wait()
			for i := range 3 {
				require.Equal(t, want, contents(t, filepath.Join(h.home, fmt.Sprint("to", i))))
				require.Equal(t, want, contents(t, filepath.Join(here, strconv.Itoa(i), "from")))
			}
		})
	}
}

// A push that holds nearly all slots gives them up, an archive later, when others wait.
func TestPushGivesWay(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p, ctx := newPool(t, remote.Config{}), patient(t)
	write(t, filepath.Join(h.home, "result"), "42")
	large, want := manyMegabytes(t, 600)
	other, wantOther := manyMegabytes(t, 60)
	_, err := p.Push(ctx, h.Target, other, "warm", remote.PushOptions{})
	require.NoError(t, err)
	log := h.watchTar(t)
	for _, name := range []string{"large.hold", "large.later", "other1.hold", "other2.hold"} {
		write(t, filepath.Join(h.home, name), "")
	}
	var group sync.WaitGroup
	push := func(src, dst string) {
		group.Go(func() {
			_, err := p.Push(ctx, h.Target, src, dst, remote.PushOptions{})
			assert.NoError(t, err)
		})
	}
	push(large, "large")
	until(t, "four archives are held", func() bool { took, applied := unpacked(t, log, "large"); return took+applied == 4 })
	push(other, "other1")
	push(other, "other2")
	until(t, "the others wait", func() bool { return p.Waiting(h.Target.Key) >= 7 })
	require.NoError(t, os.Remove(filepath.Join(h.home, "large.hold")))
	until(t, "the others have all slots", func() bool {
		_, one := unpacked(t, log, "other1")
		_, two := unpacked(t, log, "other2")
		return one+two == 5
	})
	for _, name := range []string{"large.later", "other1.hold", "other2.hold"} {
		require.NoError(t, os.Remove(filepath.Join(h.home, name)))
	}
	sum, err := p.Fetch(ctx, h.Target, []string{"result"}, t.TempDir(), remote.FetchOptions{})
	require.NoError(t, err)
	require.True(t, sum.Complete())
	group.Wait()
	require.Equal(t, want, contents(t, filepath.Join(h.home, "large")))
	require.Equal(t, wantOther, contents(t, filepath.Join(h.home, "other1")))
	require.Equal(t, wantOther, contents(t, filepath.Join(h.home, "other2")))
}

// The script that takes archives is killed while it unpacks one.
func TestPushGoesOnWhenWhatTakesIsKilled(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p, ctx := newPool(t, remote.Config{}), patient(t)
	src, want := manyMegabytes(t, 90)
	log, hold := h.watchTar(t), filepath.Join(h.home, "dst.hold")
	write(t, hold, "")
	done := make(chan error, 1)
	go func() {
		_, err := p.Push(ctx, h.Target, src, "dst", remote.PushOptions{})
		done <- err
	}()
	until(t, "an archive is held", func() bool { took, _ := unpacked(t, log, "dst"); return took > 0 })
	killed := 0
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, name := range lines {
		text, _ := os.ReadFile(name)
		environ, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "environ"))
		if strings.Contains(string(text), ".sh\x00take\x00") && strings.Contains(string(environ), "HOME="+h.home+"\x00") {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			require.NoError(t, err)
			if syscall.Kill(pid, syscall.SIGKILL) == nil {
				killed++
			}
		}
	}
	require.Positive(t, killed)
	require.NoError(t, os.Remove(hold))
	require.ErrorIs(t, <-done, remote.ErrMachine)
	_, err = p.Push(ctx, h.Target, src, "dst", remote.PushOptions{})
	require.NoError(t, err)
	got := contents(t, filepath.Join(h.home, "dst"))
	for name, text := range want {
		require.True(t, got[name] == text, name)
	}
}

func TestTransfersWhenTheScriptWentAway(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p, ctx := newPool(t, remote.Config{}), patient(t)
	src, want := manyMegabytes(t, 60)
	for _, dst := range []string{"first", "second"} {
		_, err := p.Push(ctx, h.Target, src, dst, remote.PushOptions{})
		require.NoError(t, err)
		require.Equal(t, want, contents(t, filepath.Join(h.home, dst)))
		require.NoError(t, os.RemoveAll(filepath.Join(h.home, ".gpulease")))
		here := t.TempDir()
		sum, err := p.Fetch(ctx, h.Target, []string{dst}, here, remote.FetchOptions{})
		require.NoError(t, err)
		require.True(t, sum.Complete())
		require.Equal(t, want, contents(t, filepath.Join(here, dst)))
		require.NoError(t, os.RemoveAll(filepath.Join(h.home, ".gpulease")))
	}
}

// A machine that says that it takes archives, and does not.
func TestPushToAMachineThatTakesNothing(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	src, want := manyMegabytes(t, 90)
	_, err := p.Push(patient(t), h.Target, src, "dst", remote.PushOptions{})
	require.NoError(t, err)
	put := h.filesScript(t)
	for name, answer := range map[string]string{
		"Nothing":  `printf '\036gpulease\n\n'`,
		"Nonsense": `printf 'what?\n'`,
		"Early":    `printf '\036gpulease\n'; yes 'removed x' | head -n 3000; echo`,
		"Failure":  `printf '\036gpulease\nerror conflict d1 is not a directory on the machine\n\n'`,
	} {
		t.Run(name, func(t *testing.T) {
			put(`[ "$1" != take ] || { ` + answer + "; exit 0; }\n")
			ctx, cancel := context.WithTimeout(patient(t), time.Minute)
			defer cancel()
			var err error
			for i := 0; err == nil; i++ { // until the server has sessions for what is to stand by
				require.Less(t, i, 20)
				dst := fmt.Sprintf("other-%s-%d", name, i)
				if _, err = p.Push(ctx, h.Target, src, dst, remote.PushOptions{}); err == nil {
					require.Equal(t, want, contents(t, filepath.Join(h.home, dst)))
				}
			}
			if name == "Failure" {
				require.ErrorIs(t, err, remote.ErrConflict)
			} else {
				require.ErrorIs(t, err, remote.ErrMachine)
			}
			require.Zero(t, p.Waiting(h.Target.Key))
		})
	}
}

// A machine that answers before it is asked for anything.
func TestFetchFromAMachineThatAnswersEarly(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	write(t, filepath.Join(h.home, "out/f"), "f")
	_, err := p.Fetch(patient(t), h.Target, []string{"out"}, t.TempDir(), remote.FetchOptions{})
	require.NoError(t, err)
	put := h.filesScript(t)
	// The list comes when the answers to what was not asked are here.
	put(`case $* in
"held - send "*) printf '\036gpulease\nhow none\n\n'; touch ~/early; exit 0 ;;
*list*) for i in 1 2 3 4 5 6 7 8 9; do [ -e ~/early ] || sleep 0.2; done; sleep 0.3 ;;
esac
`)
	for i := 0; ; i++ { // until the server has a session for what is to stand by
		require.Less(t, i, 20)
		here := t.TempDir()
		sum, err := p.Fetch(patient(t), h.Target, []string{"out"}, here, remote.FetchOptions{})
		require.NoError(t, err)
		if _, err := os.Stat(filepath.Join(h.home, "early")); err == nil {
			want := map[string]string{}
			if sum.Complete() { // asked once more, with nothing that stood by
				want["out/f"] = "f"
			}
			require.Equal(t, want, contents(t, here))
			break
		}
	}
}

// What cannot be listed here makes nothing there.
func TestPushOfWhatCannotBeListedMakesNothing(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p, ctx := newPool(t, remote.Config{}), testContext(t)
	src := t.TempDir()
	write(t, filepath.Join(src, "f"), "f")
	_, err := p.Push(ctx, h.Target, src, "right", remote.PushOptions{})
	require.NoError(t, err)
	write(t, filepath.Join(src, ".gpuleaseignore/f"), "a directory")
	for i := range 5 {
		_, err := p.Push(ctx, h.Target, src, fmt.Sprint("wrong", i), remote.PushOptions{})
		require.ErrorContains(t, err, ".gpuleaseignore")
	}
	_, err = p.Push(ctx, h.Target, filepath.Join(h.home, "right"), "later", remote.PushOptions{})
	require.NoError(t, err)
	made, err := filepath.Glob(filepath.Join(h.home, "wrong*"))
	require.NoError(t, err)
	require.Empty(t, made)
}
