package lease

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/gpulease/gpulease/remote"
)

const (
	// rotateCall bounds one try to replace a host key: the machine is billed meanwhile.
	rotateCall = 20 * time.Second
	// rotateTries is how often it is tried. A machine that cannot do it is used with
	// the key that it has.
	rotateTries = 3
)

// ownHostKey has a booted machine take a host key that was made there, in the place
// of the one that came by user_data. The new key is on record before it is in force,
// beside the old one, so whoever dies meanwhile, the machine can be reached; l is
// that record as it is now. What came of it is in the answer, and written with the
// next change of the lease.
func (m *Manager) ownHostKey(ctx context.Context, l *Lease) (Lease, error) {
	if l.HostKeyFrom != "" {
		return *l, nil
	}
	ctx, cancel := context.WithTimeout(ctx, rotateCall)
	defer cancel()
	t, err := m.target(*l)
	if err != nil {
		return *l, err
	}
	key, err := m.Machine.RotateHostKey(ctx, t, func(next ssh.PublicKey) error {
		text := hostKeyText(next)
		if l.NextHostKey == text {
			return nil // from a try that did not come to its end
		}
		noted := *l
		noted.NextHostKey = text
		m.Crash("host-key-recording")
		written, err := m.Store.Update(ctx, noted, "the machine is about to take a host key of its own")
		if err != nil {
			return err
		}
		*l = written
		m.Crash("host-key-recorded")
		return nil
	})
	done := *l
	switch {
	case err == nil:
		m.Crash("host-key-taken")
		done.HostKey, done.NextHostKey, done.HostKeyFrom = hostKeyText(key), "", HostKeyMade
	case errors.Is(err, remote.ErrUnsupported):
		done.HostKeyFrom = HostKeyGiven
	default:
		return done, fmt.Errorf("replace the host key: %w", err)
	}
	return done, nil
}

// hostKeyText is a key in authorized_keys form.
func hostKeyText(key ssh.PublicKey) string {
	return string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(key)))
}
