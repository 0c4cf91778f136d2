package lambda

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// refusal reads an answer that is not a success.
func (c *Client) refusal(resp *http.Response, body []byte) *Error {
	e := &Error{Status: resp.StatusCode, RequestID: requestID(resp.Header), RetryAfter: retryAfter(resp.Header, c.now())}
	isEnvelope := e.readEnvelope(body)
	if !isEnvelope {
		e.Message = describe(resp, body)
		e.blocked = proxyBlock(resp, body)
	}
	status := resp.StatusCode
	passing := status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status >= 500
	if isEnvelope && status >= 400 && !passing {
		e.Outcome = NothingHappened
	}
	switch {
	case passing, e.blocked == blockedRate, e.Code.IsProvider(), isEnvelope && e.Code == CodeInternalError:
		e.Retry, e.again = RetryLater, true
	case e.Code.passes(), !isEnvelope && status >= 400:
		e.Retry = RetryLater
	}
	return e
}

// readEnvelope reads Lambda's own error, if body is one.
func (e *Error) readEnvelope(body []byte) bool {
	var env struct {
		Error *struct {
			Code       *Code   `json:"code"`
			Message    *string `json:"message"`
			Suggestion *string `json:"suggestion"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &env) != nil || env.Error == nil || env.Error.Code == nil || *env.Error.Code == "" {
		return false
	}
	e.Code = *env.Error.Code
	if env.Error.Message != nil {
		e.Message = *env.Error.Message
	}
	if env.Error.Suggestion != nil {
		e.Suggestion = *env.Error.Suggestion
	}
	return true
}

var cloudflareCode = regexp.MustCompile(`(?i)error(?:[\s_-]+code)?["':>]*\s*(?:<[^>]*>\s*)*(1[0-9]{3})\b`)

// proxyBlock tells Cloudflare's pages apart: 1015 is too many requests, any other is a client that it does not like.
func proxyBlock(resp *http.Response, body []byte) blocked {
	text := string(body)
	m := cloudflareCode.FindStringSubmatch(text)
	switch {
	case m != nil && m[1] == "1015", strings.Contains(text, "banned you temporarily"):
		return blockedRate
	case resp.StatusCode == http.StatusForbidden:
		return blockedClient
	}
	return notBlocked
}

// describe says in our words what an answer is that is not the API's. The page itself is not repeated.
func describe(resp *http.Response, body []byte) string {
	kind := strings.TrimSpace(strings.Split(resp.Header.Get("Content-Type"), ";")[0])
	if kind == "" {
		kind = "untyped"
	}
	text := fmt.Sprintf("a %s page of %d bytes, not an answer of the API", kind, len(body))
	if m := cloudflareCode.FindSubmatch(body); m != nil {
		text += ", from Cloudflare in front of it (error " + string(m[1]) + ")"
	}
	switch {
	case resp.StatusCode == http.StatusForbidden:
		text += "; it says nothing about the key"
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		text = "a redirect, which is not followed"
		if u, err := resp.Location(); err == nil {
			text += ": to " + u.Scheme + "://" + u.Host
		}
	}
	return text
}

func requestID(h http.Header) string {
	for _, name := range []string{"X-Request-Id", "X-Amzn-Requestid", "Cf-Ray"} {
		if v := h.Get(name); v != "" {
			return v
		}
	}
	return ""
}

// retryAfter reads both forms of the header. A date is compared with the service's own clock when it shows it.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		return 0
	}
	const longest = 24 * time.Hour
	if s, err := strconv.ParseInt(v, 10, 64); err == nil {
		return time.Duration(min(max(s, 0), int64(longest/time.Second))) * time.Second
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return min(max(at.Sub(now), 0), longest)
}
