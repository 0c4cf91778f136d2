package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Network is how machines are reached. The zero value is by their public addresses, under the account's own firewall rules.
type Network struct {
	// TailscaleTags are what machines join the tailnet with, each "tag:name"; the file may leave "tag:" out. Without any,
	// machines do not join.
	TailscaleTags []string
	// TailscaleServer is the URL of the tailnet's control server; "" is Tailscale's.
	TailscaleServer string
	// FirewallRuleset names a ruleset of the account that machines are launched with; "" for none.
	FirewallRuleset string
}

// Joins reports whether machines join a tailnet, and are reached there.
func (n Network) Joins() bool { return len(n.TailscaleTags) > 0 }

func (n Network) clone() Network {
	n.TailscaleTags = slices.Clone(n.TailscaleTags)
	return n
}

// canonical is n with its tags in order, or nil where nothing is set.
func (n Network) canonical() *Network {
	n = n.clone()
	slices.Sort(n.TailscaleTags)
	if n.TailscaleTags = slices.Compact(n.TailscaleTags); !n.Joins() && n.TailscaleServer == "" && n.FirewallRuleset == "" {
		return nil
	}
	return &n
}

const keyNetwork = "network"

// Texts that the loader takes. All of them are safe in a shell, and a tag in a list that commas separate.
const (
	tagPattern     = `^(tag:)?[A-Za-z][A-Za-z0-9-]{0,62}$`
	serverPattern  = `^https://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?/?$`
	rulesetPattern = `^[ -~]{1,64}$`
)

var (
	tagForms     = regexp.MustCompile(tagPattern)
	serverForms  = regexp.MustCompile(serverPattern)
	rulesetForms = regexp.MustCompile(rulesetPattern)
)

// networkKey is one setting of Network: how the file spells it, how its text is read, and how it is shown.
type networkKey struct {
	name string
	list bool
	set  func(n *Network, values []string) (bad int, err error) // one value unless it is a list; bad as with setList
	show func(*Network) string
}

var networkKeys = []networkKey{
	{"tailscale_tags", true, setTags, func(n *Network) string { return shown(strings.Join(n.TailscaleTags, ", ")) }},
	{"tailscale_server", false, setText(serverForms, "want a URL such as https://headscale.example.org, or none", func(n *Network) *string { return &n.TailscaleServer }),
		func(n *Network) string { return shown(n.TailscaleServer) }},
	{"firewall_ruleset", false, setText(rulesetForms, "want the name of a firewall ruleset, at most 64 characters, or none", func(n *Network) *string { return &n.FirewallRuleset }),
		func(n *Network) string { return shown(n.FirewallRuleset) }},
}

func shown(text string) string {
	if text == "" {
		return none
	}
	return text
}

func setTags(n *Network, tags []string) (bad int, err error) {
	if len(tags) > maxEntries {
		return -1, fmt.Errorf("more than %d tags", maxEntries)
	}
	tags = slices.Clone(tags)
	for i, t := range tags {
		if !tagForms.MatchString(t) {
			return i, fmt.Errorf("%q is no tag: want one such as gpulease or \"tag:gpulease\"", clip(t))
		}
		tags[i] = "tag:" + strings.TrimPrefix(t, "tag:")
	}
	n.TailscaleTags = tags
	return -1, nil
}

func setText(forms *regexp.Regexp, want string, at func(*Network) *string) func(*Network, []string) (int, error) {
	return func(n *Network, values []string) (int, error) {
		text := strings.Join(values, ", ")
		switch {
		case text == none:
			text = ""
		case !forms.MatchString(text) || strings.TrimSpace(text) != text:
			return -1, fmt.Errorf("%q is not possible: %s", clip(text), want)
		}
		*at(n) = text
		return -1, nil
	}
}

// put sets one key.
func (n *Network) put(name string, values []string) (bad int, err error) {
	i := slices.IndexFunc(networkKeys, func(k networkKey) bool { return k.name == name })
	if i < 0 {
		return -1, fmt.Errorf("no such rule")
	}
	return networkKeys[i].set(n, values)
}

// network reads the section of that name.
func (r *reader) network(e entry) error {
	list, err := r.entries(e.value, e.at, keyNetwork)
	if err != nil {
		return err
	}
	for _, inner := range list {
		i := slices.IndexFunc(networkKeys, func(k networkKey) bool { return k.name == inner.name })
		if i < 0 {
			var known []string
			for _, k := range networkKeys {
				known = append(known, k.name)
			}
			return r.fail(inner.at, "unknown key %q: the keys here are %s", clip(keyNetwork+"."+inner.name), strings.Join(known, ", "))
		}
		k, rule := networkKeys[i], keyNetwork+"."+inner.name
		if k.list {
			err = r.list(inner, rule, "tags", func(tags []string) (int, error) { return k.set(&r.policy.Network, tags) })
		} else {
			err = r.scalar(inner, rule, func(text string) error {
				_, err := k.set(&r.policy.Network, []string{text})
				return err
			})
		}
		if err != nil {
			return err
		}
	}
	return nil
}
