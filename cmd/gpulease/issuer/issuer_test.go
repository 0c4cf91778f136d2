package issuer_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/coreos/go-oidc/v3/oidc/oidctest"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/cmd/gpulease/issuer"
)

const resource = "https://gpu.example/mcp"

// login is an issuer in small.
type login struct {
	url  string
	key  *ecdsa.PrivateKey
	asks atomic.Int64
}

func newLogin(t *testing.T) *login {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	l := &login{key: key}
	s := &oidctest.Server{PublicKeys: []oidctest.PublicKey{{PublicKey: key.Public(), KeyID: "one", Algorithm: oidc.ES256}}, Algorithms: []string{oidc.RS256}}
	on := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.asks.Add(1)
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(on.Close)
	s.SetIssuer(on.URL)
	l.url = on.URL
	return l
}

func (l *login) claims() map[string]any {
	return map[string]any{"iss": l.url, "aud": []string{"other", resource}, "sub": "ci", "exp": time.Now().Add(time.Hour).Unix(), "scope": "read gpu"}
}

func sign(t *testing.T, key *ecdsa.PrivateKey, id string, claims map[string]any) string {
	t.Helper()
	raw, err := json.Marshal(claims)
	require.NoError(t, err)
	return oidctest.SignIDToken(key, id, oidc.ES256, string(raw))
}

func TestOnlyTokensForThisServerAreTaken(t *testing.T) {
	l := newLogin(t)
	i, err := issuer.New(t.Context(), issuer.Config{Issuer: l.url, Resource: resource, Scope: "gpu"})
	require.NoError(t, err)
	good := sign(t, l.key, "one", l.claims())
	who, ok, err := i.Authenticate(t.Context(), good)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "oauth.ci", who)
	require.True(t, i.Has("oauth.ci"))
	require.False(t, i.Has("oauth.other"))

	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	head, rest, _ := strings.Cut(good, ".")
	body, _, _ := strings.Cut(rest, ".")
	with := func(name string, value any) string {
		c := maps.Clone(l.claims())
		c[name] = value
		return sign(t, l.key, "one", c)
	}
	for name, token := range map[string]string{
		"another server's":    with("aud", "https://other.example/mcp"),
		"another issuer's":    with("iss", "https://other.example"),
		"an old one":          with("exp", time.Now().Add(-time.Minute).Unix()),
		"one without an end":  with("exp", nil),
		"one of the future":   with("nbf", time.Now().Add(time.Hour).Unix()),
		"nobody's":            with("sub", ""),
		"another key's":       sign(t, stranger, "one", l.claims()),
		"one without a mark":  head + "." + body + ".",
		"one signed by none":  "eyJhbGciOiJub25lIn0." + body + ".",
		"one that is no JWT":  "rubbish",
		"one without content": "",
	} {
		_, ok, err := i.Authenticate(t.Context(), token)
		require.False(t, ok, name)
		require.Error(t, err, name)
	}
	for _, c := range []struct {
		scope, scp any
		ok         bool
	}{{"gpu", nil, true}, {"", []string{"gpu"}, true}, {"", "read gpu", true}, {"gpus", nil, false}, {"", nil, false}} {
		claims := l.claims()
		claims["scope"], claims["scp"] = c.scope, c.scp
		_, ok, err := i.Authenticate(t.Context(), sign(t, l.key, "one", claims))
		require.Equal(t, c.ok, ok, "%+v", c)
		if !ok {
			require.ErrorIs(t, err, issuer.ErrScope)
		}
	}
	require.Equal(t, "https://gpu.example/.well-known/oauth-protected-resource/mcp", i.MetadataURL())
	require.Equal(t, []string{l.url}, i.Metadata()["authorization_servers"])
}

// A token with a key that is not known makes the keys be fetched. Who sends many of
// them must not make this server press the issuer.
func TestRubbishDoesNotPressTheIssuer(t *testing.T) {
	l := newLogin(t)
	i, err := issuer.New(t.Context(), issuer.Config{Issuer: l.url, Resource: resource})
	require.NoError(t, err)
	for range 100 {
		_, ok, _ := i.Authenticate(t.Context(), sign(t, l.key, "unknown", l.claims()))
		require.False(t, ok)
	}
	require.LessOrEqual(t, l.asks.Load(), int64(6))
}

func TestNamesOfSubjects(t *testing.T) {
	require.Equal(t, "oauth.ci-1", issuer.Principal("ci-1"))
	seen := map[string]bool{}
	for _, subject := range []string{"auth0|5f7c8ec7c33c6c004bbafe82", "CI", "ci ", "../up", strings.Repeat("x", 51), "sha256.abc", "Ä"} {
		name := issuer.Principal(subject)
		require.Regexp(t, `^oauth\.sha256\.[0-9a-f]{32}$`, name, "%q", subject)
		require.False(t, seen[name])
		seen[name] = true
	}
}

func TestIssuersThatCannotBeTrustedAreRefused(t *testing.T) {
	for _, c := range []issuer.Config{
		{Issuer: "http://login.example", Resource: resource}, {Issuer: "https://login.example", Resource: "gpu.example"}, {Issuer: "ftp://login.example", Resource: resource},
	} {
		_, err := issuer.New(t.Context(), c)
		require.Error(t, err)
	}
	l := newLogin(t)
	_, err := issuer.New(t.Context(), issuer.Config{Issuer: l.url + "/", Resource: resource})
	require.ErrorContains(t, err, "ask the issuer", "it calls itself otherwise")
}
