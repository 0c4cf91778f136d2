package lambdatest

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxBody is above the largest request that the API takes: 1 MB of user data,
// which JSON may spell six times as long.
const maxBody = 8 << 20

// faultHeader marks an answer that a fault made or changed, with its id, so that
// a check against the document can leave it out.
const faultHeader = "X-Gpulease-Sim-Fault"

// call is one request under way.
type call struct {
	r        *http.Request
	op       *op
	id       string // of the path
	body     []byte
	now      time.Time
	faults   []Fault // those that fire for this call
	skew     time.Duration
	siblings map[string]any // beside "data" in the answer
}

// answer is what goes back.
type answer struct {
	status int
	kind   string // content type
	body   []byte
	header http.Header
}

// ServeHTTP answers a request to the API, or to the simulator's own under /_sim/.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.handler.ServeHTTP(w, r)
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == adminPath || strings.HasPrefix(r.URL.Path, adminPath+"/") {
		s.admin.ServeHTTP(w, r)
		return
	}
	c := &call{r: r, now: s.clock.now(), siblings: map[string]any{}}
	log := Request{Time: c.now, Method: r.Method, Path: r.URL.Path}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	c.body = body
	log.BodyKeys = bodyKeys(body)
	var a answer
	if err != nil {
		a = c.refusal(refusef(CodeInvalidParameters, "Invalid request data: the body is too large or was cut."))
	} else {
		a = s.dispatch(c, &log)
	}
	log.Status = a.status
	for _, f := range c.faults {
		log.Faults = append(log.Faults, f.ID)
	}
	cut := slices.ContainsFunc(c.faults, func(f Fault) bool { return f.Cut != "" })
	if cut {
		log.Status = 0
	}
	s.record(log)
	s.send(w, c, a)
}

// dispatch finds out what to answer. Whoever stands in front of the API speaks
// first, then the key is checked, then the rate, and only then is a fault used up.
func (s *Server) dispatch(c *call, log *Request) answer {
	if strings.HasPrefix(c.r.UserAgent(), "Python-urllib/") {
		return plain(http.StatusForbidden, "error code: 1010")
	}
	if c.r.URL.Path != basePath && !strings.HasPrefix(c.r.URL.Path, basePath+"/") {
		return plain(http.StatusNotFound, "404 page not found")
	}
	if e := s.authorize(c.r); e != nil {
		return c.refusal(e)
	}
	o, id, wrongMethod := s.route(c.r)
	switch {
	case o == nil && wrongMethod:
		e := refuse(CodeUnknown)
		e.Status = http.StatusMethodNotAllowed
		return c.refusal(e)
	case o == nil:
		return c.refusal(refuse(CodeNotFound))
	}
	c.op, c.id, log.Op = o, id, o.id
	if s.cfg.RateLimit {
		if ok, wait := s.limit.take(c.now, o.id == OpLaunch); !ok {
			return rateLimited(s.cfg.RateLimitHTML, wait)
		}
	}
	c.faults = s.draw(c)
	for _, f := range c.faults {
		c.skew += f.ClockSkew
		if err := s.pause(c.r, f.Delay); err != nil {
			return answer{}
		}
	}
	for _, f := range c.faults {
		if a, done := s.interrupt(c, f, false); done {
			return a
		}
	}
	a := s.work(c)
	for _, f := range c.faults {
		if b, done := s.interrupt(c, f, true); done {
			return b
		}
	}
	return a
}

// work runs the operation.
func (s *Server) work(c *call) answer {
	if c.op.unlocked {
		c.now = s.clock.now()
		data, e := c.op.handle(s, c)
		return c.envelope(data, e)
	}
	s.mu.Lock()
	c.now = s.clock.now() // a delay may have passed
	s.tick(c.now)
	data, e := c.op.handle(s, c)
	if e == nil && c.r.Method != http.MethodGet {
		s.save()
	}
	a := c.envelope(data, e) // under the lock: data may point into the state
	s.mu.Unlock()
	if e == nil && c.r.Method != http.MethodGet {
		s.wakeHosts()
	}
	return a
}

