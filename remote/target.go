package remote

import (
	"bytes"
	"fmt"
	"log/slog"

	"golang.org/x/crypto/ssh"
)

// Target is a machine and what is needed to reach it. It holds no secret that printing could show.
type Target struct {
	Key     string        // stable identity of the machine, such as the lease ID: one kept connection for each
	Addr    string        // host:port
	User    string        // login name
	Signer  ssh.Signer    // our key
	HostKey ssh.PublicKey // the pinned host key
	// NextHostKey is right too, if it is set: a rotation of the key has begun, and it is not known to have ended.
	NextHostKey ssh.PublicKey
}

func (t Target) String() string { return fmt.Sprintf("%s@%s (%s)", t.User, t.Addr, t.Key) }

// GoString is String: %#v must not walk into the signer.
func (t Target) GoString() string { return t.String() }

// LogValue is String, for slog.
func (t Target) LogValue() slog.Value { return slog.StringValue(t.String()) }

func (t Target) validate() error {
	switch {
	case t.Key == "":
		return invalid("target without key")
	case t.Addr == "" || t.User == "":
		return invalid("target %s: address and user are required", t.Key)
	case t.Signer == nil:
		return invalid("target %s: no signer", t.Key)
	case t.HostKey == nil:
		return invalid("target %s: no pinned host key", t.Key)
	}
	return nil
}

// same reports whether a connection made for t serves o too.
func (t Target) same(o Target) bool {
	return t.Addr == o.Addr && t.User == o.User &&
		sameKey(t.HostKey, o.HostKey) && sameKey(t.NextHostKey, o.NextHostKey) &&
		bytes.Equal(t.Signer.PublicKey().Marshal(), o.Signer.PublicKey().Marshal())
}

func sameKey(a, b ssh.PublicKey) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return bytes.Equal(a.Marshal(), b.Marshal())
}
