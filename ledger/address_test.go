package ledger_test

import (
	"bytes"
	"log/slog"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/ledger/postgrestest"
)

func TestRedact(t *testing.T) {
	const unreadable = "postgres://(an address that cannot be read)"
	for address, want := range map[string]string{
		"/home/me/ledger.db":                          "/home/me/ledger.db",
		"postgres://me:hunter2@db:5432/money":         "postgres://me@db:5432/money",
		"postgresql://me:hunter2@db/money":            "postgres://me@db/money",
		"postgres://me@db/money?sslmode=require":      "postgres://me@db/money",
		"postgres://db/money?search_path=a&sslcert=x": "postgres://db/money?search_path=a",
		"postgres://me:p%40ss@[::1]:1/m":              "postgres://me@[::1]:1/m",
		"postgres://me:a:b@one:1,two:2/m":             "postgres://me@one:1,two:2/m",
		"postgres:///money?host=/run/postgresql":      "postgres:///money?host=%2Frun%2Fpostgresql",
		"postgres://":                                 "postgres://",
		// Here it could be that a part of the password stands where no password is.
		"postgres://me:hunter2@ss@db/m":        unreadable,
		"postgres://me:hun/ter2@db/m":          unreadable,
		"postgres://me:1?ter2@db/m":            unreadable,
		"postgres://me:1#ter2@db/m":            unreadable,
		"postgres://me:hunter2@db/m#x":         unreadable,
		"postgres://me@db/m?password=hunter2":  unreadable,
		"postgres://me@db/m?pass%77ord=hunter": unreadable,
		"postgres://me@db/m?PassWord=hunter2":  unreadable,
		"postgres://me@db/m?x=%zz":             unreadable,
	} {
		require.Equal(t, want, ledger.Redact(address), address)
	}
}

func TestHasPassword(t *testing.T) {
	for address, want := range map[string]bool{
		"/home/me:x@y/ledger.db":            false,
		"postgres://me@db/money":            false,
		"postgres://db/money":               false,
		"postgres://me:x@db/money":          true,
		"postgresql://me:x@one:1,two:2/m":   true,
		"postgres://me@db/m?password=x":     true,
		"postgres://me:1?2@db/m":            true,
		"postgres://me@db/m?user=a:b&host=": false,
	} {
		require.Equal(t, want, ledger.HasPassword(address), address)
	}
}

// Whatever is wrong with an address, and whatever the server says to it: the password stays out of it.
func TestPasswordsAreInNoErrorAndNoLog(t *testing.T) {
	s := postgrestest.Shared(t)
	const secret = "hunter2"
	good := s.NewAddress(t)
	at := func(change func(u *url.URL, q url.Values)) string {
		u, err := url.Parse(good)
		require.NoError(t, err)
		q := u.Query()
		change(u, q)
		u.RawQuery = q.Encode()
		return u.String()
	}
	for name, address := range map[string]string{
		"wrong password":      s.AddressOf("gpulease", "not-"+secret),
		"unknown user":        s.AddressOf("nobody", secret),
		"unknown database":    at(func(u *url.URL, _ url.Values) { u.Path = "/elsewhere" }),
		"nobody listens":      at(func(u *url.URL, _ url.Values) { u.Host = "127.0.0.1:1" }),
		"unknown host":        at(func(u *url.URL, _ url.Values) { u.Host = "no-such-host.invalid" }),
		"a port that is none": "postgres://me:" + secret + "@127.0.0.1:x/m",
		"unknown option":      at(func(_ *url.URL, q url.Values) { q.Set("no_such_setting", "1") }),
		"bad sslmode":         at(func(_ *url.URL, q url.Values) { q.Set("sslmode", secret[:3]) }),
		"bad timeout":         at(func(_ *url.URL, q url.Values) { q.Set("connect_timeout", "soon") }),
		"missing certificate": at(func(_ *url.URL, q url.Values) { q.Set("sslmode", "verify-full"); q.Set("sslrootcert", "/nowhere") }),
		"unknown schema":      at(func(_ *url.URL, q url.Values) { q.Set("search_path", "nowhere") }),
		"unencoded slash":     "postgres://me:ab/" + secret + "@127.0.0.1/m",
		"unencoded at":        "postgres://me:ab@" + secret + "@127.0.0.1/m",
		"unencoded question":  "postgres://me:12?" + secret + "@127.0.0.1/m",
		"unencoded hash":      "postgres://me:12#" + secret + "@127.0.0.1/m",
		"unencoded percent":   "postgres://me:%zz" + secret + "@127.0.0.1/m",
		"unencoded bracket":   "postgres://me:[" + secret + "@127.0.0.1:x/m",
		"among the options":   "postgres://me@127.0.0.1/m?password=" + secret,
		"a control character": "postgres://me:\x7f" + secret + "@127.0.0.1:1/m",
		"a space":             "postgres://me:a b" + secret + "@127.0.0.1:1/m",
		"no host":             "postgres://me:" + secret + "@",
		"a bad host":          "postgres://me:" + secret + "@[::1/m",
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			o := ledger.Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})), BusyTimeout: time.Second}
			_, err := ledger.Open(t.Context(), address, o)
			require.Error(t, err)
			require.NotContains(t, err.Error(), secret)
			o.Later = true
			if db, err := ledger.Open(t.Context(), address, o); err == nil {
				_, err = db.Live(t.Context())
				require.ErrorIs(t, err, ledger.ErrAway)
				require.NotContains(t, err.Error(), secret)
				require.NoError(t, db.Close())
			}
			require.NotContains(t, log.String(), secret)
			t.Log(err)
		})
	}
	open(t, good) // the password of all that is sound
}
