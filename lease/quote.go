package lease

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gpulease/gpulease/policy"
)

// LaunchRequest is what an agent asks for.
type LaunchRequest struct {
	Type           string        // instance type, required
	Region         string        // "" = any with capacity that the policy allows
	TTL            time.Duration // from ready to the deadline; 0 = the policy's default
	Purpose        string
	IdempotencyKey string
	Principal      string   // who asks; "" is the manager's
	Results        []string // paths on the machine to bring home before its end
	ResultsDir     string   // local directory for them, absolute and allowed by the caller; see [LeaseInPath]
	// Elsewhere lets the launch be tried once more when its machine turns out to be
	// sick: at no higher price, and in another region where there is one. It does
	// nothing where Region names one.
	Elsewhere bool

	avoid    string       // the region of a sick machine, taken last
	notAbove policy.Money // highest price; 0 for any
}

// Quote is what a launch would cost and what the policy says of it. Nothing is
// reserved by it.
type Quote struct {
	Offer    Offer
	Regions  []string // that would be tried, in this order
	TTL      time.Duration
	Decision policy.Decision
	AsOf     time.Time

	rulesets map[string]string // the firewall ruleset's id in each region; nil where the policy names none
}

// Limits of the free texts of a request.
const (
	maxPlace   = 100
	maxPurpose = 500
	maxIdemKey = 200
	maxResults = 50
	maxResult  = 1000
)

func (r LaunchRequest) check() error {
	switch {
	case r.Type == "":
		return invalid("list_capacity shows the types", "a launch needs an instance type")
	case len(r.Type) > maxPlace || len(r.Region) > maxPlace:
		return invalid("list_capacity shows types and regions", "the name of a type or region has more than %d bytes", maxPlace)
	case r.TTL < 0:
		return invalid("give a TTL of at least one minute, or none for the policy's default", "a TTL of %s makes no sense", r.TTL)
	case r.TTL%time.Minute != 0:
		return invalid("give whole minutes", "a TTL of %s is not whole minutes", r.TTL)
	case len(r.Purpose) > maxPurpose:
		return invalid("shorten it", "the purpose has %d bytes, at most %d are kept", len(r.Purpose), maxPurpose)
	case len(r.IdempotencyKey) > maxIdemKey:
		return invalid("shorten it", "the idempotency key has %d bytes, at most %d are kept", len(r.IdempotencyKey), maxIdemKey)
	case len(r.Results) > maxResults:
		return invalid("name directories instead of files", "%d results are named, at most %d are kept", len(r.Results), maxResults)
	}
	return checkResults(r.Results, r.ResultsDir)
}

