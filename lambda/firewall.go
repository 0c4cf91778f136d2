package lambda

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"
)

// Protocol is what a firewall rule is about.
type Protocol string

// The protocols.
const (
	ProtocolTCP  Protocol = "tcp"
	ProtocolUDP  Protocol = "udp"
	ProtocolICMP Protocol = "icmp"
	ProtocolAll  Protocol = "all"
)

// RegionWithoutFirewall is where firewall rules have no effect, by the service's document.
const RegionWithoutFirewall = "us-south-1"

// FirewallRule lets something in. Rules have no effect in [RegionWithoutFirewall].
type FirewallRule struct {
	Protocol      Protocol   `json:"protocol"`
	PortRange     *PortRange `json:"port_range,omitempty"` // required, but nil for ICMP
	SourceNetwork string     `json:"source_network"`       // IPv4 in CIDR notation; a bare address is a /32
	Description   string     `json:"description"`          // at most 128 characters
}

// PortRange is the first and the last port, 1 to 65535.
type PortRange [2]int

// UnmarshalJSON refuses a list that is not of two numbers, since a range that is read short would be another rule.
func (p *PortRange) UnmarshalJSON(b []byte) error {
	var ports []int
	if err := json.Unmarshal(b, &ports); err != nil {
		return fmt.Errorf("port range: %w", err)
	}
	if len(ports) != 2 {
		return fmt.Errorf("port range has %d numbers, not 2", len(ports))
	}
	*p = PortRange{ports[0], ports[1]}
	return nil
}

// Check finds what the service would refuse by its document.
func (r FirewallRule) Check() error {
	switch r.Protocol {
	case ProtocolICMP:
		if r.PortRange != nil {
			return errors.New("a rule for icmp has no port range")
		}
	case ProtocolTCP, ProtocolUDP, ProtocolAll:
		if r.PortRange == nil {
			return fmt.Errorf("a rule for %s needs a port range", r.Protocol)
		}
		if p := *r.PortRange; p[0] < 1 || p[0] > p[1] || p[1] > 65535 {
			return fmt.Errorf("port range %d-%d is not within 1-65535", p[0], p[1])
		}
	default:
		return fmt.Errorf("protocol %q is not tcp, udp, icmp or all", r.Protocol)
	}
	addr, err := netip.ParseAddr(r.SourceNetwork)
	if err != nil {
		var prefix netip.Prefix
		if prefix, err = netip.ParsePrefix(r.SourceNetwork); err == nil {
			addr = prefix.Addr()
		}
	}
	if err != nil || !addr.Is4() {
		return fmt.Errorf("source network %q is not IPv4 in CIDR notation", r.SourceNetwork)
	}
	return length("description", r.Description, 0, 128)
}

func checkRules(rules []FirewallRule) error {
	for i, r := range rules {
		if err := r.Check(); err != nil {
			return fmt.Errorf("rule %d: %w", i+1, err)
		}
	}
	return nil
}

func cloneRules(rules []FirewallRule) []FirewallRule {
	rules = slices.Clone(rules)
	for i := range rules {
		rules[i].PortRange = clonePointer(rules[i].PortRange)
	}
	return rules
}

// some makes an absent list an empty one: the service wants a list.
func some[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}

// FirewallRules lists the account's inbound rules.
func (c *Client) FirewallRules(ctx context.Context) ([]FirewallRule, error) {
	rules, err := list[FirewallRule](ctx, c, call{op: OpFirewallRules, method: http.MethodGet, path: "/firewall-rules", safe: true}, nil)
	if err != nil {
		return nil, err
	}
	return cloneRules(rules), nil
}

// SetFirewallRules replaces all of the account's inbound rules and returns the new ones. It is sent once.
func (c *Client) SetFirewallRules(ctx context.Context, rules []FirewallRule) ([]FirewallRule, error) {
	k := call{op: OpSetFirewallRules, method: http.MethodPut, path: "/firewall-rules", class: ClassChange, body: struct {
		Data []FirewallRule `json:"data"` // requests of this one operation are wrapped like answers
	}{some(rules)}}
	if err := checkRules(rules); err != nil {
		return nil, c.invalid(k, err)
	}
	return listOnce[FirewallRule](ctx, c, k, nil)
}

// FirewallRuleset is a named set of rules that instances of its region can be launched with.
type FirewallRuleset struct {
	ID          string         `json:"id"`
	Name        string         `json:"name"`
	Region      Region         `json:"region"`
	Rules       []FirewallRule `json:"rules"`
	Created     time.Time      `json:"created"` // zero when the service's text is not a time
	InstanceIDs []string       `json:"instance_ids"`
}

// UnmarshalJSON takes a time without a zone too.
func (f *FirewallRuleset) UnmarshalJSON(b []byte) error {
	type plain FirewallRuleset
	in := struct {
		*plain
		Created looseTime `json:"created"`
	}{plain: (*plain)(f)}
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	f.Created = in.Created.t
	return nil
}

func (f *FirewallRuleset) check() error {
	if f.ID == "" {
		return errors.New("a firewall ruleset has no id")
	}
	return nil
}

// GlobalFirewallRuleset is the set of rules that holds in all regions.
type GlobalFirewallRuleset struct {
	ID    string         `json:"id"` // "global"
	Name  string         `json:"name"`
	Rules []FirewallRule `json:"rules"`
}

