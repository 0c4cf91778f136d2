package lambda

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

const (
	maxAnswer      = 32 << 20
	maxErrorAnswer = 64 << 10
)

// call is one operation, ready to be sent.
type call struct {
	op      Op
	method  string
	path    string // escaped, below the base URL
	query   url.Values
	body    any // sent as JSON; nil is none
	class   Class
	safe    bool     // sending it twice is harmless
	secrets []string // what the service might repeat in an error
	flight  *flight  // told when the request is on the wire; may be nil
}

// on is a copy that belongs to a shared read: a caller who leaves early still looks at its own.
func (k call) on(f *flight) call {
	k.flight = f
	return k
}

func (k call) reads() bool { return k.method == http.MethodGet }

// envelope is the outside of every JSON answer.
type envelope struct {
	Data      json.RawMessage `json:"data"`
	PageToken json.RawMessage `json:"page_token"`
}

// next is the token of the next page; "" when there is none.
func (e envelope) next() (string, error) {
	var token *string
	if len(e.PageToken) == 0 {
		return "", nil
	}
	if err := json.Unmarshal(e.PageToken, &token); err != nil {
		return "", errors.New("page_token is not a string")
	}
	if token == nil {
		return "", nil
	}
	return *token, nil
}

// do sends a call, repeats it where that is safe, and hands the answer to decode. An answer that decode cannot read counts
// as an attempt with unknown outcome.
func (c *Client) do(ctx context.Context, k call, decode func(envelope) error) error {
	var body []byte
	if k.body != nil {
		var err error
		if body, err = json.Marshal(k.body); err != nil {
			return c.fail(k, &Error{Message: "encode the request: " + err.Error(), Outcome: NothingHappened, Err: err})
		}
	}
	n := 0
	e := c.repeat(ctx, k.safe, func() *Error {
		n++
		start := c.now()
		e := c.attempt(ctx, k, body, decode)
		if e != nil {
			e = c.fail(k, e)
		}
		c.logAttempt(ctx, k, n, c.now().Sub(start), e)
		return e
	})
	if e == nil {
		return nil
	}
	return c.fail(k, e)
}

// fail completes an error: reads change nothing, and texts are cleaned.
func (c *Client) fail(k call, e *Error) *Error {
	e.Op = k.op
	if k.reads() {
		e.Outcome = NothingHappened
	}
	clean := c.cleaner(k)
	if e.Code != CodeInvalidAPIKey { // a wrong key may be a word of it, such as "key"
		e.Code = Code(clean(string(e.Code)))
	}
	e.Message, e.Suggestion, e.RequestID = clean(e.Message), clean(e.Suggestion), clean(e.RequestID)
	if e.Err != nil {
		if text := e.Err.Error(); clean(text) != text {
			e.Err = &cleanError{text: clean(text), err: e.Err}
		}
	}
	return e
}

func (c *Client) attempt(ctx context.Context, k call, body []byte, decode func(envelope) error) *Error {
	if err := c.limiter.Wait(ctx, k.class); err != nil {
		if ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", ErrLimiter, err)
		}
		return &Error{Message: "wait for a turn: " + err.Error(), Outcome: NothingHappened, Retry: RetryLater, Err: err}
	}
	if err := ctx.Err(); err != nil {
		return &Error{Message: err.Error(), Outcome: NothingHappened, Retry: RetryLater, Err: err}
	}
	tctx, cancel := context.WithTimeout(ctx, c.timeoutFor(k))
	defer cancel()
	var conn connTrace
	req, err := c.newRequest(httptrace.WithClientTrace(tctx, conn.trace()), k, body)
	if err != nil {
		return &Error{Message: "make the request: " + err.Error(), Outcome: NothingHappened, Err: err}
	}
	if c.ownHTTP && !k.safe {
		// A kept connection may have died unseen, and then a request that must not be repeated has an unknown end.
		c.http.CloseIdleConnections()
	}
	k.flight.depart()
	start := c.now()
	resp, err := c.http.Do(req)
	if err != nil {
		k.flight.comeBack()
		return sendError(err, &conn)
	}
	defer resp.Body.Close()
	c.skew.note(resp.Header, start, c.now())
	e := c.receive(resp, k, decode)
	if e != nil {
		k.flight.comeBack()
		if e.Status == http.StatusTooManyRequests || e.blocked == blockedRate {
			if t, ok := c.limiter.(Throttled); ok {
				t.Throttled(ctx, k.class, e.RetryAfter)
			}
		}
	}
	return e
}

func (c *Client) timeoutFor(k call) time.Duration {
	switch {
	case c.timeout > 0:
		return c.timeout
	case k.class == ClassLaunch:
		return 90 * time.Second
	}
	return 30 * time.Second
}

