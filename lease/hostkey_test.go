package lease_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

// rotates makes the machine one that takes a host key of its own as the real one does
// (see [remote.Pool.RotateHostKey]): the new key waits there until it is recorded, and
// whoever does not know the one in force does not get in.
func rotates(k *kit) {
	var waiting ssh.PublicKey
	k.machine.rotate = func(t remote.Target, record func(ssh.PublicKey) error) (ssh.PublicKey, error) {
		var next ssh.PublicKey
		var err error
		k.machine.does(func(m *machine) {
			if m.shown == nil {
				m.shown = t.HostKey
			}
			if !m.shows(t) {
				err = remote.ErrHostKey
				return
			}
			if t.NextHostKey != nil && bytes.Equal(m.shown.Marshal(), t.NextHostKey.Marshal()) {
				next = t.NextHostKey
				return
			}
			if waiting == nil {
				pair, _ := remote.GenerateKey(rand.Reader)
				waiting = pair.Public
			}
			next = waiting
		})
		if err != nil {
			return nil, err
		}
		if err := record(next); err != nil {
			return nil, err
		}
		k.machine.does(func(m *machine) { m.shown, waiting = next, nil })
		if k.crash != nil {
			k.crash("switched, and nobody was told")
		}
		return next, nil
	}
}

// shownKey is the host key that the machine has now, nil where that never mattered.
func (k *kit) shownKey() (key ssh.PublicKey) {
	k.machine.does(func(m *machine) { key = m.shown })
	return key
}

func textOf(key ssh.PublicKey) string { return string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(key))) }

func TestFirstHostKeyIsReplacedBeforeALeaseIsReady(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, rotates)
	given := k.launch(lease.LaunchRequest{})
	l := k.untilState(given.ID, lease.Ready)
	require.NotEmpty(t, given.HostKey)
	require.NotEqual(t, given.HostKey, l.HostKey)
	require.Equal(t, textOf(k.shownKey()), l.HostKey)
	require.Equal(t, []string{"", lease.HostKeyMade}, []string{l.NextHostKey, l.HostKeyFrom})
}

func TestMachineThatKeepsItsFirstHostKey(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err      error
		recorded bool
		tries    int
	}{
		"cannot":                          {remote.ErrUnsupported, false, 1},
		"fails before it is recorded":     {errors.New("disk full"), false, 3},
		"fails when it is recorded":       {remote.ErrConnLost, true, 3},
		"shows a key that nobody expects": {remote.ErrHostKey, false, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pair, err := remote.GenerateKey(rand.Reader)
			require.NoError(t, err)
			tries := 0
			k := newKit(t, lambdatest.Config{}, func(k *kit) {
				k.machine.rotate = func(_ remote.Target, record func(ssh.PublicKey) error) (ssh.PublicKey, error) {
					if tc.recorded {
						if err := record(pair.Public); err != nil {
							return nil, err // the row was written by somebody else: no try
						}
					}
					tries++
					return nil, tc.err
				}
			})
			given := k.launch(lease.LaunchRequest{})
			l := k.untilState(given.ID, lease.Ready)
			require.Equal(t, given.HostKey, l.HostKey)
			require.Equal(t, lease.HostKeyGiven, l.HostKeyFrom)
			if tc.tries == 1 {
				require.Positive(t, tries) // the row may be written by somebody else meanwhile
			} else {
				require.Equal(t, tc.tries, tries)
			}
			if tc.recorded {
				require.Equal(t, textOf(pair.Public), l.NextHostKey, "the machine may have taken it")
			} else {
				require.Empty(t, l.NextHostKey)
			}
		})
	}
}

// A process dies at each step of the change. The next one gets in with what is on
// record, and brings the change to its end.
func TestDeathWhileTheHostKeyIsReplaced(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"booted", "host-key-recording", "host-key-recorded", "switched, and nobody was told", "host-key-taken", "readying", "ready"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{}, rotates)
			doomed, died, _ := k.doomed(func(p string) bool { return p == point })
			given, err := doomed.Launch(context.Background(), lease.LaunchRequest{Type: testType})
			require.NoError(t, err)
			limit := time.After(2 * time.Minute)
			for waiting := true; waiting; {
				select {
				case <-died:
					waiting = false
				case <-limit:
					require.FailNow(t, "the point was never reached")
				default:
					k.sim.Advance(time.Second)
					k.breathe()
				}
			}
			before := k.get(given.ID)
			if shown := k.shownKey(); shown != nil {
				require.Contains(t, []string{before.HostKey, before.NextHostKey}, textOf(shown), "the key in force is on record")
			}

			k.crash = nil
			k.start(k.client(k.sim.APIKey()))
			l := k.untilState(given.ID, lease.Ready)
			require.Equal(t, textOf(k.shownKey()), l.HostKey)
			require.NotEqual(t, given.HostKey, l.HostKey)
			require.Equal(t, []string{"", lease.HostKeyMade}, []string{l.NextHostKey, l.HostKeyFrom})
		})
	}
}
