package lambda

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Option changes a client as it is made.
type Option func(*Client) error

// WithBaseURL sets where the API is, with its path, for example "http://127.0.0.1:8080/api/v1". Plain HTTP is for loopback
// addresses only, unless [WithPlainHTTP] is given.
func WithBaseURL(s string) Option {
	return func(c *Client) error {
		u, err := url.Parse(strings.TrimSpace(s))
		if err != nil {
			return errors.New("base URL cannot be parsed")
		}
		switch {
		case u.User != nil:
			return errors.New("base URL must not hold a user or password")
		case u.Scheme != "https" && u.Scheme != "http":
			return errors.New("base URL must begin with https:// or http://")
		case u.Host == "":
			return errors.New("base URL has no host")
		case u.RawQuery != "" || u.Fragment != "":
			return errors.New("base URL must not have a query or fragment")
		}
		u.Path = strings.TrimRight(u.Path, "/")
		u.RawPath = ""
		c.base = u
		return nil
	}
}

// WithPlainHTTP allows a base URL with plain HTTP to any host. The key then crosses the network in the clear: it is for
// simulators on a private network.
func WithPlainHTTP() Option {
	return func(c *Client) error { c.plainHTTP = true; return nil }
}

// WithHTTPClient sets the HTTP client. Its transport, jar and timeout are used; its redirect policy is not, since
// redirects are never followed.
func WithHTTPClient(h *http.Client) Option {
	return func(c *Client) error {
		if h == nil {
			return errors.New("HTTP client is nil")
		}
		c.http = h
		return nil
	}
}

// WithUserAgent sets the User-Agent header, which must not be empty.
func WithUserAgent(s string) Option {
	return func(c *Client) error {
		if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
			return errors.New("user agent is empty or has characters that a header cannot carry")
		}
		c.userAgent = s
		return nil
	}
}

// WithLimiter sets what each request waits for; see [Limiter]. [NoLimit] sends at once.
func WithLimiter(l Limiter) Option {
	return func(c *Client) error {
		if l == nil {
			return errors.New("limiter is nil")
		}
		c.limiter = l
		return nil
	}
}

// WithLogger sets where requests are logged: one line a request at debug level, with no secrets.
func WithLogger(l *slog.Logger) Option {
	return func(c *Client) error {
		if l == nil {
			return errors.New("logger is nil")
		}
		c.log = l
		return nil
	}
}

// WithNow sets the local clock, used for [Client.ClockSkew], Retry-After dates and the age of the cache.
func WithNow(now func() time.Time) Option {
	return func(c *Client) error {
		if now == nil {
			return errors.New("clock is nil")
		}
		c.now = now
		return nil
	}
}

// WithRetry sets how calls that are safe to repeat are repeated; see [RetryPolicy] and [NoRetry].
func WithRetry(p RetryPolicy) Option {
	return func(c *Client) error {
		if err := p.check(); err != nil {
			return err
		}
		c.retry = p
		return nil
	}
}

// WithTimeout bounds each attempt, from the connection to the end of the answer. Without it a launch has 90 s and all
// else 30 s.
func WithTimeout(d time.Duration) Option {
	return func(c *Client) error {
		if d <= 0 {
			return fmt.Errorf("timeout %s is not positive", d)
		}
		c.timeout = d
		return nil
	}
}

// WithTypesCache sets how long [Client.InstanceTypes] may return the same answer; 0 turns the cache off. Without it: 5 s.
func WithTypesCache(d time.Duration) Option {
	return func(c *Client) error {
		if d < 0 {
			return fmt.Errorf("types cache of %s is negative", d)
		}
		c.typesTTL = d
		return nil
	}
}

func checkTransport(u *url.URL, plainHTTP bool) error {
	if u.Scheme == "https" || plainHTTP {
		return nil
	}
	host := u.Hostname()
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("base URL %s would send the key in the clear: use https", u.Redacted())
}
