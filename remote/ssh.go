package remote

import (
	"fmt"
	"net"
	"strings"

	"golang.org/x/crypto/ssh/knownhosts"
)

// KnownHosts is the known_hosts file for t: a line with its address and pinned host key, and one more while that is
// being rotated. It ends in a newline.
func KnownHosts(t Target) string {
	addr := []string{knownhosts.Normalize(t.Addr)}
	text := knownhosts.Line(addr, t.HostKey) + "\n"
	if t.NextHostKey != nil {
		text += knownhosts.Line(addr, t.NextHostKey) + "\n"
	}
	return text
}

// SSHConfig is an ssh_config entry, ending in a newline, by which "ssh alias" reaches t with the key in keyPath and
// the host keys in knownHostsPath and no others.
func SSHConfig(alias string, t Target, keyPath, knownHostsPath string) string {
	host, port, err := net.SplitHostPort(t.Addr)
	if err != nil {
		host, port = t.Addr, "22"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Host %s\n", alias)
	for _, option := range [][2]string{
		{"HostName", host},
		{"Port", port},
		{"User", t.User},
		{"IdentityFile", configWord(keyPath)},
		{"IdentitiesOnly", "yes"},
		{"UserKnownHostsFile", configWord(knownHostsPath)},
		{"GlobalKnownHostsFile", "none"},
		{"HostKeyAlgorithms", strings.Join(hostKeyAlgorithms(t.HostKey), ",")},
		{"StrictHostKeyChecking", "yes"},
		{"ForwardAgent", "no"},
		{"ServerAliveInterval", "15"},
	} {
		fmt.Fprintf(&b, "    %s %s\n", option[0], option[1])
	}
	return b.String()
}

// configWord makes a file name one word of an ssh_config, in which "%" begins a token.
func configWord(name string) string {
	name = strings.ReplaceAll(name, "%", "%%")
	if !strings.ContainsAny(name, " \t\"'\\#") {
		return name
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
}
