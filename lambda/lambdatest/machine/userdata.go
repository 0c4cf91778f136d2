package machine

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"golang.org/x/crypto/ssh"
)

// bootPlan is what user_data asks of cloud-init, checked. There are secrets in it.
type bootPlan struct {
	hostKey    ssh.Signer // nil: not given
	hostKeyPEM []byte
	dropKeys   bool // delete the machine's own host key
	newKey     bool // and make a new one
	authorized []ssh.PublicKey
	files      []plannedFile
	script     string // what to run at the end of boot; "" for nothing
	ignored    []string
}

type plannedFile struct {
	path    string // absolute, as user_data has it
	content []byte
	append  bool
	mode    os.FileMode
}

// cloudConfig is the part of cloud-init's configuration that is simulated. Other
// keys are ignored, as cloud-init ignores those of modules that it does not have.
type cloudConfig struct {
	DeleteKeys  *bool             `yaml:"ssh_deletekeys"`
	GenKeyTypes *[]string         `yaml:"ssh_genkeytypes"`
	HostKeys    map[string]string `yaml:"ssh_keys"`
	Authorized  []string          `yaml:"ssh_authorized_keys"`
	Users       []any             `yaml:"users"`
	Files       []struct {
		Path        string `yaml:"path"`
		Content     string `yaml:"content"`
		Encoding    string `yaml:"encoding"`
		Permissions any    `yaml:"permissions"`
		Append      bool   `yaml:"append"`
	} `yaml:"write_files"`
	Commands []any `yaml:"runcmd"`
}

// parseUserData reads user_data. Its errors never quote it.
func parseUserData(text, user string) (*bootPlan, error) {
	switch {
	case strings.TrimSpace(text) == "":
		return &bootPlan{}, nil
	case strings.HasPrefix(text, "#!"):
		return &bootPlan{script: text}, nil
	case !strings.HasPrefix(text, "#cloud-config"):
		return nil, errors.New("user_data begins neither with #cloud-config nor as a script")
	}
	var c cloudConfig
	if err := yaml.Unmarshal([]byte(text), &c); err != nil {
		// The library's message quotes the lines around the mistake.
		var y yaml.Error
		if errors.As(err, &y) && y.GetToken() != nil {
			return nil, fmt.Errorf("user_data: not a cloud-config document, at line %d", y.GetToken().Position.Line)
		}
		return nil, errors.New("user_data: not a cloud-config document")
	}
	p := &bootPlan{}
	for _, step := range []func(*cloudConfig, string) error{p.keys, p.logins, p.writes, p.commands} {
		if err := step(&c, user); err != nil {
			return nil, fmt.Errorf("user_data: %w", err)
		}
	}
	return p, nil
}

func (p *bootPlan) keys(c *cloudConfig, _ string) error {
	for name := range c.HostKeys {
		if name != "ed25519_private" && name != "ed25519_public" {
			p.ignored = append(p.ignored, "ssh_keys."+name)
		}
	}
	private, given := c.HostKeys["ed25519_private"]
	if !given {
		// Deleting is the default, but then a new key comes in its place; ours is as
		// new, so only an explicit wish counts.
		p.dropKeys = c.DeleteKeys != nil && *c.DeleteKeys
		p.newKey = c.GenKeyTypes == nil
		if c.GenKeyTypes != nil {
			for _, t := range *c.GenKeyTypes {
				p.newKey = p.newKey || t == "ed25519"
			}
		}
		return nil
	}
	if !strings.HasSuffix(private, "\n") {
		return errors.New("ssh_keys.ed25519_private does not end in a newline, and sshd would refuse it")
	}
	key, err := ssh.ParsePrivateKey([]byte(private))
	if err != nil || key.PublicKey().Type() != ssh.KeyAlgoED25519 {
		return errors.New("ssh_keys.ed25519_private is not an ed25519 private key without a passphrase")
	}
	p.hostKey, p.hostKeyPEM = key, []byte(private)
	if public := c.HostKeys["ed25519_public"]; public != "" {
		k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(public))
		if err != nil || !bytes.Equal(k.Marshal(), key.PublicKey().Marshal()) {
			return errors.New("ssh_keys.ed25519_public is not the public half of ed25519_private")
		}
	}
	return nil
}

