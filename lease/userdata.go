package lease

import (
	"bytes"
	"fmt"

	"github.com/goccy/go-yaml"
)

// cloudConfig is the part of cloud-init's configuration that a lease uses: the
// machine gets a host key that we already know, so that even the first
// connection is verified.
type cloudConfig struct {
	DeleteKeys  bool     `yaml:"ssh_deletekeys"`
	GenKeyTypes []string `yaml:"ssh_genkeytypes"`
	Keys        struct {
		Private string `yaml:"ed25519_private"`
		Public  string `yaml:"ed25519_public"`
	} `yaml:"ssh_keys"`
}

// userData is the cloud-init document for a host key pair.
func userData(privatePEM, authorizedKey string) (string, error) {
	c := cloudConfig{DeleteKeys: true, GenKeyTypes: []string{}}
	c.Keys.Private, c.Keys.Public = privatePEM, authorizedKey
	var b bytes.Buffer
	b.WriteString("#cloud-config\n")
	// A literal block keeps the key's final newline, without which sshd refuses it.
	if err := yaml.NewEncoder(&b, yaml.UseLiteralStyleIfMultiline(true)).Encode(c); err != nil {
		return "", fmt.Errorf("write the cloud-init document: %w", err)
	}
	return b.String(), nil
}
