package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/policy"
)

// Tailnet is the private network that machines join where the policy says so.
type Tailnet interface {
	// Ready says why a machine that joins could not be reached from here. It asks this
	// computer only, and takes no key.
	Ready(ctx context.Context) error
	// AuthKey is a key with which one machine may join. It is taken for each launch
	// anew and kept nowhere.
	AuthKey(ctx context.Context) (lambda.Secret, error)
	// Find is the address of the machine that has joined under a name; the zero Addr
	// while none has.
	Find(ctx context.Context, name string) (netip.Addr, error)
}

// tailnetAddr goes before a lease's address in the tailnet.
const tailnetAddr = "tailnet:"

// InTailnet reports whether the machine is reached in the tailnet, and nowhere else:
// its public address is then of no use, also while it has not joined yet.
func (l Lease) InTailnet() bool { return strings.HasPrefix(l.Addr, tailnetAddr) }

// host is the address at which the machine is reached, "" until it is known.
func (l Lease) host() string { return strings.TrimPrefix(l.Addr, tailnetAddr) }

// reachable refuses a launch whose machine would be billed and never reached from here.
func (m *Manager) reachable(ctx context.Context, n policy.Network) error {
	if !n.Joins() {
		return nil
	}
	if err := m.Tailnet.Ready(ctx); err != nil {
		return &Error{
			Code: CodeSSHUnreachable, Message: "machines are to join the tailnet (network.tailscale_tags in the policy), and from here they could not be reached there, so nothing is launched",
			Why: err.Error(), Next: "a person has to mend that, see gpulease doctor; then call again", Retryable: true, Err: err,
		}
	}
	return nil
}

// firewalled leaves of the quote's regions those in which the policy's firewall ruleset
// can be had, with its id in each. Where none is left, the launch is refused.
func (m *Manager) firewalled(ctx context.Context, n policy.Network, q Quote) (Quote, error) {
	if n.FirewallRuleset == "" || len(q.Regions) == 0 {
		return q, nil
	}
	all, err := m.Cloud.FirewallRulesets(ctx)
	if err != nil {
		return q, cloudError("look up the firewall ruleset", "", err)
	}
	ids, twice := map[string]string{}, map[string]bool{}
	for _, r := range all {
		switch {
		case r.Name != n.FirewallRuleset || r.Region.Name == lambda.RegionWithoutFirewall:
		case ids[r.Region.Name] != "":
			twice[r.Region.Name] = true
		default:
			ids[r.Region.Name] = r.ID
		}
	}
	maps.DeleteFunc(ids, func(region, _ string) bool { return twice[region] })
	wanted := q.Regions
	q.Regions = slices.DeleteFunc(slices.Clone(wanted), func(region string) bool { return ids[region] == "" })
	q.rulesets = ids
	if len(q.Regions) > 0 {
		return q, nil
	}
	e := &Error{
		Code: CodePolicyDenied, Message: fmt.Sprintf("the policy wants the firewall ruleset %q (network.firewall_ruleset), which %s does not have; nothing was launched", n.FirewallRuleset, strings.Join(wanted, ", ")),
		Next: "make a ruleset of that name there in Lambda's console, or have the policy changed by its owner",
	}
	switch {
	case slices.ContainsFunc(wanted, func(region string) bool { return twice[region] }):
		e.Message = fmt.Sprintf("the policy wants the firewall ruleset %q (network.firewall_ruleset), and %s has more than one of that name; nothing was launched", n.FirewallRuleset, strings.Join(slices.Sorted(maps.Keys(twice)), ", "))
		e.Next = "rename one of them in Lambda's console"
	case slices.Contains(wanted, lambda.RegionWithoutFirewall):
		e.Message = fmt.Sprintf("the policy wants the firewall ruleset %q (network.firewall_ruleset), and in %s Lambda's firewall rules have no effect; nothing was launched", n.FirewallRuleset, lambda.RegionWithoutFirewall)
		e.Next = "ask for another region"
	}
	if where := slices.Sorted(maps.Keys(ids)); len(where) > 0 {
		e.Why = "it exists in " + strings.Join(where, ", ")
		e.Next = fmt.Sprintf("launch_lease with a region that has it, such as %q, when this type is free there; or %s", where[0], e.Next)
	} else {
		e.Why = "it exists in no region of the account"
	}
	return q, e
}

