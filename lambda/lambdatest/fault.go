package lambdatest

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"
)

// Where a connection is cut.
const (
	CutBefore = "before" // nothing was done
	CutAfter  = "after"  // the work is done, no answer comes
	CutMid    = "mid"    // the work is done, half of the answer comes
)

// Shapes of an error body.
const (
	BodyJSON  = "json"  // Lambda's envelope
	BodyHTML  = "html"  // a page of whoever stands in front of the API
	BodyText  = "text"  // Cloudflare's one line
	BodyEmpty = "empty" // none
)

// Fault is a failure to come. The first group of fields says which calls it is
// for, the second what becomes of the answer, the third what happens to the
// world. Any of them can be combined; a zero field does nothing.
//
// In scenario files and over the admin API the names are in snake_case and
// durations are strings such as "90s".
type Fault struct {
	ID string `yaml:"id,omitempty"` // set by Inject if empty

	// Op is the operation's id (OpLaunch, ...), or a pattern such as "list*"; empty
	// means all.
	Op string `yaml:"op,omitempty"`
	// Match is a pattern that must fit the instance type, region, name or id that
	// the request is about, as in "gpu_8x_*"; empty means all.
	Match string `yaml:"match,omitempty"`
	// Skip lets the first fitting calls pass, Count ends the fault after so many
	// (0: never), Probability is the chance of each call (0: always).
	Skip        int     `yaml:"skip,omitempty"`
	Count       int     `yaml:"count,omitempty"`
	Probability float64 `yaml:"probability,omitempty"`
	// After and Until are a window on the simulator's clock, from the injection on.
	After time.Duration `yaml:"after,omitempty"`
	Until time.Duration `yaml:"until,omitempty"`

	// Delay makes the call slower.
	Delay time.Duration `yaml:"delay,omitempty"`
	// Status answers with it: a number of HTTP, and Code and Message in the
	// envelope. Code alone takes status and message from Lambda's catalogue.
	Status  int    `yaml:"status,omitempty"`
	Code    string `yaml:"code,omitempty"`
	Message string `yaml:"message,omitempty"`
	// Body is the shape of the error: BodyJSON (default), BodyHTML, ...
	Body       string        `yaml:"body,omitempty"`
	RetryAfter time.Duration `yaml:"retry_after,omitempty"`
	// Hang answers nothing for so long (negative: until the client gives up), then
	// cuts the connection. The work is not done, unless AfterWork.
	Hang time.Duration `yaml:"hang,omitempty"`
	// Cut closes the connection: CutBefore, CutAfter or CutMid.
	Cut string `yaml:"cut,omitempty"`
	// AfterWork does the work before Status or Hang spoil the answer.
	AfterWork bool `yaml:"after_work,omitempty"`
	// ClockSkew is added to the Date header.
	ClockSkew time.Duration `yaml:"clock_skew,omitempty"`
	// Omit leaves instances out of a list: a pattern for name or id, "*" for all.
	Omit string `yaml:"omit,omitempty"`

	// For OpLaunch. NoCapacity refuses although the type is listed. Boot is the
	// time to boot instead of Config.BootTime; NeverHealthy ends it as unhealthy,
	// with nobody at the SSH port. GPU is what ails it: "missing", "ecc" or "xid".
	NoCapacity   bool          `yaml:"no_capacity,omitempty"`
	Boot         time.Duration `yaml:"boot,omitempty"`
	NeverHealthy bool          `yaml:"never_healthy,omitempty"`
	GPU          string        `yaml:"gpu,omitempty"`
	// LateBy hides the instance everywhere for so long, UnlistedFor only in lists.
	LateBy      time.Duration `yaml:"late_by,omitempty"`
	UnlistedFor time.Duration `yaml:"unlisted_for,omitempty"`
	DropTags    bool          `yaml:"drop_tags,omitempty"`
	// PriceCents is what the type costs from this launch on, this one included.
	PriceCents int64 `yaml:"price_cents,omitempty"`
	// HostKeyAfter gives the machine another host key so long after its boot.
	HostKeyAfter time.Duration `yaml:"host_key_after,omitempty"`
	// DieAfter makes the instance DieAs (unhealthy by default, or terminated or
	// preempted) so long after its boot.
	DieAfter time.Duration `yaml:"die_after,omitempty"`
	DieAs    Status        `yaml:"die_as,omitempty"`

	// For OpTerminate. Stuck is how long the instances stay terminating instead of
	// Config.TerminateTime. Ignore answers 200 with an empty list and ends nothing.
	Stuck  time.Duration `yaml:"stuck,omitempty"`
	Ignore bool          `yaml:"ignore,omitempty"`
}

