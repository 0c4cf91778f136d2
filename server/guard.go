package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
)

const allowOrigin = "Access-Control-Allow-Origin"

// admits answers what no one may ask from where it comes, and reports whether the
// request may go on. A web page must not reach a server on the same computer, by a
// request of its own or through a name that leads here (DNS rebinding). The library
// checks no Origin.
func (w *web) admits(to http.ResponseWriter, r *http.Request) bool {
	if !w.knowsHost(r) {
		http.Error(to, "this server does not answer to the name in Host; see --allow-host", http.StatusForbidden)
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true // no web page
	}
	if !slices.Contains(w.config.Origins, origin) && !sameOrigin(origin, r.Host) {
		http.Error(to, "web pages from this Origin have no access; see --allow-origin", http.StatusForbidden)
		return false
	}
	h := to.Header()
	h.Set(allowOrigin, origin)
	h.Add("Vary", "Origin")
	h.Set("Access-Control-Expose-Headers", "Mcp-Session-Id, WWW-Authenticate, Retry-After")
	if r.Method == http.MethodOptions {
		h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE")
		h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Accept, Last-Event-ID, Mcp-Session-Id, Mcp-Protocol-Version, Mcp-Method, Mcp-Name")
		h.Set("Access-Control-Max-Age", "600")
		to.WriteHeader(http.StatusNoContent)
		return false
	}
	return true
}

// knowsHost reports whether the request names a host that this server is. Who
// connects to the loopback address has to call it so, or by a name that was allowed.
func (w *web) knowsHost(r *http.Request) bool {
	name := r.Host
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	name = strings.ToLower(strings.Trim(name, "[]"))
	if slices.Contains(w.config.Hosts, name) {
		return true
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if local != nil && !IsLoopback(local.String()) {
		return len(w.config.Hosts) == 0 // a token is needed there, which no web page has
	}
	return name == "localhost" || IsLoopback(name)
}

// IsLoopback reports whether an IP address, with or without a port, is this
// computer's own.
func IsLoopback(addr string) bool {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		addr = host
	}
	ip, err := netip.ParseAddr(strings.Trim(addr, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}

func sameOrigin(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && strings.EqualFold(u.Host, host)
}

// hurry bounds how long a request may take to arrive and, unless the writes that
// follow are given more time, to be answered. It also bounds how long the HTTP server
// itself waits for a body that nobody wants.
func (w *web) hurry(to http.ResponseWriter) {
	control := http.NewResponseController(to)
	_ = control.SetReadDeadline(time.Now().Add(2 * w.config.HeaderTime))
	_ = control.SetWriteDeadline(time.Now().Add(writeTime))
}

// takeTime is for a request that has arrived: the end of a read would end its context.
func takeTime(to http.ResponseWriter) {
	_ = http.NewResponseController(to).SetReadDeadline(time.Time{})
}

// post is what the guard has to know of a message before the library gets it.
type post struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`

	raw     []byte
	version string // of the protocol, by its _meta
}

// modern reports whether the message is of a revision without sessions. It has to find
// what the library finds: what the two take for different things would pass as neither.
func (p post) modern(r *http.Request) bool {
	return mcp.IsModernProtocol(p.version) || mcp.IsModernProtocol(r.Header.Get(mcp.HeaderProtocolVersion))
}

// versionOf reads the revision that a message names as the library does, which knows
// no other spelling, takes the last of two, and none of a message with another fault.
func versionOf(raw []byte) string {
	var m struct {
		Params struct {
			Meta *mcp.Meta `json:"_meta"`
		} `json:"params"`
	}
	if json.Unmarshal(raw, &m) != nil {
		return ""
	}
	return m.Params.Meta.ProtocolVersion()
}

// body reads a request's body, of a bounded size and in a bounded time, and puts it
// back. It answers by itself where it cannot.
func (w *web) body(to http.ResponseWriter, r *http.Request) (p post, ok bool) {
	raw, err := io.ReadAll(http.MaxBytesReader(to, r.Body, w.config.MaxBody))
	if err != nil {
		status := http.StatusBadRequest
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			status = http.StatusRequestEntityTooLarge
		}
		to.Header().Set("Connection", "close")
		http.Error(to, "the request's body is too large or did not arrive", status)
		return p, false
	}
	takeTime(to)
	r.Body = io.NopCloser(bytes.NewReader(raw))
	_ = json.Unmarshal(raw, &p) // the library answers what is no message
	p.raw, p.version = raw, versionOf(raw)
	return p, true
}
