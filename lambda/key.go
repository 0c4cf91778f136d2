package lambda

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"strings"
)

// Key is an API key. It prints as "[redacted]"; see [Secret].
type Key struct{ Secret }

const maxKeyLen = 512

// ErrNoKey says that there is no API key.
var ErrNoKey = errors.New("no API key")

// ParseKey reads an API key as it stands in a file or variable: space around it is dropped. It fails with [ErrNoKey]
// when nothing is left, and when the rest is not 1 to 512 printable ASCII characters without spaces. Errors do not
// repeat the text.
func ParseKey(s string) (Key, error) {
	k := Key{NewSecret(strings.TrimSpace(s))}
	return k, k.check()
}

func (k Key) check() error {
	s := k.Reveal()
	if s == "" {
		return ErrNoKey
	}
	if len(s) > maxKeyLen {
		return errors.New("API key is longer than 512 bytes")
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return errors.New("API key has a space, a control character or a character outside ASCII in it")
		}
	}
	return nil
}

// Account is a short fingerprint of the key: 16 characters of lower-case base32, the same for the same key everywhere.
// The key cannot be found from it. Lambda's keys belong to one workspace, so what was made under one fingerprint
// cannot be judged absent under another.
func (k Key) Account() string { return k.mac("lambda account v1", "") }

// Sign returns a message authentication code of msg under the key: 16 characters (80 bits) of lower-case base32. Whoever
// has the key can check it with [Key.Verify]; nobody else can make it.
func (k Key) Sign(msg string) string { return k.mac("lambda sign v1", msg) }

// Verify says whether mac is what [Key.Sign] returns for msg, in constant time.
func (k Key) Verify(msg, mac string) bool {
	return !k.IsZero() && hmac.Equal([]byte(k.Sign(msg)), []byte(mac))
}

// mac derives a key for each purpose first, so that no use of the API key can be replayed as another.
func (k Key) mac(purpose, msg string) string {
	d := hmac.New(sha256.New, []byte(k.Reveal()))
	d.Write([]byte(purpose))
	m := hmac.New(sha256.New, d.Sum(nil))
	m.Write([]byte(msg))
	return strings.ToLower(base32.StdEncoding.EncodeToString(m.Sum(nil)))[:16]
}
