package doctor

import (
	"context"
	"maps"
	"slices"

	"github.com/gpulease/gpulease/lambda"
)

// Tailnet is what doctor knows of the way to machines that join one.
type Tailnet struct {
	KeySource string // the setting that a machine's key comes from, "" where there is none
	// KeyErr is why the key is of no use. A command is not run: it may make a key.
	KeyErr error
	// Up says why this computer is not in the tailnet; nil is taken for "it is".
	Up func(context.Context) error
}

// tailnet says whether machines that join it could be reached from here.
func (x *examination) tailnet(ctx context.Context) {
	if x.policy == nil || !x.policy.Network.Joins() {
		return
	}
	t := x.Config.Tailnet
	const key, net = "tailnet key", "tailnet"
	switch {
	case t.KeySource == "":
		x.fail(key, Auth, "set GPULEASE_TAILSCALE_AUTHKEY_COMMAND or GPULEASE_TAILSCALE_AUTHKEY_FILE for the server (docs/tailscale.md)",
			"machines are to join the tailnet (network.tailscale_tags), and there is no key for it")
	case t.KeyErr != nil:
		x.fail(key, Auth, "mend what the setting names: it has to give a key with which one machine may join, and nothing else", "machines are to join the tailnet, and the key for it is of no use: %v", t.KeyErr)
	case t.KeySource == "GPULEASE_TAILSCALE_AUTHKEY_COMMAND":
		x.ok(key, Auth, "comes from %s, which is run at each launch and was not now", t.KeySource)
	default:
		x.ok(key, Auth, "found in %s; whether it is ephemeral, single-use and not used up cannot be told from here", t.KeySource)
	}
	if t.Up == nil {
		return
	}
	if err := t.Up(ctx); err != nil {
		x.fail(net, Network, "tailscale up, on this computer; where its tailscale program is, GPULEASE_TAILSCALE says (docs/tailscale.md)", "machines are to join the tailnet and could not be reached there from here: %v", err)
		return
	}
	x.ok(net, Network, "this computer is in one; machines join it and are reached there alone")
}

// rulesets says where the ruleset that the policy names is, and so where something can
// be launched.
func (x *examination) rulesets() {
	if x.policy == nil || x.policy.Network.FirewallRuleset == "" {
		return
	}
	const check, mend = "firewall ruleset", "make a ruleset of that name on the console's firewall page, or change network.firewall_ruleset in the policy"
	name := x.policy.Network.FirewallRuleset
	if x.account.rulesets.err != nil {
		x.unread(check, x.account.rulesets.err)
		return
	}
	found := map[string]int{}
	for _, r := range x.named() {
		if r.Region.Name != lambda.RegionWithoutFirewall {
			found[r.Region.Name]++
		}
		if x.policy.Network.Joins() && slices.ContainsFunc(r.Rules, func(r lambda.FirewallRule) bool { return opens(r, sshPort) }) {
			x.warn(check, Network, "remove that rule from the ruleset on the console's firewall page", "%q in %s opens port %d, although machines are reached in the tailnet", name, r.Region.Name, sshPort)
		}
	}
	var missing, twice []string
	for _, region := range x.allowedRegions() {
		if found[region] == 0 {
			missing = append(missing, region)
		}
	}
	for region, n := range found {
		if n > 1 {
			twice = append(twice, region)
		}
	}
	slices.Sort(twice)
	switch has := slices.Sorted(maps.Keys(found)); {
	case len(has) == 0:
		x.fail(check, Policy, mend, "the policy wants %q (network.firewall_ruleset), and no region has a ruleset of that name, so nothing can be launched", name)
	case len(twice) > 0:
		x.warn(check, Policy, "rename one of them on the console's firewall page", "more than one ruleset is called %q in %s, where nothing is launched therefore", name, names(twice))
	case len(missing) > 0:
		x.warn(check, Policy, mend, "%q is in %s; nothing is launched in other regions: %s", name, names(has), names(missing))
	default:
		x.ok(check, Policy, "%q is in every region that is allowed: %s", name, names(has))
	}
}

// named are the rulesets of the name that the policy wants.
func (x *examination) named() []lambda.FirewallRuleset {
	if x.policy == nil || x.policy.Network.FirewallRuleset == "" {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(x.account.rulesets.got), func(r lambda.FirewallRuleset) bool {
		return r.Name != x.policy.Network.FirewallRuleset
	})
}

// publicSSH judges the rules of the whole account where machines are reached in the
// tailnet: what they open stays open, whatever ruleset a machine has beside them.
func (x *examination) publicSSH(open []string) {
	const check = "firewall"
	switch closes := x.policy.Network.FirewallRuleset; {
	case len(open) == 0:
		x.ok(check, Network, "no rule of the whole account opens port %d; machines are reached in the tailnet", sshPort)
	case closes == "":
		x.ok(check, Network, "port %d is open to %s, although machines are reached in the tailnet (and only a lease's own key gets in)", sshPort, names(open))
	default:
		x.warn(check, Network, "remove the rule on the console's firewall page, if nothing else in the account needs it",
			"port %d is open to %s by rules of the whole account, and those hold beside the ruleset %q: a rule can only open", sshPort, names(open), closes)
	}
}
