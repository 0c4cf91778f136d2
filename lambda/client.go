package lambda

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"
)

// DefaultBaseURL is where the API is.
const DefaultBaseURL = "https://cloud.lambda.ai/api/v1"

// DefaultUserAgent is sent when no other is given. The proxy in front of the API turns some libraries' defaults away.
const DefaultUserAgent = "gpulease-lambda/1.0 (+https://github.com/gpulease/gpulease)"

// Client calls the API. It is safe for use by several goroutines. Make one with [New] and share it.
type Client struct {
	key       Key
	base      *url.URL
	http      *http.Client
	ownHTTP   bool // the transport is ours, so its idle connections may be closed
	userAgent string
	limiter   Limiter
	log       *slog.Logger
	now       func() time.Time
	retry     RetryPolicy
	timeout   time.Duration
	typesTTL  time.Duration

	plainHTTP bool

	flights flights
	types   cache
	skew    skew
}

// New makes a client for the account of key. It sends nothing. It fails when the key is missing or malformed and when an
// option is wrong.
func New(key Key, opts ...Option) (*Client, error) {
	c := &Client{
		key:       key,
		userAgent: DefaultUserAgent,
		log:       slog.New(slog.DiscardHandler),
		now:       time.Now,
		retry:     DefaultRetry,
		typesTTL:  5 * time.Second,
	}
	if err := key.check(); err != nil {
		return nil, fmt.Errorf("new lambda client: %w", err)
	}
	for _, opt := range append([]Option{WithBaseURL(DefaultBaseURL)}, opts...) {
		if err := opt(c); err != nil {
			return nil, fmt.Errorf("new lambda client: %w", err)
		}
	}
	if err := checkTransport(c.base, c.plainHTTP); err != nil {
		return nil, fmt.Errorf("new lambda client: %w", err)
	}
	if c.http == nil {
		c.http, c.ownHTTP = &http.Client{Transport: newTransport()}, true
	}
	hc := *c.http // a copy: the caller's client keeps its own redirect policy
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.http = &hc
	if c.limiter == nil {
		c.limiter = NewPacer(PacerConfig{Logger: c.log})
	}
	return c, nil
}

// Account is the fingerprint of the client's key; see [Key.Account].
func (c *Client) Account() string { return c.key.Account() }

// Sign signs msg with the client's key; see [Key.Sign].
func (c *Client) Sign(msg string) string { return c.key.Sign(msg) }

// Verify checks what [Client.Sign] made.
func (c *Client) Verify(msg, mac string) bool { return c.key.Verify(msg, mac) }

// ClockSkew is the service's clock minus the local one, from the Date header of the newest answer. It is good to
// half a second plus half of that request's length, and 0 where it is no more than that. answer counts the answers so far, so that one of them is never taken for two; it is
// 0 before the first.
func (c *Client) ClockSkew() (d time.Duration, answer uint64) { return c.skew.get() }

// String shows the base URL only.
func (c *Client) String() string { return "lambda client for " + c.base.String() }

func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxResponseHeaderBytes = 256 << 10
	t.IdleConnTimeout = 60 * time.Second
	t.MaxIdleConnsPerHost = 8
	return t
}
