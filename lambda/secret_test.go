package lambda_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
)

// shown is every way in which code prints a value.
func shown(t testing.TB, v any) string {
	t.Helper()
	var b bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10.3s", "%t"} {
		fmt.Fprintf(&b, verb+"\n", v)
	}
	fmt.Fprintln(&b, v)
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "v", v, slog.Group("g", "v", v))
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "v", v, slog.Group("g", "v", v))
	if j, err := json.Marshal(v); err == nil {
		b.Write(j)
	}
	if err, ok := v.(error); ok {
		for ; err != nil; err = errors.Unwrap(err) {
			b.WriteString(err.Error())
		}
	}
	return b.String()
}

func TestSecretsDoNotShow(t *testing.T) {
	const text = "correct-horse-battery"
	secret := lambda.NewSecret(text)
	key, err := lambda.ParseKey(testKey)
	require.NoError(t, err)
	type hidden struct {
		secret lambda.Secret // unexported: fmt calls no methods here
		key    lambda.Key
		req    lambda.LaunchRequest
		p      *lambda.Secret
	}
	launch := goodLaunch()
	launch.UserData = secret
	client := newClient(t, always(200, "{}"))
	for name, v := range map[string]any{
		"secret": secret, "pointer": &secret, "slice": []lambda.Secret{secret}, "map": map[string]lambda.Secret{"a": secret},
		"launch": launch, "launch pointer": &launch,
		"instance":  lambda.Instance{JupyterToken: secret, JupyterURL: secret},
		"instances": []lambda.Instance{{JupyterToken: secret, JupyterURL: secret}},
		"pair":      lambda.GeneratedSSHKey{PrivateKey: secret},
		"hidden":    hidden{secret, key, launch, &secret}, "hidden pointer": &hidden{secret, key, launch, &secret},
		"key": key, "client": client, "key pointer": &key,
	} {
		out := shown(t, v)
		require.NotContains(t, out, text, name)
		require.NotContains(t, out, testKey, name)
		require.NotContains(t, out, fmt.Sprintf("%x", text), name)
	}
	require.Equal(t, "[redacted]", secret.String())
	require.Equal(t, text, secret.Reveal())
	require.Empty(t, lambda.Secret{}.String())
	require.True(t, secret.Equal(lambda.NewSecret(text)))
	require.False(t, secret.Equal(lambda.Secret{}))

	var back lambda.Secret
	require.NoError(t, json.Unmarshal([]byte(`"x"`), &back))
	require.Equal(t, "x", back.Reveal())
	require.NoError(t, json.Unmarshal([]byte(`null`), &back))
	require.True(t, back.IsZero())
	err = json.Unmarshal([]byte(`{"token":"correct-horse"}`), &back)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "correct")
}

// leaky is a transport's error that repeats the request.
type leaky struct{ text string }

func (l *leaky) Error() string { return l.text }

// A placeholder in the place of the key is covered wherever it stands, and still known as a bad key.
func TestAKeyThatIsAWordOfItsErrorIsABadKey(t *testing.T) {
	key, err := lambda.ParseKey("key")
	require.NoError(t, err)
	f := always(401, envelope("global/invalid-api-key", "API key was invalid, expired, or deleted.", ""))
	c, err := lambda.New(key, lambda.WithHTTPClient(&http.Client{Transport: f}), lambda.WithLimiter(lambda.NoLimit), lambda.WithRetry(lambda.NoRetry))
	require.NoError(t, err)
	_, err = c.Instances(t.Context())
	require.True(t, lambda.IsBadKey(err), "%v", err)
	require.ErrorContains(t, err, "API [redacted] was invalid")
}

func TestErrorsAndLogsDoNotRepeatSecrets(t *testing.T) {
	launch := goodLaunch()
	data := launch.UserData.Reveal()
	line := "ssh_keys: very-secret-host-key"
	require.Contains(t, data, line)
	for name, f := range map[string]*fake{
		"in a refusal":  always(400, envelope("global/"+testKey, "bad key "+testKey+" in "+data, "not "+line+" or "+testKey), "X-Request-Id", testKey),
		"in a page":     always(403, "<html>"+testKey+data, "Content-Type", "text/"+testKey),
		"in an answer":  always(200, `{"data":{"instance_ids":["`+testKey+`","`+line+`"]}}`),
		"in a redirect": always(302, "", "Location", "https://"+strings.ToLower(testKey)+".example/"),
		"in a failure":  script(breaks(&leaky{"write Authorization: Bearer " + testKey + "; " + line})),
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			c := newClient(t, f, lambda.WithLogger(slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
			_, err := c.Launch(background(t), launch)
			require.Error(t, err)
			require.Contains(t, log.String(), `"op":"launch"`)
			for _, s := range []string{testKey, line, "very-secret"} {
				require.NotContains(t, shown(t, err), s)
				require.NotContains(t, log.String(), s)
			}
			require.Contains(t, f.requests()[0].body, "very-secret", "it is sent")
			if name == "in a failure" {
				var l *leaky
				require.ErrorAs(t, err, &l, "the cause can be asked for")
			}
		})
	}
}

