package policy_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/policy"
)

func schemaAccepts(t *testing.T, file string) error {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(policy.Schema())))
	require.NoError(t, err)
	compiler := jsonschema.NewCompiler()
	require.NoError(t, compiler.AddResource("policy.json", doc))
	schema, err := compiler.Compile("policy.json")
	require.NoError(t, err)

	text, err := yaml.YAMLToJSON([]byte(file))
	require.NoError(t, err)
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	require.NoError(t, err)
	return schema.Validate(value)
}

func TestSchemaAgreesWithTheLoader(t *testing.T) {
	require.NoError(t, schemaAccepts(t, policy.Starter()))
	for _, c := range []struct {
		file string
		ok   bool
	}{
		{"caps: {per_day: 5, per_lease: none, per_week: $1.25, burn_per_hour: 0.5}", true},
		{"caps: {per_day: 0}", false},
		{"caps: {per_day: -1}", false},
		{"caps: {per_day: all}", false},
		{"caps: {per_dya: 1}", false},
		{"max_ttl: 8h", true},
		{"max_ttl: 1h30m", true},
		{"max_ttl: 8", false},
		{"max_ttl: none", false},
		{"max_ttl: 30m1h", false},
		{"idle_timeout: none", true},
		{"max_leases: 0", false},
		{"max_leases: none", true},
		{"max_leases: 1.5", false},
		{"approve_above: 0", true},
		{"approve_above: -1", false},
		{"types: {allow: []}", false},
		{"types: {deny: []}", true},
		{"types: {deny: ['a b']}", false},
		{"types: gpu", false},
		{"require_guard: maybe", false},
		{"principals: {ci: {caps: {per_day: 5}}}", true},
		{"principals: {ci: {time_zone: UTC}}", false},
		{"principals: {ci: {caps: {x: 5}}}", false},
		{"network: {tailscale_tags: [gpulease, 'tag:gpu-1'], tailscale_server: https://headscale.example.org:8443, firewall_ruleset: no ssh}", true},
		{"network: {tailscale_tags: [], tailscale_server: none, firewall_ruleset: none}", true},
		{"network: {tailscale_tags: gpulease}", false},
		{"network: {tailscale_tags: [tag:gpulease]}", false},
		{"network: {tailscale_tags: [-a]}", false},
		{"network: {tailscale_tags: ['tag:a;reboot']}", false},
		{"network: {tailscale_server: 'http://headscale.example.org'}", false},
		{"network: {tailscale_server: 'https://a$(reboot)'}", false},
		{"network: {firewall_ruleset: ''}", false},
		{"network: {tailscale: true}", false},
		{"principals: {ci: {network: {firewall_ruleset: closed}}}", false},
		{"nope: 1", false},
	} {
		_, err := policy.Parse("/p.yaml", []byte(c.file))
		require.Equal(t, c.ok, err == nil, "loader: %s: %v", c.file, err)
		err = schemaAccepts(t, c.file)
		require.Equal(t, c.ok, err == nil, "schema: %s: %v", c.file, err)
	}
}

// Every property of the schema must be a key that the loader knows, and the other way round.
func TestSchemaHasTheKeysOfTheLoader(t *testing.T) {
	type node struct {
		Ref        string           `json:"$ref"`
		Properties map[string]*node `json:"properties"`
	}
	var root struct {
		node
		Defs map[string]*node `json:"$defs"`
	}
	require.NoError(t, json.Unmarshal(policy.Schema(), &root))
	keys := map[string]bool{}
	var walk func(prefix string, n *node)
	walk = func(prefix string, n *node) {
		if name, ok := strings.CutPrefix(n.Ref, "#/$defs/"); ok {
			n = root.Defs[name]
		}
		if len(n.Properties) == 0 {
			keys[prefix] = true
		}
		for name, inner := range n.Properties {
			walk(strings.TrimPrefix(prefix+"."+name, "."), inner)
		}
	}
	walk("", &root.node)
	delete(keys, "principals")

	var shown strings.Builder
	require.NoError(t, policy.Default().Show(&shown))
	_, table, _ := strings.Cut(shown.String(), "\n\n")
	known := map[string]bool{}
	for line := range strings.Lines(table) {
		known[strings.Fields(line)[0]] = true
	}
	require.Equal(t, known, keys)
}