func (p *bootPlan) logins(c *cloudConfig, user string) error {
	lines := c.Authorized
	for i, u := range c.Users {
		switch u := u.(type) {
		case string: // "default": the machine's user, who is there already
		case map[string]any:
			if name, _ := u["name"].(string); name != user {
				p.ignored = append(p.ignored, fmt.Sprintf("users[%d], for there is only %s", i, user))
				continue
			}
			keys, ok := u["ssh_authorized_keys"].([]any)
			if !ok && u["ssh_authorized_keys"] != nil {
				return fmt.Errorf("users[%d].ssh_authorized_keys is not a list", i)
			}
			for _, k := range keys {
				line, _ := k.(string)
				lines = append(lines, line)
			}
		default:
			return fmt.Errorf("users[%d] is neither a name nor a mapping", i)
		}
	}
	for i, line := range lines {
		k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return fmt.Errorf("authorized key %d of %d is not a public key", i+1, len(lines))
		}
		p.authorized = append(p.authorized, k)
	}
	return nil
}

func (p *bootPlan) writes(c *cloudConfig, _ string) error {
	for i, f := range c.Files {
		if f.Path == "" {
			return fmt.Errorf("write_files[%d] has no path", i)
		}
		content, err := decodeContent(f.Content, f.Encoding)
		if err != nil {
			return fmt.Errorf("write_files[%d]: %w", i, err)
		}
		mode, err := fileMode(f.Permissions)
		if err != nil {
			return fmt.Errorf("write_files[%d]: %w", i, err)
		}
		p.files = append(p.files, plannedFile{path.Clean("/" + f.Path), content, f.Append, mode})
	}
	return nil
}

func decodeContent(content, encoding string) ([]byte, error) {
	var packed, b64 bool
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "text/plain":
		return []byte(content), nil
	case "b64", "base64":
		b64 = true
	case "gz", "gzip":
		packed = true
	case "gz+b64", "gz+base64", "gzip+b64", "gzip+base64":
		packed, b64 = true, true
	default:
		return nil, errors.New("unknown encoding")
	}
	data := []byte(content)
	if b64 {
		var err error
		// Long base64 is wrapped.
		if data, err = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(content), "")); err != nil {
			return nil, errors.New("content is not base64")
		}
	}
	if packed {
		r, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, errors.New("content is not gzip")
		}
		if data, err = io.ReadAll(r); err != nil {
			return nil, errors.New("content is not whole gzip")
		}
	}
	return data, nil
}

// fileMode reads permissions: a string is octal, a number is what YAML made of it.
func fileMode(v any) (os.FileMode, error) {
	var n uint64
	switch v := v.(type) {
	case nil:
		return 0o644, nil
	case string:
		var err error
		if n, err = strconv.ParseUint(strings.TrimPrefix(v, "0o"), 8, 32); err != nil {
			return 0, errors.New("permissions are not octal")
		}
	case uint64:
		n = v
	case int64:
		n = uint64(v)
	default:
		return 0, errors.New("permissions are neither a string nor a number")
	}
	if n > 0o7777 {
		return 0, errors.New("permissions are out of range")
	}
	return os.FileMode(n & 0o777), nil
}

// commands makes one script of all commands, as cloud-init does: what one of them
// sets holds for the next, none stops the rest, and the last one's status counts.
func (p *bootPlan) commands(c *cloudConfig, _ string) error {
	var b strings.Builder
	for i, cmd := range c.Commands {
		switch cmd := cmd.(type) {
		case nil:
		case string:
			b.WriteString(cmd)
		case []any:
			for j, word := range cmd {
				if j > 0 {
					b.WriteByte(' ')
				}
				b.WriteString(quote(fmt.Sprint(word)))
			}
		default:
			return fmt.Errorf("runcmd[%d] is neither a string nor a list", i)
		}
		b.WriteByte('\n')
	}
	if b.Len() > 0 {
		p.script = "#!/bin/sh\n" + b.String()
	}
	return nil
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