func TestParseKey(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "no API key",
		" \n":                      "no API key",
		"a b":                      "space",
		"abc\ndef":                 "control",
		"abc\rX-Evil: 1":           "control",
		"abc\x00":                  "control",
		"schlüssel":                "ASCII",
		strings.Repeat("k", 513):   "512",
		"\tsecret_x_01.ab\r\n":     "",
		strings.Repeat("k", 512):   "",
		"secret_x_0123.ABCDabcd==": "",
	} {
		k, err := lambda.ParseKey(in)
		if want == "" {
			require.NoError(t, err, "%q", in)
			require.Equal(t, strings.TrimSpace(in), k.Reveal())
			continue
		}
		require.ErrorContains(t, err, want, "%q", in)
		if in = strings.TrimSpace(in); in != "" {
			require.NotContains(t, err.Error(), in)
		}
	}
	_, err := lambda.New(lambda.Key{})
	require.ErrorIs(t, err, lambda.ErrNoKey)
	_, err = lambda.New(lambda.Key{Secret: lambda.NewSecret("a\nb")})
	require.ErrorContains(t, err, "control")
}

func TestSignAndAccount(t *testing.T) {
	key := func(s string) lambda.Key {
		k, err := lambda.ParseKey(s)
		require.NoError(t, err)
		return k
	}
	a, b := key("secret_a"), key("secret_b")
	// Fixed values: machines that were signed by an older version must still be known as ours.
	require.Equal(t, "gddwnkg6cy5rpshr", a.Account())
	require.Equal(t, "clpwqvntjk56ytb6", a.Sign("gl-host-1"))
	require.Regexp(t, `^[a-z2-7]{16}$`, b.Sign(""))
	require.NotEqual(t, a.Account(), b.Account())
	require.NotEqual(t, a.Account(), a.Sign(""), "one cannot stand for the other")
	require.True(t, a.Verify("gl-host-1", a.Sign("gl-host-1")))
	require.False(t, a.Verify("gl-host-2", a.Sign("gl-host-1")))
	require.False(t, b.Verify("gl-host-1", a.Sign("gl-host-1")))
	require.False(t, a.Verify("gl-host-1", ""))
	require.False(t, lambda.Key{}.Verify("x", lambda.Key{}.Sign("x")), "no key proves nothing")

	c := newClient(t, always(200, ""))
	require.Equal(t, key(testKey).Account(), c.Account())
	require.Equal(t, key(testKey).Sign("x"), c.Sign("x"))
	require.True(t, c.Verify("x", c.Sign("x")))
}

func TestOptionsAreChecked(t *testing.T) {
	key, err := lambda.ParseKey(testKey)
	require.NoError(t, err)
	for name, test := range map[string]struct {
		opt  lambda.Option
		want string
	}{
		"ftp":               {lambda.WithBaseURL("ftp://x/"), "https://"},
		"no host":           {lambda.WithBaseURL("https:///api"), "no host"},
		"no scheme":         {lambda.WithBaseURL("cloud.lambda.ai/api/v1"), "https://"},
		"password":          {lambda.WithBaseURL("https://u:hunter2@x/api"), "user or password"},
		"query":             {lambda.WithBaseURL("https://x/api?a=b"), "query"},
		"garbage":           {lambda.WithBaseURL("https://hunter2\x7f"), "parsed"},
		"plain HTTP":        {lambda.WithBaseURL("http://cloud.lambda.ai/api/v1"), "in the clear"},
		"empty agent":       {lambda.WithUserAgent(""), "user agent"},
		"agent with a line": {lambda.WithUserAgent("a\r\nX: y"), "user agent"},
		"timeout":           {lambda.WithTimeout(0), "positive"},
		"retry":             {lambda.WithRetry(lambda.RetryPolicy{Initial: 1, Max: 0, Multiplier: 2, Elapsed: 1}), "sensible"},
		"cache":             {lambda.WithTypesCache(-1), "negative"},
		"nil client":        {lambda.WithHTTPClient(nil), "nil"},
		"nil limiter":       {lambda.WithLimiter(nil), "nil"},
		"nil logger":        {lambda.WithLogger(nil), "nil"},
		"nil clock":         {lambda.WithNow(nil), "nil"},
	} {
		_, err := lambda.New(key, test.opt)
		require.ErrorContains(t, err, test.want, name)
		require.NotContains(t, err.Error(), "hunter2", name)
	}
	for _, url := range []string{"http://127.0.0.1:80/api/v1", "http://[::1]:80/api/v1/", "http://localhost/api/v1", "https://x.example"} {
		_, err := lambda.New(key, lambda.WithBaseURL(url))
		require.NoError(t, err, url)
	}
	f := always(200, `{"data":[]}`)
	c, err := lambda.New(key, lambda.WithBaseURL("http://sim:8080/api/v1/"), lambda.WithPlainHTTP(), lambda.WithUserAgent("me/1"),
		lambda.WithHTTPClient(&http.Client{Transport: f}), lambda.WithLimiter(lambda.NoLimit))
	require.NoError(t, err)
	_, err = c.Regions(background(t))
	require.NoError(t, err)
	require.Equal(t, "/api/v1/regions", f.requests()[0].path)
	require.Equal(t, "me/1", f.requests()[0].header.Get("User-Agent"))
}
