// Package issuer lets in who has an access token of an external issuer: a JWT that it
// has signed for this server. The issuer's keys are fetched and kept by
// github.com/coreos/go-oidc.
package issuer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/time/rate"
)

// Config says whose tokens are taken, and for what.
type Config struct {
	Issuer   string // its URL; what it serves below .well-known/openid-configuration names its keys
	Resource string // this server's URL as clients know it; a token's audience
	Scope    string // that a token must have; "" for none
	Now      func() time.Time
}

// Prefix begins the names of principals whom an issuer knows: none of them has the
// name of a principal with a token of our own.
const Prefix = "oauth."

const (
	fetchTime = 10 * time.Second
	mostKnown = 10_000
)

// ErrScope: the token is good, but was not given for this.
var ErrScope = errors.New("the token lacks the scope")

// Issuer checks tokens. Its methods may be called from any number of goroutines.
type Issuer struct {
	config   Config
	verifier *oidc.IDTokenVerifier

	mu    sync.Mutex
	until map[string]time.Time // when the principal's newest token expires
}

// New finds out where the issuer has its keys.
func New(ctx context.Context, c Config) (*Issuer, error) {
	for name, value := range map[string]string{"issuer": c.Issuer, "resource": c.Resource} {
		if err := checkURL(value); err != nil {
			return nil, fmt.Errorf("the %s: %w", name, err)
		}
	}
	// Tokens with a key that it does not know make it fetch the keys anew: anybody can
	// send such a token, and nobody shall make us press the issuer by it.
	client := &http.Client{Timeout: fetchTime, Transport: calm{rate.NewLimiter(rate.Every(10*time.Second), 5)}}
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, client), c.Issuer)
	if err != nil {
		return nil, fmt.Errorf("ask the issuer %s: %w", c.Issuer, err)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Issuer{config: c, until: map[string]time.Time{}, verifier: provider.Verifier(&oidc.Config{
		ClientID: c.Resource, Now: c.Now,
		// It may sign access tokens by another algorithm than identity tokens. Never by a
		// shared secret, never by none.
		SupportedSigningAlgs: []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA},
	})}, nil
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "":
		return fmt.Errorf("%q is no URL", text)
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && (u.Hostname() == "localhost" || u.Hostname() == "127.0.0.1"):
		return nil
	}
	return fmt.Errorf("%q has to be https: who changes what it serves would be let in", text)
}

type calm struct{ turns *rate.Limiter }

func (c calm) RoundTrip(r *http.Request) (*http.Response, error) {
	if !c.turns.Allow() {
		return nil, errors.New("the issuer was asked too often just now")
	}
	return http.DefaultTransport.RoundTrip(r)
}

// Authenticate is the principal of a token, ok is false for one that is not good, and
// ErrScope is returned for one without the scope. why says for the log what is wrong.
func (i *Issuer) Authenticate(ctx context.Context, token string) (principal string, ok bool, why error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	t, err := i.verifier.Verify(ctx, token)
	if err != nil {
		return "", false, err
	}
	if t.Subject == "" {
		return "", false, errors.New("the token names nobody")
	}
	var claims struct {
		Scope string `json:"scope"`
		SCP   any    `json:"scp"`
	}
	if err := t.Claims(&claims); err != nil {
		return "", false, err
	}
	if i.config.Scope != "" && !slices.Contains(scopes(claims.Scope, claims.SCP), i.config.Scope) {
		return "", false, ErrScope
	}
	principal = Principal(t.Subject)
	i.remember(principal, t.Expiry)
	return principal, true, nil
}

// scopes are those of a token: by RFC 8693 a string, elsewhere also a list.
func scopes(scope string, scp any) []string {
	all := strings.Fields(scope)
	switch scp := scp.(type) {
	case string:
		all = append(all, strings.Fields(scp)...)
	case []any:
		for _, s := range scp {
			if text, ok := s.(string); ok {
				all = append(all, text)
			}
		}
	}
	return all
}

var plain = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,49}$`)

// Principal is the name of who a token's subject is: the subject itself where that can
// be a name, else a hash of it.
func Principal(subject string) string {
	if plain.MatchString(subject) && !strings.HasPrefix(subject, "sha256.") {
		return Prefix + subject
	}
	sum := sha256.Sum256([]byte(subject))
	return Prefix + "sha256." + hex.EncodeToString(sum[:16])
}

func (i *Issuer) remember(principal string, until time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.until) >= mostKnown {
		now := i.config.Now()
		for name, t := range i.until {
			if t.Before(now) {
				delete(i.until, name)
			}
		}
	}
	if _, is := i.until[principal]; !is && len(i.until) >= mostKnown {
		return // it gets no streams
	}
	if until.After(i.until[principal]) {
		i.until[principal] = until
	}
}

// Has reports whether the newest token of a principal that was seen is still good.
func (i *Issuer) Has(principal string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.config.Now().Before(i.until[principal])
}

// Metadata is what a client reads to find the issuer (RFC 9728).
func (i *Issuer) Metadata() map[string]any {
	m := map[string]any{
		"resource": i.config.Resource, "resource_name": "gpulease",
		"authorization_servers": []string{i.config.Issuer}, "bearer_methods_supported": []string{"header"},
	}
	if i.config.Scope != "" {
		m["scopes_supported"] = []string{i.config.Scope}
	}
	return m
}

// MetadataURL is where clients find it: before the path of the resource.
func (i *Issuer) MetadataURL() string {
	u, err := url.Parse(i.config.Resource)
	if err != nil {
		return "" // New has parsed it
	}
	return u.Scheme + "://" + u.Host + "/.well-known/oauth-protected-resource" + strings.TrimSuffix(u.Path, "/")
}
