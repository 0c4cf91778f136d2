package policy

import (
	"errors"
	"io"
	"time"

	"github.com/goccy/go-yaml/ast"
)

var errSoon = errors.New("policy: being written")

func scalarText(n ast.Node) (string, bool) { return "", false }

// Evaluate decides about r, given what counts so far and what else could be had.
func Evaluate(p *Policy, r Request, u Usage, offers []Offer) Decision {
	return Decision{Verdict: Deny, WorstCase: r.WorstCase()}
}

// Explain is the decision as people and agents read it.
func (d Decision) Explain() string { return string(d.Verdict) }

// Err is nil for Allow and a *RefusedError otherwise.
func (d Decision) Err() error { return errSoon }

// Code is "" for Allow, else the error code that a tool reports.
func (d Decision) Code() string { return CodePolicyDenied }

// Default is the policy in force without a file.
func Default() *Policy { return &Policy{} }

// Clone is a deep copy.
func (p *Policy) Clone() *Policy { return &Policy{} }

// Load reads a policy file.
func Load(path string) (*Policy, error) { return nil, errSoon }

// Hash identifies the effective policy.
func (p *Policy) Hash() string { return "" }

// Source is where the policy comes from.
type Source struct {
	Path     string
	Explicit bool
}

// Current is the policy in force now.
func (s *Source) Current() (*Policy, error) { return nil, errSoon }

// PeriodStarts is when the day, the week (from Monday) and the month of now began.
func (p *Policy) PeriodStarts(now time.Time) (day, week, month time.Time) { return now, now, now }

// TTLFor is the TTL of a request: asked, or the default when asked is 0.
func (p *Policy) TTLFor(principal string, asked time.Duration) time.Duration { return asked }

// MaxTTLFor is the longest TTL that the principal may have.
func (p *Policy) MaxTTLFor(principal string) time.Duration { return 0 }

// IdleTimeoutFor is the idle timeout for the principal's leases; 0 is none.
func (p *Policy) IdleTimeoutFor(principal string) time.Duration { return 0 }

// TypeAllowed says whether type, region and price are allowed at all.
func (p *Policy) TypeAllowed(principal, typ, region string, price Money) (ok bool, rule string) {
	return false, ""
}

// With is a copy of p with one key set from text, as from a flag or the environment.
func (p *Policy) With(key, value, source string) (*Policy, error) { return nil, errSoon }

// Schema is the JSON Schema of the policy file.
func Schema() []byte { return nil }

// Starter is a commented policy file that holds the defaults.
func Starter() string { return "" }

// Show writes the effective values with their sources.
func (p *Policy) Show(w io.Writer) error { return errSoon }
