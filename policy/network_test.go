package policy_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/policy"
)

const networked = `network:
  tailscale_tags: [tag:gpulease, gpu]
  tailscale_server: https://headscale.example.org
  firewall_ruleset: no public ssh
`

func TestNetworkOfTheFile(t *testing.T) {
	p, err := policy.Parse("/p.yaml", []byte(networked))
	require.NoError(t, err)
	require.Equal(t, policy.Network{
		TailscaleTags: []string{"tag:gpulease", "tag:gpu"}, TailscaleServer: "https://headscale.example.org", FirewallRuleset: "no public ssh",
	}, p.Network)
	require.True(t, p.Network.Joins())
	require.False(t, policy.Default().Network.Joins(), "machines join only where that is asked for")

	require.NotEqual(t, policy.Default().Hash(), p.Hash())
	other, err := policy.Parse("/other.yaml", []byte("network: {firewall_ruleset: no public ssh, tailscale_server: https://headscale.example.org, tailscale_tags: [gpu, gpulease]}"))
	require.NoError(t, err)
	require.Equal(t, p.Hash(), other.Hash(), "the order of tags means nothing")

	c := p.Clone()
	c.Network.TailscaleTags[0] = "tag:x"
	require.Equal(t, "tag:gpulease", p.Network.TailscaleTags[0], "a clone is free to be changed")
}

func TestNetworkThatIsSetOutsideOfTheFile(t *testing.T) {
	p, err := policy.Parse("/p.yaml", []byte(networked))
	require.NoError(t, err)
	p, err = p.With("network.tailscale_tags", "ci, tag:gpu", "flag --policy-set")
	require.NoError(t, err)
	p, err = p.With("network.firewall_ruleset", "none", "flag --policy-set")
	require.NoError(t, err)
	require.Equal(t, []string{"tag:ci", "tag:gpu"}, p.Network.TailscaleTags)
	require.Empty(t, p.Network.FirewallRuleset)
	p, err = p.With("network.tailscale_tags", "", "flag --policy-set")
	require.NoError(t, err)
	require.False(t, p.Network.Joins())
	for _, bad := range [][2]string{{"network.tailscale_tags", "a b"}, {"network.tailscale_server", "headscale"}, {"network.firewall", "x"}, {"network.firewall_ruleset", ""}} {
		_, err = p.With(bad[0], bad[1], "env X")
		require.ErrorContains(t, err, "env X: "+bad[0])
	}
}

func TestNetworkErrorsHaveTheirPlace(t *testing.T) {
	for text, want := range map[string]string{
		"network:\n  tailscale_tags: [a, b_c]\n":           `/p.yaml:2:23: network.tailscale_tags: "b_c" is no tag: want one such as gpulease or "tag:gpulease"`,
		"network:\n  tailscale_tags: tag:a\n":              "/p.yaml:2:19: network.tailscale_tags: want a list such as [gpulease], not a single value",
		"network:\n  tags: []\n":                           `/p.yaml:2:3: unknown key "network.tags": the keys here are tailscale_tags, tailscale_server, firewall_ruleset`,
		"network:\n  tailscale_server: http://a.example\n": `/p.yaml:2:21: network.tailscale_server: "http://a.example" is not possible: want a URL such as https://headscale.example.org, or none`,
	} {
		_, err := policy.Parse("/p.yaml", []byte(text))
		require.EqualError(t, err, want)
	}
}
