package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// dial connects, checks the pinned key and authenticates, all within timeout. ssh.ClientConfig.Timeout covers only
// the TCP connect, so the deadline is set on the connection for the whole handshake.
func dial(ctx context.Context, t Target, timeout time.Duration) (*ssh.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	socket, err := (&net.Dialer{}).DialContext(ctx, "tcp", t.Addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w: %w", t.Addr, ErrUnreachable, err)
	}
	raw := newWire(socket)
	// A deadline in the past is how a blocked read learns that ctx is done.
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	pin := &pin{addr: t.Addr, want: t.HostKey, next: t.NextHostKey}
	conn, channels, requests, err := ssh.NewClientConn(raw, t.Addr, &ssh.ClientConfig{
		User:              t.User,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(t.Signer)},
		HostKeyCallback:   pin.check,
		HostKeyAlgorithms: hostKeyAlgorithms(t.HostKey), // the next is of the same kind
	})
	if err != nil {
		stop()
		_ = raw.Close()
		return nil, pin.explain(err)
	}
	client := ssh.NewClient(conn, channels, requests)
	if !stop() {
		_ = client.Close()
		return nil, fmt.Errorf("connect to %s: %w: %w", t.Addr, ErrUnreachable, context.Cause(ctx))
	}
	if err := raw.SetDeadline(time.Time{}); err != nil {
		_ = client.Close()
		return nil, fmt.Errorf("connect to %s: %w: %w", t.Addr, ErrUnreachable, err)
	}
	return client, nil
}

// pin checks one handshake's host key and remembers how that went, to explain a failure without reading its text.
type pin struct {
	addr     string
	want     ssh.PublicKey
	next     ssh.PublicKey // or this, if there is one
	mismatch *HostKeyError
	matched  bool
}

func (p *pin) check(_ string, _ net.Addr, got ssh.PublicKey) error {
	if !sameKey(got, p.want) && !sameKey(got, p.next) {
		p.mismatch = &HostKeyError{Addr: p.addr, Want: ssh.FingerprintSHA256(p.want), Got: ssh.FingerprintSHA256(got)}
		return p.mismatch
	}
	p.matched = true
	return nil
}

func (p *pin) explain(err error) error {
	if p.mismatch != nil {
		return p.mismatch
	}
	var negotiation *ssh.AlgorithmNegotiationError
	if errors.As(err, &negotiation) && negotiation.What == "host key" {
		return &HostKeyError{
			Addr: p.addr,
			Want: ssh.FingerprintSHA256(p.want),
			Got:  "no " + p.want.Type() + " key, but " + strings.Join(negotiation.RequestedAlgorithms, ", "),
		}
	}
	// x/crypto has no type for this one. It can come only after the host key was found right.
	if p.matched && strings.Contains(err.Error(), "unable to authenticate") {
		return fmt.Errorf("connect to %s: %w: %w", p.addr, ErrAuth, err)
	}
	return fmt.Errorf("connect to %s: %w: %w", p.addr, ErrUnreachable, err)
}

// hostKeyAlgorithms asks for the pinned kind of key only: left alone, x/crypto asks for ECDSA before ed25519, and
// the right host fails the check.
func hostKeyAlgorithms(key ssh.PublicKey) []string {
	if key.Type() == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{key.Type()}
}