func (g *GlobalFirewallRuleset) check() error {
	if g.ID != globalRuleset {
		return errors.New("it is not the global ruleset")
	}
	return nil
}

const (
	globalRuleset = "global"
	rulesetsPath  = "/firewall-rulesets"
)

// FirewallRulesets lists the rulesets of the account but the global one.
func (c *Client) FirewallRulesets(ctx context.Context) ([]FirewallRuleset, error) {
	k := call{op: OpFirewallRulesets, method: http.MethodGet, path: rulesetsPath, safe: true}
	all, err := list(ctx, c, k, (*FirewallRuleset).check)
	for i := range all {
		all[i].Rules, all[i].InstanceIDs = cloneRules(all[i].Rules), slices.Clone(all[i].InstanceIDs)
	}
	return all, err
}

// FirewallRuleset fetches one ruleset by its id.
func (c *Client) FirewallRuleset(ctx context.Context, id string) (FirewallRuleset, error) {
	k := call{op: OpFirewallRuleset, method: http.MethodGet, safe: true}
	if err := k.atRuleset(id); err != nil {
		return FirewallRuleset{}, c.invalid(k, err)
	}
	return object(ctx, c, k, (*FirewallRuleset).check)
}

// CreateFirewallRuleset makes a ruleset in a region. The name has at most 64 characters. It is sent once.
func (c *Client) CreateFirewallRuleset(ctx context.Context, name, region string, rules []FirewallRule) (FirewallRuleset, error) {
	k := call{op: OpCreateFirewallRuleset, method: http.MethodPost, path: rulesetsPath, class: ClassChange, body: struct {
		Name   string         `json:"name"`
		Region string         `json:"region"`
		Rules  []FirewallRule `json:"rules"`
	}{name, region, some(rules)}}
	err := length("name", name, 1, 64)
	if err == nil && region == "" {
		err = errors.New("region is missing")
	}
	if err == nil {
		err = checkRules(rules)
	}
	if err != nil {
		return FirewallRuleset{}, c.invalid(k, err)
	}
	return object(ctx, c, k, (*FirewallRuleset).check)
}

// RulesetChange is what [Client.UpdateFirewallRuleset] changes: nil leaves a part as it is.
type RulesetChange struct {
	Name  *string         `json:"name,omitempty"`
	Rules *[]FirewallRule `json:"rules,omitempty"` // replaces all rules
}

// UpdateFirewallRuleset changes the name or the rules of a ruleset. It is sent once.
func (c *Client) UpdateFirewallRuleset(ctx context.Context, id string, change RulesetChange) (FirewallRuleset, error) {
	k := call{op: OpUpdateFirewallRuleset, method: http.MethodPatch, class: ClassChange}
	err := k.atRuleset(id)
	if err == nil && change.Name != nil {
		err = length("name", *change.Name, 0, 64)
	}
	if err == nil && change.Rules != nil {
		rules := some(*change.Rules) // null is not a list
		change.Rules, err = &rules, checkRules(rules)
	}
	if err != nil {
		return FirewallRuleset{}, c.invalid(k, err)
	}
	k.body = change
	return object(ctx, c, k, (*FirewallRuleset).check)
}

// DeleteFirewallRuleset deletes a ruleset by its id. It is repeated where that may help, so [IsNotFound] can mean that an
// earlier attempt deleted it. One that instances use is refused with [CodeFirewallRulesetInUse].
func (c *Client) DeleteFirewallRuleset(ctx context.Context, id string) error {
	k := call{op: OpDeleteFirewallRuleset, method: http.MethodDelete, class: ClassChange, safe: true}
	if err := k.atRuleset(id); err != nil {
		return c.invalid(k, err)
	}
	_, err := object[struct{}](ctx, c, k, nil)
	return err
}

// GlobalFirewallRuleset fetches the ruleset that holds everywhere.
func (c *Client) GlobalFirewallRuleset(ctx context.Context) (GlobalFirewallRuleset, error) {
	k := call{op: OpGlobalFirewallRuleset, method: http.MethodGet, path: rulesetsPath + "/" + globalRuleset, safe: true}
	return object(ctx, c, k, (*GlobalFirewallRuleset).check)
}

// UpdateGlobalFirewallRuleset replaces the rules that hold everywhere. It is sent once.
func (c *Client) UpdateGlobalFirewallRuleset(ctx context.Context, rules []FirewallRule) (GlobalFirewallRuleset, error) {
	k := call{op: OpUpdateGlobalRuleset, method: http.MethodPatch, path: rulesetsPath + "/" + globalRuleset, class: ClassChange,
		body: struct {
			Rules []FirewallRule `json:"rules"`
		}{some(rules)}}
	if err := checkRules(rules); err != nil {
		return GlobalFirewallRuleset{}, c.invalid(k, err)
	}
	return object(ctx, c, k, (*GlobalFirewallRuleset).check)
}

// atRuleset sets the path. The global ruleset has operations of its own, and a slip must not lead to it.
func (k *call) atRuleset(id string) (err error) {
	if id == globalRuleset {
		return errors.New("the global ruleset has calls of its own")
	}
	k.path, err = pathWith(rulesetsPath+"/", id)
	return err
}