// join finds out where in the tailnet a booting machine is, and writes that down for
// every process. While it is not there, phase says so.
func (m *Manager) join(ctx context.Context, l *Lease) (phase string, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeCall)
	defer cancel()
	addr, err := m.Tailnet.Find(ctx, l.KeyName)
	switch {
	case err != nil:
		return "waiting for the machine to join the tailnet, which cannot be seen from here now", err
	case !addr.IsValid():
		return "waiting for the machine to join the tailnet", fmt.Errorf("no %s in the tailnet", l.KeyName)
	}
	found := *l
	found.Addr = tailnetAddr + addr.String()
	m.Crash("tailnet-recording")
	written, err := m.Store.Update(ctx, found, "joined the tailnet as "+addr.String())
	if err != nil {
		return l.Detail, fmt.Errorf("write down the address in the tailnet: %w", err)
	}
	*l = written
	m.Crash("tailnet-recorded")
	m.log.Info("joined the tailnet", "lease", l.ID, "address", addr.String())
	return "", nil
}

// rulesetsIn are the firewall rulesets to launch with in a region.
func (q Quote) rulesetsIn(region string) []lambda.FirewallRulesetRef {
	if q.rulesets == nil {
		return nil
	}
	return []lambda.FirewallRulesetRef{{ID: q.rulesets[region]}}
}

// firstBoot is what cloud-init is told, with a key to the tailnet where the machine is
// to join. It reaches the cloud and nothing else: it is made for this launch alone.
func (m *Manager) firstBoot(ctx context.Context, n policy.Network, l Lease, s secrets) (lambda.Secret, *Error) {
	var j *joining
	if n.Joins() {
		key, err := m.joinKey(ctx)
		if err != nil {
			return lambda.Secret{}, &Error{
				Code: CodeSSHUnreachable, Message: "there is no key with which the machine could join the tailnet; nothing was launched", Why: err.Error(), LeaseID: l.ID, Retryable: true, Err: err,
				Next: "a person has to mend GPULEASE_TAILSCALE_AUTHKEY_COMMAND or GPULEASE_TAILSCALE_AUTHKEY_FILE, see gpulease doctor",
			}
		}
		j = &joining{Network: n, key: key, name: l.KeyName}
	}
	data, err := userData(string(s.host.PrivatePEM), s.host.AuthorizedKey, j)
	if err != nil {
		return lambda.Secret{}, &Error{Code: CodeInternal, Message: "the machine's first configuration could not be written; nothing was launched", LeaseID: l.ID, Err: err}
	}
	return lambda.NewSecret(data), nil
}

// joinKey takes a key, unless we are closing: nothing has been sent yet, so it is not
// waited for.
func (m *Manager) joinKey(ctx context.Context) (lambda.Secret, error) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() {
		select {
		case <-m.closing:
			cancel()
		case <-ctx.Done():
		}
	})
	return m.Tailnet.AuthKey(ctx)
}

// noTailnet is for a program that has no access to a tailnet.
type noTailnet struct{}

var errNoTailnet = errors.New("this program was given no access to a tailnet")

func (noTailnet) Ready(context.Context) error { return errNoTailnet }

func (noTailnet) AuthKey(context.Context) (lambda.Secret, error) {
	return lambda.Secret{}, errNoTailnet
}

func (noTailnet) Find(context.Context, string) (netip.Addr, error) {
	return netip.Addr{}, errNoTailnet
}