// fingerprint tells a repeated request from another one under the same key.
func (r LaunchRequest) fingerprint() string {
	text := fmt.Appendf(nil, "%q %q %d", r.Type, r.Region, r.TTL)
	if len(r.Results) > 0 {
		text = fmt.Appendf(text, " %q %q", r.Results, r.ResultsDir)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// unlike says in what a request differs from the one that a lease was made for.
func (r LaunchRequest) unlike(l Lease) string {
	var said []string
	say := func(what, was, is string) {
		if was != is {
			said = append(said, fmt.Sprintf("%s was %q and is %q", what, was, is))
		}
	}
	say("type", l.Type, r.Type)
	say("region", l.AskedRegion, r.Region)
	if r.TTL != 0 {
		say("TTL", l.TTL.String(), r.TTL.String())
	}
	say("results", strings.ReplaceAll(l.Results, "\n", " "), strings.Join(r.Results, " "))
	if said == nil {
		return "the TTL is given in one and left to the policy in the other, or the local directory for the results is another"
	}
	return strings.Join(said, ", ")
}

// Quote says what the launch would cost at most, and what the policy decides
// about it now. It costs nothing and reserves nothing.
func (m *Manager) Quote(ctx context.Context, r LaunchRequest) (Quote, error) {
	if err := r.check(); err != nil {
		return Quote{}, err
	}
	p, err := m.policyNow()
	if err != nil {
		return Quote{}, err
	}
	r.Principal = m.who(ctx, r)
	now := m.now()
	usage, err := m.Store.Usage(ctx, r.Principal, now, m.periods(p, now))
	if err != nil {
		return Quote{}, ledgerError("quote", err)
	}
	q, offers, err := m.find(ctx, p, r)
	if err != nil {
		return Quote{}, err
	}
	q.Decision = policy.Evaluate(p, m.policyRequest(p, r.Principal, q.Offer, q.Regions[0], q.TTL), usage, m.alternatives(offers))
	if f, err := m.Store.Frozen(ctx); err == nil && f.On() {
		return Quote{}, frozenError(f)
	}
	return q, nil
}

// who asks for a launch.
func (m *Manager) who(ctx context.Context, r LaunchRequest) string {
	if r.Principal == "" || actor(ctx) != "" { // nobody launches in another's name
		return m.asker(ctx)
	}
	return r.Principal
}

// find looks the type up and chooses the regions to try. Its quote has no
// decision yet.
func (m *Manager) find(ctx context.Context, p *policy.Policy, r LaunchRequest) (Quote, []Offer, error) {
	offers, err := m.offers(ctx)
	if err != nil {
		return Quote{}, nil, err
	}
	i := slices.IndexFunc(offers, func(o Offer) bool { return o.Type == r.Type })
	if i < 0 {
		return Quote{}, nil, unknownType(r.Type, offers)
	}
	o := offers[i]
	q := Quote{Offer: o, TTL: p.TTLFor(r.Principal, r.TTL), AsOf: m.now()}
	if o.Price <= 0 {
		return Quote{}, nil, &Error{
			Code: CodeCloudUnavailable, Message: fmt.Sprintf("the cloud gives no price for %s, and nothing is launched without one", o.Type),
			Next: "call list_capacity for types that have one",
		}
	}
	switch {
	case r.Region == "":
		for _, region := range o.Regions {
			if ok, _ := p.TypeAllowed(r.Principal, o.Type, region, o.Price); ok {
				q.Regions = append(q.Regions, region)
			}
		}
		if len(q.Regions) == 0 {
			q.Regions = o.Regions // all denied: the decision says by which rule
		}
	case slices.Contains(o.Regions, r.Region):
		q.Regions = []string{r.Region}
	}
	if q, err = r.elsewhere(q); err != nil {
		return Quote{}, nil, err
	}
	if q, err = m.firewalled(ctx, p.Network, q); err != nil {
		return Quote{}, nil, err
	}
	if len(q.Regions) > 0 {
		if err := m.reachable(ctx, p.Network); err != nil {
			return Quote{}, nil, err
		}
	} else {
		if ok, rule := p.TypeAllowed(r.Principal, o.Type, r.Region, o.Price); !ok {
			return Quote{}, nil, &Error{Code: CodePolicyDenied, Message: fmt.Sprintf("the policy does not allow %s", o.Type), Why: rule, Next: "list_capacity shows what is allowed"}
		}
		return Quote{}, nil, m.noCapacity(p, r, o, offers)
	}
	return q, offers, nil
}

func unknownType(name string, offers []Offer) *Error {
	names := make([]string, 0, len(offers))
	for _, o := range offers {
		names = append(names, o.Type)
	}
	slices.Sort(names)
	return &Error{
		Code: CodeInvalidInput, Message: fmt.Sprintf("there is no instance type %q", name),
		Why: "the cloud's types are " + strings.Join(names, ", "), Next: "list_capacity shows them with prices",
	}
}

// noCapacity says what could be had instead: the same type elsewhere first, then
// other GPUs that the policy allows.
func (m *Manager) noCapacity(p *policy.Policy, r LaunchRequest, o Offer, offers []Offer) *Error {
	e := &Error{Code: CodeNoCapacity, Message: fmt.Sprintf("no %s is free now; nothing was launched", r.Type), Retryable: true,
		Why: "capacity comes and goes within minutes", Next: "try again in a few minutes"}
	var regions, types []string
	for _, x := range offers {
		for _, region := range x.Regions {
			if !slices.Contains(regions, region) {
				regions = append(regions, region)
			}
			if ok, _ := p.TypeAllowed(r.Principal, x.Type, region, x.Price); ok && (x.GPUs > 0) == (o.GPUs > 0) && !slices.Contains(types, x.Type) {
				types = append(types, x.Type)
			}
		}
	}
	if len(types) > 0 {
		e.Next = "try again in a few minutes, or take one of the types that are free and allowed now: " + strings.Join(types, ", ")
	}
	if r.Region == "" {
		return e
	}
	e.Message = fmt.Sprintf("no %s is free in %s now; nothing was launched", r.Type, r.Region)
	if !slices.Contains(regions, r.Region) {
		slices.Sort(regions)
		e.Why = fmt.Sprintf("nothing at all is free in a region called %q; there is capacity in %s", r.Region, strings.Join(regions, ", "))
	}
	if len(o.Regions) > 0 {
		e.Next = fmt.Sprintf("launch_lease with region %q, where it is free, or without a region", o.Regions[0])
	}
	return e
}

// denied is denied, and names the leases that stand in the way where their number does.
func (m *Manager) denied(ctx context.Context, d policy.Decision, principal string) *Error {
	e := denied(d)
	full := slices.ContainsFunc(d.Violations, func(v policy.Violation) bool {
		return strings.HasSuffix(v.Rule, "max_leases") || strings.HasSuffix(v.Rule, "max_gpus")
	})
	live, err := m.Store.Live(ctx)
	if !full || err != nil {
		return e
	}
	var held []string
	others := false
	for _, l := range live {
		switch {
		case !l.Counts():
		case l.Principal != principal:
			others = true
		case len(held) < 5:
			held = append(held, fmt.Sprintf("%s (%s, %s)", l.ID, l.Type, l.State))
		}
	}
	switch {
	case len(held) == 0 && others && d.Nearest == nil:
		e.Next = "call again when a lease of another principal has ended, or have the policy changed by its owner"
	case len(held) > 0:
		e.Next = "stop_lease for one that is not needed any more: " + strings.Join(held, ", ")
	}
	return e
}

func denied(d policy.Decision) *Error {
	e := &Error{Code: Code(d.Code()), Message: "the policy does not allow this launch; nothing was launched", Why: d.Explain(), Next: "ask for what the policy allows, or have it changed by its owner"}
	if n := d.Nearest; n != nil && !n.Approval {
		e.Next = fmt.Sprintf("launch_lease with type %q, region %q and ttl_minutes %d would pass (%s at most)", n.Type, n.Region, int(n.TTL/time.Minute), n.WorstCase)
	}
	return e
}