func (c *Client) newRequest(ctx context.Context, k call, body []byte) (*http.Request, error) {
	u := c.base.String() + k.path
	if len(k.query) > 0 {
		u += "?" + k.query.Encode()
	}
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, k.method, u, r)
	if err != nil {
		return nil, err
	}
	if !k.safe {
		req.GetBody = nil // or HTTP/2 may send the body again by itself
	}
	req.Header.Set("Authorization", "Bearer "+c.key.Reveal())
	req.Header.Set("User-Agent", c.userAgent)
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// connTrace sees whether the standard transport ever had a connection for a request.
type connTrace struct{ asked, got atomic.Bool }

func (t *connTrace) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn: func(string) { t.asked.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { t.got.Store(true) },
	}
}

// sendError is for a request without an answer. Without a connection nothing was sent; a transport that does not tell
// about connections proves nothing.
func sendError(err error, conn *connTrace) *Error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // its text repeats the URL
	}
	e := &Error{Message: "no answer: " + err.Error(), Retry: RetryLater, Err: err, again: true}
	if conn.asked.Load() && !conn.got.Load() {
		e.Message, e.Outcome = "no connection: "+err.Error(), NothingHappened
	}
	if errors.Is(err, context.Canceled) {
		e.again = false
	}
	return e
}

// receive reads one answer.
func (c *Client) receive(resp *http.Response, k call, decode func(envelope) error) *Error {
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		body, _, _ := readUpTo(resp.Body, maxErrorAnswer) // what is there is judged
		return c.refusal(resp, body)
	}
	body, more, err := readUpTo(resp.Body, maxAnswer)
	unread := func(message string, err error) *Error {
		return &Error{Status: resp.StatusCode, RequestID: requestID(resp.Header), Message: message, Retry: RetryLater, Err: err, again: true}
	}
	if err != nil {
		return unread("the answer broke off: "+err.Error(), err)
	}
	if more {
		return unread(fmt.Sprintf("the answer is longer than %d bytes", maxAnswer), nil)
	}
	var env envelope
	if err := json.Unmarshal(body, &env); err != nil {
		return unread("the answer is not the API's: "+describe(resp, body), err)
	}
	if err := decode(env); err != nil {
		return unread("the answer cannot be read: "+err.Error(), err)
	}
	return nil
}

// readUpTo reads at most n bytes and says whether there were more.
func readUpTo(r io.Reader, n int64) (body []byte, more bool, err error) {
	body, err = io.ReadAll(io.LimitReader(r, n+1))
	if int64(len(body)) > n {
		return body[:n], true, err
	}
	return body, false, err
}

// decodeInto reads the data of an answer. Data that is missing, null or of another kind is an error: an empty
// list is only what the service says is one.
func decodeInto(data json.RawMessage, kind byte, out any) error {
	data = bytes.TrimSpace(data)
	if len(data) == 0 {
		return errors.New("there is no data")
	}
	if data[0] != kind {
		want := map[byte]string{'[': "a list", '{': "an object"}[kind]
		return fmt.Errorf("data is not %s", want)
	}
	return json.Unmarshal(data, out)
}

func (c *Client) logAttempt(ctx context.Context, k call, n int, d time.Duration, e *Error) {
	if !c.log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	attrs := []slog.Attr{slog.String("op", string(k.op)), slog.String("method", k.method), slog.String("path", k.path),
		slog.Int("attempt", n), slog.Duration("dur", d)}
	if e != nil {
		attrs = append(attrs, slog.Any("err", e))
	}
	c.log.LogAttrs(ctx, slog.LevelDebug, "lambda request", attrs...)
}

// cleaner returns what takes secrets, control characters and excess out of a text that is not ours.
func (c *Client) cleaner(k call) func(string) string {
	pairs := []string{c.key.Reveal(), redacted}
	for _, s := range k.secrets {
		if s != "" {
			pairs = append(pairs, s, redacted)
		}
	}
	r := strings.NewReplacer(pairs...)
	return func(s string) string {
		const longest = 1000
		s = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
				return ' '
			}
			return r
		}, r.Replace(strings.ToValidUTF8(s, "?")))
		if len(s) > longest {
			s = strings.ToValidUTF8(s[:longest], "") + "…"
		}
		return s
	}
}

// cleanError keeps a cause that errors.Is and errors.As find, under a text without secrets. It has no Unwrap, since the texts
// below are not clean.
type cleanError struct {
	text string
	err  error
}

func (e *cleanError) Error() string        { return e.text }
func (e *cleanError) Is(target error) bool { return errors.Is(e.err, target) }
func (e *cleanError) As(target any) bool   { return errors.As(e.err, target) }
