package remote

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"
)

//go:embed hostkey.sh
var hostKeyText string

var hostKeyScript = newScript("hostkey", hostKeyText)

// switchTime is how long a machine may take to show its new key.
const switchTime = 10 * time.Second

// RotateHostKey replaces the machine's ed25519 host key by one that was made there and never leaves it. The first one
// came by user_data, where every process on the machine can read it. It goes over a verified connection:
//
//  1. The machine makes the new key beside the old one.
//  2. record gets its public half, to store it durably as [Target.NextHostKey], beside the old one.
//  3. The machine takes the new key, and a new connection shows that it has.
//
// Whatever dies in between, a target with both keys reaches the machine, and calling again, with either target, goes
// on. After success the caller stores the result as the only key. An error of record leaves the old key in force.
// A machine that allows no root, or has no such key, is [ErrUnsupported]; then nothing was changed. cloud-init must
// have finished, or it may put its own key back. Commands that run meanwhile are not disturbed.
func (p *Pool) RotateHostKey(ctx context.Context, t Target, record func(ssh.PublicKey) error) (ssh.PublicKey, error) {
	next, err := p.stageHostKey(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("rotate host key: %w", err)
	}
	if err := record(next); err != nil {
		return nil, fmt.Errorf("rotate host key: record the new one: %w", err)
	}
	both := t
	both.NextHostKey = next
	err = p.with(ctx, both, func(n *conn) error {
		_, err := n.call(ctx, request{script: hostKeyScript, args: []string{"switch", publicText(next)}})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("rotate host key: %w", err)
	}
	if err := p.shows(ctx, t, next); err != nil {
		return nil, fmt.Errorf("rotate host key: %w", err)
	}
	return next, nil
}

// stageHostKey returns the key to switch to: one that waits on the machine, or the one that the machine has already
// from a rotation that was not finished here.
func (p *Pool) stageHostKey(ctx context.Context, t Target) (ssh.PublicKey, error) {
	var next ssh.PublicKey
	err := p.with(ctx, t, func(n *conn) error {
		r, err := n.call(ctx, request{script: hostKeyScript, args: []string{"stage"}})
		if err != nil {
			return err
		}
		if t.NextHostKey != nil && r.get("now") == publicText(t.NextHostKey) {
			next = t.NextHostKey
			return nil
		}
		next, _, _, _, err = ssh.ParseAuthorizedKey([]byte(r.get("new")))
		if err != nil || next.Type() != ssh.KeyAlgoED25519 {
			return fmt.Errorf("%w: host key %q", ErrMachine, r.get("new"))
		}
		return nil
	})
	return next, err
}

func publicText(key ssh.PublicKey) string {
	return string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(key)))
}

// shows waits until a new connection is shown the key.
func (p *Pool) shows(ctx context.Context, t Target, key ssh.PublicKey) error {
	ctx, cancel := context.WithTimeout(ctx, switchTime)
	defer cancel()
	t.HostKey, t.NextHostKey = key, nil
	for {
		client, err := dial(ctx, t, p.config.DialTimeout)
		if err == nil {
			return client.Close()
		}
		if !errors.Is(err, ErrHostKey) && !errors.Is(err, ErrUnreachable) {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the machine does not show its new key: %w", err)
		}
	}
}
