package main

import (
	"fmt"
	"strings"

	"github.com/gpulease/gpulease/policy"
)

// networkNotes is what `policy check` says of how machines are reached: what can be
// seen from here, and what only the tailnet or the account could tell.
func (s *settings) networkNotes(n policy.Network) []string {
	var notes, open []string
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	switch {
	case n.Joins():
		server := "Tailscale's server"
		if n.TailscaleServer != "" {
			server = n.TailscaleServer
		}
		note("network: machines join the tailnet of %s as %s, and are reached there alone", server, strings.Join(n.TailscaleTags, ", "))
		key, unchecked := s.authKeyNote()
		notes = append(notes, key)
		open = append(open, unchecked...)
		open = append(open, "whether this computer is in the tailnet and may reach those tags")
	case n.TailscaleServer != "":
		note("warning: network.tailscale_server does nothing without network.tailscale_tags: machines are reached by their public addresses")
	}
	switch {
	case n.FirewallRuleset != "":
		note("network: machines are launched with the firewall ruleset %q", n.FirewallRuleset)
		open = append(open, "whether the account has that ruleset, in which regions, and what it lets in")
	case n.Joins():
		note("network: no firewall_ruleset is named, so the account's own rules decide who reaches public SSH")
	}
	if len(open) > 0 {
		note("not checked: %s (gpulease doctor asks)", strings.Join(open, "; "))
	}
	return notes
}

// authKeyNote says whether there is a key with which machines may join, as far as that
// can be known without making one, and what is left open.
func (s *settings) authKeyNote() (note string, open []string) {
	switch s.authKeySource() {
	case authKeyCommandVariable:
		return "network: the key for it comes from " + authKeyCommandVariable, []string{"whether that command gives a key (it was not run, it may make one)"}
	case authKeyFileVariable:
		if _, err := s.fileAuthKey(); err != nil {
			return "warning: nothing can be launched with this key for it: " + err.Error(), nil
		}
		return "network: the key for it comes from " + authKeyFileVariable, []string{"whether that key is still good and may give those tags"}
	}
	return fmt.Sprintf("warning: %v here, and where the server has none either nothing can be launched", errNoAuthKey), nil
}
