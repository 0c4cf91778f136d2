package remote

import (
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"golang.org/x/crypto/ssh"
)

// KeyPair is an ed25519 key pair, for a client or a host. Printing it shows only the public half.
type KeyPair struct {
	PrivatePEM    []byte        // OpenSSH format, ends in a newline: cloud-init and sshd want that
	Public        ssh.PublicKey // what to pin or to authorize
	AuthorizedKey string        // "ssh-ed25519 AAAA…", one line without a newline
}

// GenerateKey makes a key pair from 32 bytes of rand. The same bytes give the same key.
func GenerateKey(rand io.Reader) (KeyPair, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(rand, seed); err != nil {
		return KeyPair{}, fmt.Errorf("read random bytes for a key: %w", err)
	}
	private := ed25519.NewKeyFromSeed(seed)
	clear(seed)
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return KeyPair{}, fmt.Errorf("encode private key: %w", err)
	}
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		return KeyPair{}, fmt.Errorf("encode public key: %w", err)
	}
	text := pem.EncodeToMemory(block)
	if len(text) == 0 || text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	return KeyPair{
		PrivatePEM:    text,
		Public:        public,
		AuthorizedKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public))),
	}, nil
}

// Signer is the private half as [Target.Signer] wants it.
func (k KeyPair) Signer() (ssh.Signer, error) {
	signer, err := ssh.ParsePrivateKey(k.PrivatePEM)
	if err != nil {
		return nil, fmt.Errorf("parse private key: %w", err)
	}
	return signer, nil
}

func (k KeyPair) String() string { return k.AuthorizedKey }

// GoString is String.
func (k KeyPair) GoString() string { return k.String() }

// LogValue is String, for slog.
func (k KeyPair) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalJSON is the public half as a string: the private one must not leave by accident.
func (k KeyPair) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%q", k.String()), nil }