type activeFault struct {
	Fault
	since time.Time
	seen  int // fitting calls
	hits  int // of which it fired for
}

// check finds mistakes that would make a fault silently do nothing.
func (f Fault) check() error {
	known := f.Op == "" || slices.ContainsFunc(Operations(), func(id string) bool { return fits(f.Op, id) })
	switch {
	case !known:
		return fmt.Errorf("op %q: no such operation; they are %s", f.Op, strings.Join(Operations(), ", "))
	case f.Probability < 0 || f.Probability > 1:
		return fmt.Errorf("probability %v is not between 0 and 1", f.Probability)
	case f.Count < 0 || f.Skip < 0:
		return fmt.Errorf("count %d, skip %d: below 0", f.Count, f.Skip)
	case f.Cut != "" && f.Cut != CutBefore && f.Cut != CutAfter && f.Cut != CutMid:
		return fmt.Errorf("cut %q is none of before, after, mid", f.Cut)
	case !slices.Contains([]string{"", BodyJSON, BodyHTML, BodyText, BodyEmpty}, f.Body):
		return fmt.Errorf("body %q is none of json, html, text, empty", f.Body)
	case !slices.Contains([]string{"", "missing", "ecc", "xid"}, f.GPU):
		return fmt.Errorf("gpu %q is none of missing, ecc, xid", f.GPU)
	case !slices.Contains([]Status{"", Unhealthy, Terminated, Preempted}, f.DieAs):
		return fmt.Errorf("die_as %q is none of unhealthy, terminated, preempted", f.DieAs)
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return fmt.Errorf("status %d is not between 200 and 599", f.Status)
	case f.Code != "" && f.Status == 0 && errorCatalogue[f.Code].status == 0:
		return fmt.Errorf("code %q is not in the catalogue: it needs a status", f.Code)
	case f.Body != "" && f.Status == 0 && f.Code == "":
		return fmt.Errorf("body %q without a status", f.Body)
	case f.Until != 0 && f.Until <= f.After:
		return fmt.Errorf("until %v is not later than after %v", f.Until, f.After)
	}
	for _, p := range []string{f.Op, f.Match, f.Omit} {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("pattern %q: %w", p, err)
		}
	}
	return nil
}

func fits(pattern, s string) bool {
	ok, _ := path.Match(pattern, s)
	return ok || pattern == ""
}

// Inject makes a failure happen from now on and returns its id. A fault that
// could never do anything (no such operation, a misspelt word) panics.
func (s *Server) Inject(f Fault) string {
	id, err := s.inject(f)
	if err != nil {
		panic("lambdatest: inject fault: " + err.Error())
	}
	return id
}

func (s *Server) inject(f Fault) (string, error) {
	if err := f.check(); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addFault(f, s.clock.now()), nil
}

func (s *Server) addFault(f Fault, since time.Time) string {
	s.faultSeq++
	if f.ID == "" {
		f.ID = fmt.Sprintf("f%d", s.faultSeq)
	}
	s.faults = append(s.faults, &activeFault{Fault: f, since: since})
	return f.ID
}

// Remove ends a fault; without an id, all of them.
func (s *Server) Remove(ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = slices.DeleteFunc(s.faults, func(f *activeFault) bool {
		return len(ids) == 0 || slices.Contains(ids, f.ID)
	})
}

// Hits is how many calls a fault has fired for.
func (s *Server) Hits(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		if f.ID == id {
			return f.hits
		}
	}
	return 0
}

