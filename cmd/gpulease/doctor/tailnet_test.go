package doctor_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/cmd/gpulease/doctor"
	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lambda/lambdatest"
)

func sshFrom(network string) lambda.FirewallRule {
	return lambda.FirewallRule{Protocol: lambda.ProtocolTCP, PortRange: &lambda.PortRange{22, 22}, SourceNetwork: network}
}

// ruleset makes one that is not doctor's.
func (c *clinic) ruleset(name, region string, rules ...lambda.FirewallRule) {
	c.t.Helper()
	_, err := c.client(c.sim.APIKey()).CreateFirewallRuleset(c.t.Context(), name, region, rules)
	require.NoError(c.t, err)
	c.changed()
}

func TestTailnet(t *testing.T) {
	t.Parallel()
	c := newClinic(t, lambdatest.Config{})
	for _, l := range c.run().Lines {
		require.NotContains(t, l.Check, "tailnet", "nobody asked for one")
	}
	c.policy("network: {tailscale_tags: [gpulease]}")
	require.Equal(t, doctor.Fail, line(t, c.run(), "tailnet key").Finding)

	c.cfg.Tailnet = doctor.Tailnet{KeySource: "GPULEASE_TAILSCALE_AUTHKEY_FILE", KeyErr: errors.New("others may read it"), Up: func(context.Context) error { return errors.New("it is stopped") }}
	r := c.run()
	require.Contains(t, line(t, r, "tailnet key").Text, "others may read it")
	require.Equal(t, doctor.Fail, line(t, r, "tailnet").Finding)
	require.Contains(t, line(t, r, "tailnet").Text, "it is stopped")

	c.cfg.Tailnet = doctor.Tailnet{KeySource: "GPULEASE_TAILSCALE_AUTHKEY_COMMAND", Up: func(context.Context) error { return nil }}
	r = c.run()
	require.Equal(t, doctor.OK, line(t, r, "tailnet key").Finding)
	require.Equal(t, doctor.OK, line(t, r, "tailnet").Finding)
	require.Contains(t, line(t, r, "firewall").Text, "open to 0.0.0.0/0, although machines are reached in the tailnet")

	c.rules(t)
	require.Equal(t, doctor.OK, line(t, c.run(), "firewall").Finding, "that no port is open is as it should be")
}

func TestFirewallRulesetOfThePolicy(t *testing.T) {
	t.Parallel()
	c := newClinic(t, lambdatest.Config{})
	c.cfg.Tailnet = doctor.Tailnet{KeySource: "GPULEASE_TAILSCALE_AUTHKEY_COMMAND"}
	const named = "network: {tailscale_tags: [gpulease], firewall_ruleset: no ssh}\nregions: {allow: [us-east-1, us-west-1]}"
	c.policy(named)
	c.ruleset("no ssh", "us-south-1")
	c.ruleset("another", "us-east-1")
	require.Equal(t, doctor.Fail, line(t, c.run(), "firewall ruleset").Finding, "rules have no effect in us-south-1")

	c.ruleset("no ssh", "us-east-1")
	l := line(t, c.run(), "firewall ruleset")
	require.Equal(t, doctor.Warn, l.Finding)
	require.Contains(t, l.Text, "nothing is launched in other regions: us-west-1")

	c.ruleset("no ssh", "us-west-1")
	r := c.run()
	require.Equal(t, doctor.OK, line(t, r, "firewall ruleset").Finding)
	require.Equal(t, doctor.Warn, line(t, r, "firewall").Finding)
	require.Contains(t, line(t, r, "firewall").Text, `those hold beside the ruleset "no ssh"`)

	c.rules(t)
	require.Equal(t, doctor.OK, line(t, c.run(), "firewall").Finding)

	c.ruleset("no ssh", "us-east-1")
	require.Contains(t, line(t, c.run(), "firewall ruleset").Text, "more than one ruleset")

	// A ruleset may be what lets us in, where machines join no tailnet.
	c.policy("network: {firewall_ruleset: office}\nregions: {allow: [us-east-1]}")
	require.Equal(t, doctor.Fail, line(t, c.run(), "firewall").Finding)
	c.ruleset("office", "us-east-1", sshFrom("192.0.2.0/24"))
	require.Contains(t, line(t, c.run(), "firewall").Text, "open to 192.0.2.0/24 only")

	c.policy("network: {tailscale_tags: [gpulease], firewall_ruleset: office}\nregions: {allow: [us-east-1]}")
	var said []string
	for _, l := range c.run().Lines {
		if l.Check == "firewall ruleset" && l.Finding == doctor.Warn {
			said = append(said, l.Text)
		}
	}
	require.Len(t, said, 1)
	require.Contains(t, said[0], `"office" in us-east-1 opens port 22`)
}
