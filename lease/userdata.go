package lease

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
)

// secrets are the key pairs of a lease on their way to the machine.
type secrets struct{ login, host remote.KeyPair }

func (m *Manager) newSecrets() (s secrets, err error) {
	s.login, err = remote.GenerateKey(m.Rand)
	if err == nil {
		s.host, err = remote.GenerateKey(m.Rand)
	}
	if err != nil {
		err = &Error{Code: CodeInternal, Message: "the lease's keys could not be made, so nothing was launched", Err: err}
	}
	return s, err
}

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
	Files    []cloudFile `yaml:"write_files,omitempty"`
	Commands []string    `yaml:"runcmd,omitempty"`
}

type cloudFile struct {
	Path        string `yaml:"path"`
	Permissions string `yaml:"permissions"`
	Content     string `yaml:"content"`
}

// joining is what a machine needs to join a tailnet.
type joining struct {
	policy.Network
	key  lambda.Secret
	name string // its own in the tailnet
}

//go:embed join-tailnet.sh
var joinScript string

// Where the files for it are on the machine: in memory, not on its disk.
const (
	joinFile    = "/run/gpulease/join-tailnet"
	authKeyFile = "/run/gpulease/tailscale-authkey"
)

// userData is the cloud-init document for a host key pair, and for joining a tailnet
// where j is not nil.
func userData(privatePEM, authorizedKey string, j *joining) (string, error) {
	c := cloudConfig{DeleteKeys: true, GenKeyTypes: []string{}}
	c.Keys.Private, c.Keys.Public = privatePEM, authorizedKey
	if j != nil {
		c.Files = []cloudFile{
			// On a line of its own, so that the client knows it in whatever an answer repeats.
			{authKeyFile, "0600", j.key.Reveal() + "\n"},
			{joinFile, "0700", j.script()},
		}
		// A simulated machine is a directory of somebody's computer, which is not to join.
		c.Commands = []string{"[ ! -e " + joinFile + " ] || sh " + joinFile}
	}
	var b bytes.Buffer
	b.WriteString("#cloud-config\n")
	// A literal block keeps the key's final newline, without which sshd refuses it.
	if err := yaml.NewEncoder(&b, yaml.UseLiteralStyleIfMultiline(true)).Encode(c); err != nil {
		return "", fmt.Errorf("write the cloud-init document: %w", err)
	}
	return b.String(), nil
}

// script joins the tailnet. The policy takes no tag and no server that would mean
// something to a shell.
func (j *joining) script() string {
	server := ""
	if j.TailscaleServer != "" {
		server = "--login-server=" + j.TailscaleServer
	}
	return strings.NewReplacer("@NAME@", j.name, "@TAGS@", strings.Join(j.TailscaleTags, ","), "@SERVER@", server, "@KEY@", authKeyFile).Replace(joinScript)
}