// draw picks the faults that fire for a call and counts them.
func (s *Server) draw(c *call) []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.faults) == 0 {
		return nil
	}
	subjects := s.subjects(c)
	var out []Fault
	for _, f := range s.faults {
		since := c.now.Sub(f.since)
		if !fits(f.Op, c.op.id) || since < f.After || f.Until != 0 && since >= f.Until {
			continue
		}
		if f.Match != "" && !slices.ContainsFunc(subjects, func(x string) bool { return fits(f.Match, x) }) {
			continue
		}
		f.seen++
		if f.seen <= f.Skip || f.Count > 0 && f.hits >= f.Count {
			continue
		}
		if f.Probability > 0 && s.rng.Float64() >= f.Probability {
			continue
		}
		f.hits++
		out = append(out, f.Fault)
	}
	return out
}

// subjects are the names and ids that a request is about. The caller holds mu.
func (s *Server) subjects(c *call) []string {
	var b struct {
		Region string   `json:"region_name"`
		Type   string   `json:"instance_type_name"`
		Name   string   `json:"name"`
		Place  string   `json:"region"`
		IDs    []string `json:"instance_ids"`
	}
	_ = looseJSON(c.body, &b)
	out := []string{}
	ids := b.IDs
	if c.id != "" {
		ids = append(ids, c.id)
	}
	for _, x := range []string{b.Region, b.Type, b.Name, b.Place} {
		if x != "" {
			out = append(out, x)
		}
	}
	for _, id := range ids {
		out = append(out, id)
		if i := s.instance(id); i != nil {
			out = append(out, i.Name, i.Type.Name, i.Region.Name)
		}
	}
	return out
}

// interrupt is what a fault does instead of an answer, before the work or after.
func (s *Server) interrupt(c *call, f Fault, after bool) (answer, bool) {
	switch {
	case f.Hang != 0 && f.AfterWork == after:
		_ = s.pause(c.r, f.Hang)
		return answer{}, true
	case f.Cut == CutBefore && !after:
		return answer{}, true
	case (f.Status != 0 || f.Code != "") && f.AfterWork == after:
		return f.answer(c), true
	}
	return answer{}, false
}

func (f Fault) answer(c *call) answer {
	status := f.Status
	code := f.Code
	if code == "" {
		code = codeFor(status)
	}
	e := refuse(code)
	if status == 0 {
		status = e.Status
	}
	e.Status = status
	if f.Message != "" {
		e.Message = f.Message
	}
	var a answer
	switch f.Body {
	case BodyHTML:
		a = answer{status: status, kind: "text/html; charset=UTF-8", body: []byte(page(status))}
	case BodyText:
		a = plain(status, "error code: 1010")
	case BodyEmpty:
		a = answer{status: status, kind: "text/plain"}
	default:
		a = c.refusal(e)
	}
	if f.RetryAfter > 0 {
		a.header = rateLimited(false, f.RetryAfter).header
	}
	return a
}

func codeFor(status int) string {
	switch status {
	case http.StatusBadRequest:
		return CodeInvalidParameters
	case http.StatusUnauthorized:
		return CodeInvalidKey
	case http.StatusForbidden:
		return CodeForbidden
	case http.StatusNotFound:
		return CodeNotFound
	case http.StatusConflict:
		return CodeConflict
	case http.StatusTooManyRequests:
		return CodeRateLimited
	case http.StatusServiceUnavailable:
		return CodeProvider
	}
	if status >= 500 {
		return CodeInternal
	}
	return CodeUnknown
}

func page(status int) string {
	if status == http.StatusTooManyRequests {
		return bannedPage
	}
	return fmt.Sprintf("<!DOCTYPE html>\n<html><head><title>%d %s</title></head>\n<body><center><h1>%d %s</h1></center><hr><center>cloudflare</center></body></html>\n",
		status, http.StatusText(status), status, http.StatusText(status))
}

// pause waits on the simulator's clock; the error says that the request or the
// server has ended meanwhile.
func (s *Server) pause(r *http.Request, d time.Duration) error {
	if d == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	return s.clock.sleep(ctx, d)
}
