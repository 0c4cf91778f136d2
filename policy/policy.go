package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// Policy is a whole policy: the account's limits, and the same again per principal, all binding together. Read-only once made;
// change a Clone.
type Policy struct {
	Limits

	// Principals are further limits for those who ask under these names.
	Principals map[string]Limits

	// TimeZone is where days, weeks and months begin; nil is UTC.
	TimeZone *time.Location

	// RequireGuard refuses a launch while nobody (keeper, server, reap) would end the lease. The caller enforces it: it knows
	// the guards.
	RequireGuard bool

	// IdleMode is what becomes of a lease that was idle for its idle timeout; "" is IdleEnforce.
	IdleMode IdleMode

	// ApprovalTTL is how long a request may wait for a person's approval; 0 is an hour. See ApprovalTime.
	ApprovalTTL time.Duration

	// CountUntracked has instances that no lease accounts for count as spending (Usage.Untracked).
	CountUntracked bool

	// Network is how machines are reached; the zero value is by their public addresses.
	Network Network

	path    string            // the file that it came from; "" is none
	sources map[string]string // rule -> where it is set; a rule that is not there is a default
}

// longestTTL bounds every TTL, whatever the policy says: a lease must have a hard stop.
const longestTTL = 365 * 24 * time.Hour

const (
	sourceDefault = "default"
	sourceBuiltIn = "built in"
)

// Default is the policy in force without a file.
func Default() *Policy {
	all := func() Patterns { return Patterns{Allow: []string{"*"}} }
	return &Policy{
		Limits: Limits{
			Types:           all(),
			Regions:         all(),
			Images:          all(),
			MaxPricePerHour: 10 * Dollar,
			DefaultTTL:      time.Hour,
			MaxTTL:          8 * time.Hour,
			IdleTimeout:     30 * time.Minute,
			MaxLeases:       2,
			Caps:            Caps{PerLease: 25 * Dollar, PerDay: 50 * Dollar, PerMonth: 300 * Dollar},
		},
		TimeZone:     time.UTC,
		RequireGuard: true,

		IdleMode:       IdleEnforce,
		ApprovalTTL:    time.Hour,
		CountUntracked: true,
	}
}

// Clone is a deep copy, free to be changed.
func (p *Policy) Clone() *Policy {
	c := *p
	c.Limits = p.Limits.clone()
	c.Network = p.Network.clone()
	c.sources = maps.Clone(p.sources)
	c.Principals = maps.Clone(p.Principals)
	for name, l := range c.Principals {
		c.Principals[name] = l.clone()
	}
	return &c
}

func (l Limits) clone() Limits {
	for _, ps := range []*Patterns{&l.Types, &l.Regions, &l.Images} {
		ps.Allow, ps.Deny = slices.Clone(ps.Allow), slices.Clone(ps.Deny)
	}
	l.LeasesOf = slices.Clone(l.LeasesOf)
	return l
}

// Path is the file that the policy was read from, "" for none.
func (p *Policy) Path() string { return p.path }

// Hash identifies the effective policy: equal hashes mean equal values, wherever they are set and in whatever order the file
// has them. Decisions record it.
func (p *Policy) Hash() string {
	canonical := struct {
		Version      int
		Account      Limits
		Principals   map[string]Limits
		TimeZone     string
		RequireGuard bool
		Idle         IdleMode
		Approval     time.Duration
		Untracked    bool
		Network      *Network `json:",omitempty"` // nil where nothing is set, so that older hashes stay as they are
	}{2, p.Limits.canonical(), make(map[string]Limits, len(p.Principals)), p.zone().String(), p.RequireGuard, p.idleMode(), p.ApprovalTime(), p.CountUntracked, p.Network.canonical()}
	for name, l := range p.Principals {
		canonical.Principals[name] = l.canonical()
	}
	text, err := json.Marshal(canonical)
	if err != nil {
		panic("policy: hash: " + err.Error()) // integers, booleans and strings only: it cannot fail
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// canonical has pattern lists sorted and free of repeats, for their order means nothing.
func (l Limits) canonical() Limits {
	l = l.clone()
	for _, ps := range []*Patterns{&l.Types, &l.Regions, &l.Images} {
		for _, list := range []*[]string{&ps.Allow, &ps.Deny} {
			slices.Sort(*list)
			*list = append([]string{}, slices.Compact(*list)...)
		}
	}
	slices.Sort(l.LeasesOf)
	l.LeasesOf = slices.Compact(l.LeasesOf)
	return l
}

func (p *Policy) zone() *time.Location {
	if p.TimeZone == nil {
		return time.UTC
	}
	return p.TimeZone
}

// source is where a rule is set.
func (p *Policy) source(rule string) string {
	if s, ok := p.sources[rule]; ok {
		return s
	}
	return sourceDefault
}

// TTLFor is the TTL of a request: asked as it stands, or, when asked is 0 ("not given"), the principal's default, else the
// account's, cut to what MaxTTLFor allows. A caller for whom 0 was given explicitly refuses it by itself.
func (p *Policy) TTLFor(principal string, asked time.Duration) time.Duration {
	if asked != 0 {
		return asked
	}
	ttl := p.DefaultTTL
	if own := p.Principals[principal].DefaultTTL; own > 0 {
		ttl = own
	}
	if ttl <= 0 {
		ttl = Default().DefaultTTL
	}
	return min(ttl, p.MaxTTLFor(principal))
}

// MaxTTLFor is the longest TTL that the rules max_ttl leave to the principal, extensions included. It is never 0: where no rule
// is set it is 365 days.
func (p *Policy) MaxTTLFor(principal string) time.Duration {
	return least(longestTTL, p.MaxTTL, p.Principals[principal].MaxTTL)
}

// IdleMode is what becomes of a lease that was idle for its idle timeout.
type IdleMode string

// The idle modes.
const (
	IdleEnforce IdleMode = "enforce" // it is ended
	IdleWarn    IdleMode = "warn"    // answers say so, and it runs on
	IdleOff     IdleMode = "off"     // nobody looks
)

func (p *Policy) idleMode() IdleMode {
	if p.IdleMode == "" {
		return IdleEnforce
	}
	return p.IdleMode
}

// ApprovalTime is how long a request may wait for a person's approval.
func (p *Policy) ApprovalTime() time.Duration {
	if p.ApprovalTTL <= 0 {
		return time.Hour
	}
	return p.ApprovalTTL
}

// IdleFor is after how long without work the principal's leases are ended or warned of, and which of the two; 0 for neither.
func (p *Policy) IdleFor(principal string) (time.Duration, IdleMode) {
	mode := p.idleMode()
	if mode == IdleOff {
		return 0, mode
	}
	return p.IdleTimeoutFor(principal), mode
}

// IdleTimeoutFor is after how long without work the principal's leases end: the shorter of the account's and the principal's,
// 0 for never.
func (p *Policy) IdleTimeoutFor(principal string) time.Duration {
	return least(0, p.IdleTimeout, p.Principals[principal].IdleTimeout)
}

// least is the smallest of those limits that are set, or otherwise when none is smaller. An otherwise of 0 is no limit.
func least(otherwise time.Duration, limits ...time.Duration) time.Duration {
	got := otherwise
	for _, d := range limits {
		if d > 0 && (got <= 0 || d < got) {
			got = d
		}
	}
	return got
}
