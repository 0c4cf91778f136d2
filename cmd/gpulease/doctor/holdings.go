package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/policy"
)

// Limits of an account at Lambda, as its documentation has them.
const (
	maxKeys        = 1024
	maxFilesystems = 24
	maxRules       = 20 // with more, launches may fail
)

// sshPort is where Lambda's machines listen, wherever a simulation's may.
const sshPort = 22

// firewall looks for a rule that lets us in. The rules of the account and the
// global ruleset both hold, and a rule can only open.
func (x *examination) firewall() {
	rules, global := x.account.rules, x.account.global
	if rules.err != nil && global.err != nil {
		x.unread("firewall", rules.err)
		return
	}
	const check = "firewall"
	var narrow []string
	all := slices.Concat(rules.got, global.got.Rules)
	joins := x.policy != nil && x.policy.Network.Joins()
	for _, r := range x.named() {
		if !joins {
			all = append(all, r.Rules...)
		}
	}
	for _, r := range all {
		if !opens(r, sshPort) {
			continue
		}
		from, err := netip.ParsePrefix(r.SourceNetwork)
		if err == nil && from.Bits() == 0 && !joins {
			x.ok(check, Network, "port %d is open to everybody, so to us (and only a lease's own key gets in)", sshPort)
			return
		}
		if !slices.Contains(narrow, r.SourceNetwork) {
			narrow = append(narrow, r.SourceNetwork)
		}
	}
	if err := firstError(rules.err, global.err); err != nil {
		x.unread(check, err) // the other half may hold the rule
		return
	}
	if joins {
		x.publicSSH(narrow)
		return
	}
	if len(narrow) > 0 {
		x.warn(check, Network, "compare with this computer's public address; the console's firewall page changes the rules",
			"port %d is open to %s only; whether that is us cannot be told from here", sshPort, names(narrow))
		return
	}
	x.fail(check, Network, "open TCP port 22 to this computer's public address on the console's firewall page",
		"no rule opens port %d: leases would boot, cost money and never be reached", sshPort)
}

func opens(r lambda.FirewallRule, port int) bool {
	if r.Protocol != lambda.ProtocolTCP && r.Protocol != lambda.ProtocolAll {
		return false
	}
	return r.PortRange == nil || r.PortRange[0] <= port && port <= r.PortRange[1]
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// pricePerGiBMonth is what Lambda charges for used space on a filesystem.
const pricePerGiBMonth = policy.Money(200_000)

// filesystems reports what is billed although no lease uses it. Leases do not
// use filesystems.
func (x *examination) filesystems() {
	if err := x.account.filesystems.err; err != nil {
		x.unread("filesystems", err)
		return
	}
	var list []string
	idle, sum := 0, policy.Money(0)
	for _, f := range x.account.filesystems.got {
		size := "size unknown"
		if f.BytesUsed != nil {
			month := monthly(*f.BytesUsed)
			sum += month
			size = fmt.Sprintf("%d GiB, about %s a month", *f.BytesUsed>>30, month)
		}
		if !f.IsInUse {
			idle++
			size += ", not in use"
		}
		list = append(list, fmt.Sprintf("%s in %s (%s)", f.Name, f.Region.Name, size))
	}
	switch {
	case len(list) == 0:
		x.ok("filesystems", Billing, "none in the account")
	case idle == 0:
		x.ok("filesystems", Billing, "%s, about %s a month until deleted: %s", count(len(list), "filesystem"), sum, names(list))
	default:
		x.warn("filesystems", Billing, "delete what is not needed in the console", "%s, about %s a month until deleted, used or not: %s", count(len(list), "filesystem"), sum, names(list))
	}
}

// monthly is what so much used space costs a month, rounded down to a cent.
func monthly(bytes int64) policy.Money {
	const cent = policy.Dollar / 100
	return policy.Money(max(bytes, 0)>>20) * pricePerGiBMonth / 1024 / cent * cent
}

// limits compares the account with what Lambda allows.
func (x *examination) limits() {
	var near []string
	full := false
	look := func(what string, n, limit int) {
		if n >= limit-limit/20 {
			near = append(near, fmt.Sprintf("%d of %d %s", n, limit, what))
			full = full || n >= limit
		}
	}
	if x.account.keys.err != nil {
		x.unread("limits", x.account.keys.err)
		return
	}
	look("SSH keys", len(x.account.keys.got), maxKeys)
	look("filesystems", len(x.account.filesystems.got), maxFilesystems)
	if n := max(len(x.account.rules.got), len(x.account.global.got.Rules)); n > maxRules {
		near, full = append(near, fmt.Sprintf("%d firewall rules, and above %d launches may fail", n, maxRules)), true
	}
	const mend = "remove what is not needed in the console"
	switch {
	case full && len(x.account.keys.got) >= maxKeys:
		x.fail("limits", Quota, mend, "used up: %s; a launch needs a new SSH key", strings.Join(near, ", "))
	case len(near) > 0:
		x.warn("limits", Quota, mend, "nearly or wholly used up: %s", strings.Join(near, ", "))
	default:
		x.ok("limits", Quota, "%d of %d SSH keys, %d of %d filesystems (the quota of instances is not shown by the API)",
			len(x.account.keys.got), maxKeys, len(x.account.filesystems.got), maxFilesystems)
	}
}
