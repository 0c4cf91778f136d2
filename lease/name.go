package lease

import (
	"context"
	"crypto/subtle"
	"encoding/base32"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

const (
	idLength   = 12
	idAlphabet = "abcdefghijklmnopqrstuvwxyz234567"
	namePrefix = "gl"
)

var nameEncoding = base32.NewEncoding(idAlphabet).WithPadding(base32.NoPadding)

// randomText reads n base32 characters (5 bits each) from r.
func randomText(r io.Reader, n int) (string, error) {
	raw := make([]byte, (n*5+7)/8)
	if _, err := io.ReadFull(r, raw); err != nil {
		return "", fmt.Errorf("read randomness: %w", err)
	}
	return nameEncoding.EncodeToString(raw)[:n], nil
}

// Signer makes the MAC of an instance name, keyed from the API key.
type Signer interface {
	Sign(ctx context.Context, text string) (string, error)
}

// Name is what an instance of ours is called in the account:
// gl-<ledger>-<lease>-<hard stop, base36 unix seconds>-<mac>. Whoever has the
// API key can tell from the name alone that the instance is ours and when it
// must be gone; nobody without the key can make such a name by accident or
// design. At most 64 characters, Lambda's limit.
type Name struct {
	Ledger   string
	Lease    ID
	HardStop time.Time // whole seconds
}

func (n Name) unsigned() string {
	return strings.Join([]string{namePrefix, n.Ledger, string(n.Lease), strconv.FormatInt(n.HardStop.Unix(), 36)}, "-")
}

// KeyName is the name of the lease's SSH key in the account.
func (n Name) KeyName() string {
	return strings.Join([]string{namePrefix, n.Ledger, string(n.Lease)}, "-")
}

// Signed is the whole name.
func (n Name) Signed(ctx context.Context, s Signer) (string, error) {
	mac, err := s.Sign(ctx, n.unsigned())
	if err != nil {
		return "", fmt.Errorf("sign the name of lease %s: %w", n.Lease, err)
	}
	return n.unsigned() + "-" + mac, nil
}

// ParseName reads a name and checks its signature. ok is false for every name
// that is not provably ours, whatever it looks like; err is only about the
// signer.
func ParseName(ctx context.Context, s Signer, name string) (n Name, ok bool, err error) {
	parts := strings.Split(name, "-")
	if len(parts) != 5 || parts[0] != namePrefix || !ValidID(parts[2]) {
		return Name{}, false, nil
	}
	stop, err := strconv.ParseInt(parts[3], 36, 64)
	if err != nil || stop <= 0 || strconv.FormatInt(stop, 36) != parts[3] {
		return Name{}, false, nil
	}
	n = Name{Ledger: parts[1], Lease: ID(parts[2]), HardStop: time.Unix(stop, 0).UTC()}
	want, err := n.Signed(ctx, s)
	if err != nil {
		return Name{}, false, err
	}
	if subtle.ConstantTimeCompare([]byte(want), []byte(name)) != 1 {
		return Name{}, false, nil
	}
	return n, true, nil
}
