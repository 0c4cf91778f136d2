package lambdatest

import (
	"net"
	"net/netip"
	"slices"
	"time"
)

const (
	maxRules    = 20 // more than these are stored, but launches fail
	maxRulesets = 100
)

// rule is an inbound firewall rule. The machines' SSH port follows them; it is 22 to
// them, wherever it is.
type rule struct {
	Protocol      string `json:"protocol"`
	PortRange     []int  `json:"port_range,omitempty"`
	SourceNetwork string `json:"source_network"`
	Description   string `json:"description"`
}

type ruleset struct {
	ID, Name, Region string
	Rules            []rule
	Created          time.Time
}

// openRules is what a new account has: SSH and ping from anywhere.
func openRules() []rule {
	return []rule{
		{Protocol: "tcp", PortRange: []int{22, 22}, SourceNetwork: "0.0.0.0/0", Description: "Allow SSH from anywhere"},
		{Protocol: "icmp", SourceNetwork: "0.0.0.0/0", Description: "Allow ping from anywhere"},
	}
}

// withoutFirewall is the region in which rules have no effect.
const withoutFirewall = "us-south-1"

// admits reports whether the firewall lets somebody reach an instance's SSH port: a
// rule of the whole account, or of a ruleset that it was launched with, has to say so.
func (s *Server) admits(id string, from net.Addr) bool {
	source, err := netip.ParseAddrPort(from.String())
	if err != nil {
		return true // no address of the internet
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.instance(id)
	if i == nil || i.Region.Name == withoutFirewall {
		return true
	}
	rules := slices.Clone(s.acct.GlobalRules)
	for _, r := range s.acct.Rulesets {
		if slices.Contains(i.Rulesets, r.ID) {
			rules = append(rules, r.Rules...)
		}
	}
	return slices.ContainsFunc(rules, func(r rule) bool { return r.opensSSH(source.Addr().Unmap()) })
}

func (r rule) opensSSH(source netip.Addr) bool {
	const port = 22
	if r.Protocol != "tcp" && r.Protocol != "all" || len(r.PortRange) != 2 || r.PortRange[0] > port || r.PortRange[1] < port {
		return false
	}
	network, err := netip.ParsePrefix(r.SourceNetwork)
	return err == nil && network.Contains(source)
}

func readRules(f *fields, name string) []rule {
	out := []rule{}
	for _, o := range f.objs(name) {
		for _, n := range []string{"protocol", "source_network", "description"} {
			o.need(n)
		}
		r := rule{Protocol: o.str("protocol", limits{}), Description: o.str("description", limits{max: 128})}
		if o.has("protocol") && !slices.Contains([]string{"tcp", "udp", "icmp", "all"}, r.Protocol) {
			o.problem("protocol", "Input should be 'tcp', 'udp', 'icmp' or 'all'")
		}
		r.PortRange = readPorts(o, r.Protocol)
		if o.has("source_network") {
			text := o.str("source_network", limits{})
			network, ok := parseNetwork(text)
			if !ok {
				o.problem("source_network", "value is not a valid IPv4 network")
			}
			r.SourceNetwork = network
		}
		out = append(out, r)
	}
	return out
}

func readPorts(o *fields, protocol string) []int {
	if !o.has("port_range") {
		if protocol != "icmp" {
			o.problem("port_range", "Field required for this protocol")
		}
		return nil
	}
	ports := o.integers("port_range")
	switch {
	case protocol == "icmp":
		o.problem("port_range", "Not allowed for icmp")
	case len(ports) != 2:
		o.problem("port_range", "List should have 2 items")
	case ports[0] < 1 || ports[1] > 65535 || ports[0] > ports[1]:
		o.problem("port_range", "Ports should be between 1 and 65535, the lower first")
	}
	return ports
}

// parseNetwork takes an IPv4 network, or an address for a network of one.
func parseNetwork(text string) (string, bool) {
	if a, err := netip.ParseAddr(text); err == nil && a.Is4() {
		return netip.PrefixFrom(a, 32).String(), true
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || !p.Addr().Is4() {
		return "", false
	}
	return p.Masked().String(), true
}

func (s *Server) getRules(*call) (any, *apiError) { return s.acct.GlobalRules, nil }

func (s *Server) setRules(c *call) (any, *apiError) {
	f, e := s.object(c)
	if e != nil {
		return nil, e
	}
	f.need("data")
	rules := readRules(f, "data")
	if e := s.finish(c, f); e != nil {
		return nil, e
	}
	s.acct.GlobalRules = rules
	s.auditObject(c.now, "firewall_ruleset", "updated", "global", nil)
	return rules, nil
}

func (s *Server) globalJSON() object {
	return object{"id": "global", "name": "Default Workspace Global Rules", "rules": s.acct.GlobalRules}
}

func (s *Server) getGlobal(*call) (any, *apiError) { return s.globalJSON(), nil }

func (s *Server) updateGlobal(c *call) (any, *apiError) {
	f, e := s.object(c)
	if e != nil {
		return nil, e
	}
	rules, set := readRules(f, "rules"), f.has("rules")
	if e := s.finish(c, f); e != nil {
		return nil, e
	}
	if set {
		s.acct.GlobalRules = rules
		s.auditObject(c.now, "firewall_ruleset", "updated", "global", nil)
	}
	return s.globalJSON(), nil
}

func (s *Server) ruleset(id string) *ruleset {
	for _, r := range s.acct.Rulesets {
		if r.ID == id {
			return r
		}
	}
	return nil
}

func (s *Server) rulesetJSON(r *ruleset, now time.Time) object {
	region, _ := s.acct.Catalog.region(r.Region)
	return object{"id": r.ID, "name": r.Name, "region": region, "rules": r.Rules,
		"created": timestamp(r.Created), "instance_ids": s.guarded(r, now)}
}

func (s *Server) guarded(r *ruleset, now time.Time) []string {
	ids := []string{}
	for _, i := range s.acct.Instances {
		if slices.Contains(i.Rulesets, r.ID) && !i.gone(now) {
			ids = append(ids, i.ID)
		}
	}
	return ids
}

func (s *Server) listRulesets(c *call) (any, *apiError) {
	out := []object{}
	for _, r := range s.acct.Rulesets {
		out = append(out, s.rulesetJSON(r, c.now))
	}
	return out, nil
}

func (s *Server) createRuleset(c *call) (any, *apiError) {
	f, e := s.object(c)
	if e != nil {
		return nil, e
	}
	for _, n := range []string{"name", "region", "rules"} {
		f.need(n)
	}
	r := &ruleset{Name: f.str("name", limits{max: 64}), Region: f.str("region", limits{}), Rules: readRules(f, "rules"), Created: c.now}
	if e := s.finish(c, f); e != nil {
		return nil, e
	}
	if _, ok := s.acct.Catalog.region(r.Region); !ok {
		return nil, refusef(CodeInvalidParameters, "Region %q does not exist", r.Region)
	}
	if len(s.acct.Rulesets) >= maxRulesets {
		return nil, refuse(CodeQuotaExceeded)
	}
	r.ID = s.newID()
	s.acct.Rulesets = append(s.acct.Rulesets, r)
	s.auditObject(c.now, "firewall_ruleset", "created", r.ID, nil)
	return s.rulesetJSON(r, c.now), nil
}

func (s *Server) getRuleset(c *call) (any, *apiError) {
	r := s.ruleset(c.id)
	if r == nil {
		return nil, noRuleset()
	}
	return s.rulesetJSON(r, c.now), nil
}

func (s *Server) updateRuleset(c *call) (any, *apiError) {
	f, e := s.object(c)
	if e != nil {
		return nil, e
	}
	name, rules := f.str("name", limits{max: 64}), readRules(f, "rules")
	if e := s.finish(c, f); e != nil {
		return nil, e
	}
	r := s.ruleset(c.id)
	if r == nil {
		return nil, noRuleset()
	}
	if f.has("name") {
		r.Name = name
	}
	if f.has("rules") {
		r.Rules = rules
	}
	s.auditObject(c.now, "firewall_ruleset", "updated", r.ID, nil)
	return s.rulesetJSON(r, c.now), nil
}

func (s *Server) deleteRuleset(c *call) (any, *apiError) {
	r := s.ruleset(c.id)
	if r == nil {
		return nil, noRuleset()
	}
	if len(s.guarded(r, c.now)) > 0 {
		return nil, refuse(CodeRulesetInUse)
	}
	s.acct.Rulesets = slices.DeleteFunc(s.acct.Rulesets, func(x *ruleset) bool { return x == r })
	s.auditObject(c.now, "firewall_ruleset", "deleted", r.ID, nil)
	return object{}, nil
}