func (c *call) envelope(data any, e *apiError) answer {
	if e != nil {
		return c.refusal(e)
	}
	out := c.siblings
	out["data"] = data
	return c.json(http.StatusOK, out)
}

func (c *call) refusal(e *apiError) answer {
	return c.json(e.Status, map[string]any{"error": e})
}

func (c *call) json(status int, v any) answer {
	body, err := json.Marshal(v)
	if err != nil { // only our own types are marshalled
		panic(fmt.Sprintf("lambdatest: marshal an answer: %v", err))
	}
	return answer{status: status, kind: "application/json", body: body}
}

func plain(status int, text string) answer {
	return answer{status: status, kind: "text/plain; charset=UTF-8", body: []byte(text)}
}

// rateLimited is a 429 in either of its shapes.
func rateLimited(html bool, wait time.Duration) answer {
	a := answer{status: http.StatusTooManyRequests, kind: "text/html; charset=UTF-8", body: []byte(bannedPage)}
	if !html {
		a = (&call{}).refusal(refuse(CodeRateLimited))
	}
	if wait > 0 {
		seconds := int64((wait + time.Second - 1) / time.Second)
		a.header = http.Header{"Retry-After": {strconv.FormatInt(seconds, 10)}}
	}
	return a
}

const bannedPage = `<!DOCTYPE html>
<html><head><title>Access denied | cloud.lambda.ai used Cloudflare to restrict access</title></head>
<body><h1>Error 1015</h1><h2>You are being rate limited</h2>
<p>The owner of this website (cloud.lambda.ai) has banned you temporarily from accessing this website.</p>
</body></html>
`

// authorize checks the key: as a bearer token, as the user of Basic (with or
// without base64, as the document allows).
func (s *Server) authorize(r *http.Request) *apiError {
	header := r.Header.Get("Authorization")
	if header == "" {
		return refusef(CodeInvalidKey, "No API key was provided.")
	}
	scheme, rest, _ := strings.Cut(header, " ")
	rest = strings.TrimSpace(rest)
	ok := false
	switch strings.ToLower(scheme) {
	case "bearer":
		ok = s.isKey(rest)
	case "basic":
		user, _, basic := r.BasicAuth()
		ok = s.isKey(strings.TrimSuffix(rest, ":")) || basic && s.isKey(user)
	}
	if !ok {
		return refuse(CodeInvalidKey)
	}
	return nil
}

func (s *Server) isKey(k string) bool {
	return subtle.ConstantTimeCompare([]byte(k), []byte(s.acct.APIKey)) == 1
}

// send writes the answer, or less of it than was meant.
func (s *Server) send(w http.ResponseWriter, c *call, a answer) {
	cut := ""
	for _, f := range c.faults {
		if f.Cut != "" {
			cut = f.Cut
		}
	}
	if a.status == 0 || cut == CutBefore || cut == CutAfter {
		panic(http.ErrAbortHandler) // closes the connection without an answer
	}
	h := w.Header()
	for k, v := range a.header {
		h[k] = v
	}
	h.Set("Content-Type", a.kind)
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	h.Set("Date", s.clock.now().Add(c.skew).Format(http.TimeFormat))
	h.Set("Cf-Ray", fmt.Sprintf("%016x-SIM", uint64(s.clock.now().UnixNano())))
	for _, f := range c.faults {
		h.Add(faultHeader, f.ID)
	}
	w.WriteHeader(a.status)
	if cut == CutMid {
		_, _ = w.Write(a.body[:len(a.body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(a.body)
}

// bodyKeys are the names in a JSON object, without their values, sorted.
func bodyKeys(body []byte) []string {
	var m map[string]json.RawMessage
	if len(bytes.TrimSpace(body)) == 0 || json.Unmarshal(body, &m) != nil {
		return nil
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
