package ledger

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// OnServer reports whether the address of a ledger leads to a PostgreSQL server, and is no path.
func OnServer(address string) bool {
	return strings.HasPrefix(address, "postgres://") || strings.HasPrefix(address, "postgresql://")
}

// HasPassword reports whether the address of a ledger holds a password, or cannot be read, so that it may hold one.
func HasPassword(address string) bool {
	if !OnServer(address) {
		return false
	}
	a, err := split(address)
	return err != nil || a.password
}

// Redact is the address of a ledger as it may be shown: without a password. Addresses of different ledgers are shown differently.
func Redact(address string) string {
	if !OnServer(address) {
		return address
	}
	a, err := split(address)
	if err != nil {
		return "postgres://(an address that cannot be read)"
	}
	shown := "postgres://"
	if a.user != "" {
		shown += a.user + "@"
	}
	shown += a.hosts + a.path
	telling := url.Values{}
	for _, name := range []string{"host", "port", "dbname", "search_path"} {
		if v := a.options.Get(name); v != "" {
			telling.Set(name, v)
		}
	}
	if len(telling) > 0 {
		shown += "?" + telling.Encode()
	}
	return shown
}

// parts are those of an address on a server, as they are written.
type parts struct {
	user, hosts, path, query string
	options                  url.Values
	password                 bool // there is one
}

// split takes an address apart. It refuses one whose password could be taken for something else, which would then be shown: a
// password with @, /, ? or # in it, as it is.
func split(address string) (parts, error) {
	_, rest, _ := strings.Cut(address, "://")
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	if strings.Contains(tail, "@") || strings.Count(authority, "@") > 1 || strings.Contains(tail, "#") {
		return parts{}, fmt.Errorf("%w: @, /, ? and # in a password have to be written as %%40, %%2F, %%3F and %%23, and @ elsewhere as %%40", ErrAddress)
	}
	var a parts
	if login, hosts, found := strings.Cut(authority, "@"); found {
		a.user, _, a.password = strings.Cut(login, ":")
		a.hosts = hosts
	} else {
		a.hosts = authority
	}
	a.path, a.query, _ = strings.Cut(tail, "?")
	var err error
	if a.options, err = url.ParseQuery(a.query); err != nil {
		return parts{}, fmt.Errorf("%w: its options, after the ?, are not well formed", ErrAddress)
	}
	for name := range a.options {
		if strings.Contains(strings.ToLower(name), "password") {
			return parts{}, fmt.Errorf("%w: a password belongs before the @, in PGPASSWORD or in the password file", ErrAddress)
		}
	}
	return a, nil
}

// parse reads an address on a server, with what the variables of PostgreSQL's own programs add to it.
func parse(address string) (*pgx.ConnConfig, error) {
	a, err := split(address)
	if err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(address)
	if err == nil {
		return config, nil
	}
	// The driver's error repeats the address. One without the password fails in the same way, unless it is the password that is wrong.
	if _, err = pgx.ParseConfig("postgres://" + strings.TrimPrefix(a.user+"@", "@") + a.hosts + a.path + "?" + a.query); err == nil {
		return nil, fmt.Errorf("%w: its password is not well formed; special characters have to be written as %%40 and the like", ErrAddress)
	}
	var bad *pgconn.ParseConfigError
	if why := errors.Unwrap(err); errors.As(err, &bad) && why != nil {
		err = why // it is enough, and more would only repeat the address
	}
	return nil, fmt.Errorf("%w: %w", ErrAddress, err)
}
